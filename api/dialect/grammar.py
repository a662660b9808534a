"""Which of the two documents a request follows: `/scan/status/{id}` or `/scan/{id}/status`."""

from collections.abc import Mapping
from typing import Final

PREFIX: Final = "/api/v1"

VERB_FIRST: Final[Mapping[str, str]] = {
    "status": "GET",
    "result": "GET",
    "download": "GET",
    "cancel": "POST",
    "remove": "DELETE",
}
ID_FIRST: Final[Mapping[str, str]] = {
    "status": "GET",
    "cancel": "POST",
    "pause": "POST",
    "resume": "POST",
    "remove": "DELETE",
}
"""The method that goes with each verb."""

_LONG: Final = "download"
"""The verb behind whose id a format follows."""


def is_verb_first(method: str, path: str) -> bool:
    """Tell whether the verb-first document decides how this request is answered.

    Where the path leaves it open (an id that is itself a verb, a path of both documents), the root
    is verb-first's home and `/api/v1` the other one's. The order of the routers says the same.
    """
    is_at_root = not path.startswith(f"{PREFIX}/")
    asked = "GET" if method == "HEAD" else method
    match path.removeprefix(PREFIX).split("/"):
        case ["", "scan", verb, _, _] if verb == _LONG:
            return True
        case ["", "scan", first, last]:
            by_verb = first != _LONG and VERB_FIRST.get(first) == asked
            by_id = ID_FIRST.get(last) == asked
            return by_verb if by_verb != by_id else is_at_root
        case ["", "results", *_]:
            return False
        case _:
            return is_at_root
