"""The envelope that HubSpot wraps lists in: the results, and the cursor of the page after them."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from hubspot_deals.errors import HubSpotProtocolError
from hubspot_deals.source.client import HubSpotClient
from hubspot_deals.source.endpoints import Endpoint

Page = tuple[list[dict[str, Any]], str | None]
"""Deals, and the cursor behind them: None behind the last ones."""

_LONGEST_ID: Final = 19
"""Digits: HubSpot's ids are 64-bit integers, today of up to twelve digits."""


async def walk_list(
    client: HubSpotClient, endpoint: Endpoint, params: Mapping[str, str], after: str | None = None
) -> AsyncIterator[tuple[dict[str, Any], str | None]]:
    """Yield the answers of a list with the cursor behind each, None behind the last one.

    The cursor may be anything; only its absence ends the list. Raises HubSpotProtocolError when
    one comes back, instead of looping. An empty page may come back to itself once: that it failed
    to fill is no loop.
    """
    used: set[str] = set()
    asked_again: set[str] = set()
    while True:
        cursor = {} if after is None else {"after": after}
        page = await client.get(endpoint, {**params, **cursor})
        following = next_cursor(page)
        if following in used:
            if following != after or page.get("results") or following in asked_again:
                msg = (
                    f"HubSpot's list {endpoint.path} gave the cursor {following!r} twice; stopped."
                )
                raise HubSpotProtocolError(msg)
            asked_again.add(following)
        yield page, following
        if following is None:
            return
        used.add(following)
        after = following


def results_of(page: Mapping[str, Any], *, key: str = "id") -> list[dict[str, Any]]:
    """Return the objects of an answer, each known by `key`; raises HubSpotProtocolError.

    An answer without a list is an error in disguise, never an empty account.
    """
    results = page.get("results")
    if not isinstance(results, list):
        msg = "HubSpot's answer has no list of results; is this the HubSpot API?"
        raise HubSpotProtocolError(msg)
    if not all(isinstance(item, dict) and item.get(key) is not None for item in results):
        msg = f"HubSpot's answer has a result without {key!r}; is this the HubSpot API?"
        raise HubSpotProtocolError(msg)
    return results


def next_cursor(page: Mapping[str, Any]) -> str | None:
    """Return the cursor of the page after this one; None when this is the last."""
    following: Any = page
    for key in ("paging", "next"):
        following = following.get(key) or {}
        if not isinstance(following, dict):
            msg = f"HubSpot's answer has a {key!r} that is no object, so the next page is unknown."
            raise HubSpotProtocolError(msg)
    after = following.get("after")
    return None if after in (None, "") else str(after)


def deals_of(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the deals of an answer; raises HubSpotProtocolError for anything else."""
    deals = results_of(page)
    if not all(isinstance(deal.get("properties"), dict) for deal in deals):
        msg = "HubSpot sent a deal without properties; is this the HubSpot API?"
        raise HubSpotProtocolError(msg)
    return deals


def missing_ids(answer: Mapping[str, Any]) -> set[str]:
    """Return the ids that a batch read says it found no object for."""
    missing: set[str] = set()
    errors = answer.get("errors")
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict) and error.get("category") == "OBJECT_NOT_FOUND":
            context = error.get("context")
            ids = context.get("ids") if isinstance(context, dict) else None
            missing |= {str(item) for item in ids} if isinstance(ids, list) else set()
    return missing


def id_number(deal: Mapping[str, Any]) -> int:
    """Return a deal's id as a number; raises HubSpotProtocolError where it is none."""
    text = str(deal["id"])
    if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_ID):
        msg = f"HubSpot sent a deal with the id {text[:40]!r}, which is no number."
        raise HubSpotProtocolError(msg)
    return int(text)
