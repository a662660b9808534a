"""One HubSpot account as ordinary blocking calls: the door of the source for everything else.

Requests run on an event loop in a thread of their own, so that pages are read ahead while the
caller loads earlier ones, and an interrupt in the caller's thread ends both.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic import SecretStr

from hubspot_deals.contract import DateRange
from hubspot_deals.errors import HubSpotDealsError, HubSpotRequestError, HubSpotScopeError
from hubspot_deals.source.client import ConnectionOptions, HubSpotClient, RequestCounts
from hubspot_deals.source.deals import DealPage, DealReader
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.owners import fetch_owners
from hubspot_deals.source.pipelines import fetch_pipelines
from hubspot_deals.source.plan import Checkpoint, DealRange
from hubspot_deals.source.properties import fetch_definitions

_T = TypeVar("_T")
_READ_AHEAD_PAGES: Final = 50
"""Pages held in memory while the loader is busy: some 5 MB with a hundred properties."""


@dataclass(slots=True)
class DealStream:
    """The pages of one reading, with what the reader has learned so far."""

    pages: Iterator[DealPage]
    reader: DealReader


@dataclass(slots=True)
class AccountFacts:
    """What the first look at an account showed."""

    portal_id: int | None
    notes: list[str] = field(default_factory=list)


class HubSpotAccount(AbstractContextManager["HubSpotAccount"]):
    """A HubSpot account seen through one access token. Enter it before asking it anything."""

    def __init__(self, token: SecretStr, options: ConnectionOptions) -> None:
        self._client = HubSpotClient(token, options)
        self._version = options.api_version
        self._endpoints = Endpoints.of_version(options.api_version)
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None

    def __enter__(self) -> Self:
        self._portal = self._stack.enter_context(start_blocking_portal())
        self._stack.enter_context(self._portal.wrap_async_context_manager(self._client))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def counts(self) -> RequestCounts:
        """Requests sent so far."""
        return self._client.counts

    @property
    def throttled_seconds(self) -> float:
        """Seconds that requests waited for HubSpot's budgets."""
        return self._client.governor.throttled_seconds

    def check_access(self) -> AccountFacts:
        """Find out in two or three requests whether this token can read deals at all.

        Raises HubSpotAuthenticationError or HubSpotScopeError, which names the missing scope.
        """
        return self._call(self._check_access)

    def fetch_definitions(self) -> list[dict[str, Any]]:
        """Return the deal property definitions as HubSpot sends them."""
        return self._call(lambda: fetch_definitions(self._client, self._endpoints))

    def fetch_pipelines(self) -> list[dict[str, Any]]:
        """Return the deal pipelines with their stages, as HubSpot sends them."""
        return self._call(lambda: fetch_pipelines(self._client, self._endpoints))

    def find_owners(self) -> tuple[list[dict[str, Any]], str | None]:
        """Return all owners as HubSpot sends them, or none and a note that says why.

        Owners explain deals; a token that may not read them is no reason to go without deals.
        """
        try:
            return self._call(lambda: fetch_owners(self._client, self._endpoints)), None
        except (HubSpotScopeError, HubSpotRequestError) as error:
            return [], f"users holds only the owner ids found on deals. {error}"

    def count_deals(self, span: DateRange | None) -> int | None:
        """Return HubSpot's own count of live deals in a range; None where it gives none."""
        reader = DealReader(self._client, self._endpoints, ())
        return self._call(lambda: reader.count(span))

    @contextmanager
    def open_deals(
        self,
        plan: Sequence[DealRange],
        properties: Sequence[str],
        *,
        start: Checkpoint | None = None,
        earlier: Iterable[tuple[str, str | None]] = (),
    ) -> Iterator[DealStream]:
        """Read the deals of a plan, ahead of the consumer by a bounded number of pages.

        `earlier` are id and owner of the deals that an earlier run has read before `start`.
        """
        reader = DealReader(self._client, self._endpoints, properties)
        for deal_id, owner_id in earlier:
            reader.remember(int(deal_id), owner_id)
        portal = self._require_portal()
        queue: asyncio.Queue[DealPage | Exception | None] = portal.call(
            lambda: asyncio.Queue(_READ_AHEAD_PAGES)
        )
        reading = portal.start_task_soon(_read_into, queue, reader, plan, start or Checkpoint())
        try:
            yield DealStream(_take_from(portal, queue), reader)
        finally:
            reading.cancel()

    async def _check_access(self) -> AccountFacts:
        facts = AccountFacts(portal_id=None)
        try:
            details = await self._client.get(self._endpoints.account)
            facts.portal_id = details.get("portalId")
        except (HubSpotScopeError, HubSpotRequestError):
            facts.notes.append("The token may not read the account's details.")
        await self._find_deal_object()
        return facts

    async def _find_deal_object(self) -> None:
        """Read one deal; a server that knows deals by their other name is asked by that."""
        try:
            await self._client.get(self._endpoints.deals, {"limit": "1"})
        except HubSpotRequestError as error:
            if error.status != 404:  # noqa: PLR2004
                raise
            by_name = Endpoints.of_version(self._version, deal_object="deals")
            if by_name == self._endpoints:
                raise
            self._endpoints = by_name
            await self._client.get(self._endpoints.deals, {"limit": "1"})

    def _call(self, request: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        answer: _T = self._require_portal().call(request)
        return answer

    def _require_portal(self) -> BlockingPortal:
        if self._portal is None:
            msg = "HubSpotAccount must be entered before it is asked anything"
            raise RuntimeError(msg)
        return self._portal


async def _read_into(
    queue: "asyncio.Queue[DealPage | Exception | None]",
    reader: DealReader,
    plan: Sequence[DealRange],
    start: Checkpoint,
) -> None:
    try:
        async for page in reader.pages(plan, start):
            await queue.put(page)
    except HubSpotDealsError as error:
        await queue.put(error)
    except Exception as error:  # noqa: BLE001 - handed to the consumer, which raises it
        await queue.put(error)
    else:
        await queue.put(None)


def _take_from(
    portal: BlockingPortal, queue: "asyncio.Queue[DealPage | Exception | None]"
) -> Iterator[DealPage]:
    while (item := portal.call(queue.get)) is not None:
        if isinstance(item, Exception):
            raise item
        yield item
