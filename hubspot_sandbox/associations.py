"""The two v4 reads of associations, and the ones inside a listed deal."""

import base64
from typing import Any, Final
from urllib.parse import quote, unquote

from hubspot_sandbox.clock import iso_ms
from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.endpoint import Answer, Call, World, as_json, is_number
from hubspot_sandbox.failures import bad_json, bad_request, not_found
from hubspot_sandbox.links import Links
from hubspot_sandbox.routes import TARGET_TYPES

INLINE_LIMIT: Final = 100
_BATCH_INPUTS: Final = 1_000
_LIST_LIMIT: Final = 500
# Type id -> plural name, singular name, HubSpot's two association type ids.
_TARGETS: Final = {
    "0-1": ("contacts", "contact", (3, 4)),
    "0-2": ("companies", "company", (341, 5)),
    "0-8": ("line_items", "line_item", (19,)),
}


def _cursor(target: str, identity: int) -> str:
    """HubSpot's token: base64 of type and id of the next record, percent-encoded."""
    return quote(base64.b64encode(f"{target}-{identity}".encode()).decode())


def _read_cursor(after: str, target: str) -> int:
    try:
        text = base64.b64decode(unquote(after), validate=True).decode()
        return int(text.removeprefix(f"{target}-"))
    except ValueError as error:
        message = f"Invalid paging cursor: {after}"
        raise bad_request(message) from error


def inline_associations(
    config: SandboxConfig, links: Links, deal: int, targets: list[str], base_url: str
) -> dict[str, Any]:
    """The `associations` of a listed deal: ids only, at most a hundred a type, pairs repeated."""
    found: dict[str, Any] = {}
    for name in targets:
        target = TARGET_TYPES[name.lower()]
        plural = _TARGETS[target][0]
        ids = links.of(deal, target)
        if not ids:
            continue
        results = [pair for one in ids[:INLINE_LIMIT] for pair in _labelled(one, target)]
        body: dict[str, Any] = {"results": results}
        if len(ids) > INLINE_LIMIT:
            after = _cursor(target, ids[INLINE_LIMIT])
            path = f"/crm/v3/objects/0-3/{deal}/associations/{target}"
            link = f"{base_url}{path}?portalId={config.portal_id}&after={after}"
            body["paging"] = {"next": {"after": after, "link": link}}
        found[plural] = body
    return found


class Associations:
    """The two v4 reads."""

    def __init__(self, world: World) -> None:
        self._world = world

    def batch(self, call: Call) -> Answer:
        """`POST …/associations/deals/{to}/batch/read`."""
        target = self._target(call.route.args[0])
        inputs = call.json().get("inputs")
        if not isinstance(inputs, list):
            problem = "Some required fields were not set: [inputs]"
            raise bad_json(problem)
        if len(inputs) > _BATCH_INPUTS:
            message = (
                f"The maximum number of inputs supported in a batch request is {_BATCH_INPUTS}."
            )
            raise bad_request(message)
        started = iso_ms(self._world.clock.ms())
        results, errors = [], []
        for item in inputs:
            identity = str(item.get("id", "")) if isinstance(item, dict) else ""
            after = str(item.get("after") or "") if isinstance(item, dict) else ""
            record = self._record(identity, target, after, call)
            if record:
                results.append(record)
            else:
                errors.append(_no_association(identity, target))
        body: dict[str, Any] = {"status": "COMPLETE", "results": results}
        if errors:
            body |= {"numErrors": len(errors), "errors": errors}
        body |= {"startedAt": started, "completedAt": iso_ms(self._world.clock.ms())}
        return as_json(body, 207 if errors else 200)

    def of_one(self, call: Call) -> Answer:
        """`GET …/objects/deals/{id}/associations/{to}`."""
        identity, name = call.route.args
        target = self._target(name)
        limit = call.limit(call.query.text(b"limit"), most=_LIST_LIMIT, default=_LIST_LIMIT)
        ids = self._ids(identity, target)
        if ids is None:
            raise not_found(identity)
        after = call.query.text(b"after")
        left = [one for one in ids if after is None or one >= _read_cursor(after, target)]
        shown = [
            pair
            for one in left[:limit]
            for pair in (
                _labelled(one, target) if call.route.version == "v3" else (_pair(one, target),)
            )
        ]
        body: dict[str, Any] = {"results": shown}
        self._page(body, left, limit, target, call)
        return as_json(body)

    def _record(self, identity: str, target: str, after: str, call: Call) -> dict[str, Any] | None:
        ids = self._ids(identity, target)
        if not ids:
            return None
        left = [one for one in ids if not after or one >= _read_cursor(after, target)]
        # Doubtful: the number of targets per record and page of a batch.
        shown = [_pair(one, target) for one in left[:INLINE_LIMIT]]
        body: dict[str, Any] = {"from": {"id": identity}, "to": shown}
        self._page(body, left, INLINE_LIMIT, target, call)
        return body

    def _page(
        self, body: dict[str, Any], left: list[int], limit: int, target: str, call: Call
    ) -> None:
        if len(left) > limit:
            after = _cursor(target, left[limit])
            link = f"{call.base_url}{call.path}?after={after}"
            body["paging"] = {"next": {"after": after, "link": link}}

    def _ids(self, identity: str, target: str) -> list[int] | None:
        row = self._world.store.find_current(int(identity)) if is_number(identity) else None
        if row is None or self._world.account.state[row]:
            return None
        deal = int(self._world.account.ids[row])
        return self._world.links.of(deal, target)

    @staticmethod
    def _target(name: str) -> str:
        target = TARGET_TYPES.get(name.lower())
        if target is None:
            message = f"Unable to infer object type from: {name}"
            raise bad_request(message, category=None)
        return target


def _labelled(identity: int, target: str) -> list[dict[str, Any]]:
    """One associated record the v3 way: once per association type, so the id comes twice."""
    _, singular, type_ids = _TARGETS[target]
    kinds = [f"deal_to_{singular}", f"deal_to_{singular}_unlabeled"][: len(type_ids)]
    return [{"id": str(identity), "type": kind} for kind in kinds]


def _pair(identity: int, target: str) -> dict[str, Any]:
    """One associated record; `toObjectId` is a number on the wire, whatever the specification."""
    types = [
        {"category": "HUBSPOT_DEFINED", "typeId": type_id, "label": None if place else "Primary"}
        for place, type_id in enumerate(_TARGETS[target][2])
    ]
    return {"toObjectId": identity, "associationTypes": types}


def _no_association(identity: str, target: str) -> dict[str, Any]:
    # Doubtful: how HubSpot tells that a deal has none; missing deals are told the same way.
    singular = _TARGETS[target][1]
    return {
        "status": "error",
        "category": "OBJECT_NOT_FOUND",
        "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
        "message": f"No {singular} is associated with deal {identity}.",
        "context": {
            "fromObjectId": [identity],
            "fromObjectType": ["deal"],
            "toObjectType": [singular],
        },
    }
