"""What every endpoint is given and gives back."""

from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from hubspot_sandbox.account import Account
from hubspot_sandbox.catalog import Catalog
from hubspot_sandbox.clock import Clock
from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.failures import bad_json, bad_request
from hubspot_sandbox.index import SearchIndex
from hubspot_sandbox.journal import Journal
from hubspot_sandbox.links import Links
from hubspot_sandbox.messages import Query, Request
from hubspot_sandbox.people import People
from hubspot_sandbox.render import Renderer
from hubspot_sandbox.routes import Route
from hubspot_sandbox.search import Searcher
from hubspot_sandbox.store import Store
from hubspot_sandbox.tokens import Tokens

DEFAULT_LIMIT: Final = 10
_LONGEST_NUMBER: Final = 30


def is_number(text: str) -> bool:
    """Whether a text is a whole number of sensible length (Python refuses to read huge ones)."""
    return text.isdecimal() and len(text) <= _LONGEST_NUMBER


@dataclass(frozen=True, slots=True)
class World:
    """The account and everything that reads it; one per sandbox."""

    config: SandboxConfig
    clock: Clock
    people: People
    catalog: Catalog
    store: Store
    index: SearchIndex
    journal: Journal
    links: Links
    searcher: Searcher
    renderer: Renderer
    tokens: Tokens

    @property
    def account(self) -> Account:
        """The columns of the live store."""
        return self.store.account


@dataclass(slots=True)
class Call:
    """One request on its way to an endpoint."""

    request: Request
    route: Route
    path: str
    query: Query
    token: str = ""
    # How a fault rule wants the page spoiled: its type and its number of results.
    page_fault: tuple[str, int] | None = None
    # Response headers beyond those of the budgets.
    headers: bytes = b""
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        """This server, as the client reached it."""
        return "http://" + self.request.headers.get(b"host", b"127.0.0.1").decode("latin-1")

    def json(self) -> dict[str, Any]:
        """The request body as an object."""
        try:
            body = orjson.loads(self.request.body or b"{}")
        except orjson.JSONDecodeError as error:
            raise bad_json(str(error), column=error.pos + 1) from error
        if not isinstance(body, dict):
            problem = "expected an object"
            raise bad_json(problem)
        return body

    @staticmethod
    def names(body: dict[str, Any], key: str) -> tuple[str, ...]:
        """A list of property names in a body."""
        names = body.get(key) or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            problem = f"{key} must be a list of strings"
            raise bad_json(problem)
        return tuple(names)

    def limit(self, value: object, *, most: int, default: int = DEFAULT_LIMIT) -> int:
        """A page size within 1 and `most`; over it is refused, as HubSpot does."""
        if value is None or value == "":
            return default
        text = str(value)
        # Doubtful: that these are refused is recorded, the words of the refusal are not.
        if not is_number(text) or int(text) < 1:
            message = f"Invalid limit: {text}"
            raise bad_request(message)
        if int(text) > most:
            message = f"Limit cannot be greater than {most}, was {text}"
            raise bad_request(message)
        return int(text)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answers: a status and a JSON body."""

    body: bytes
    status: int = 200


def as_json(body: object, status: int = 200) -> Answer:
    """An answer from plain objects."""
    return Answer(orjson.dumps(body), status)
