"""Finding out what an account can be asked, against a server that knows only some of HubSpot."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, make_server
from zoneinfo import ZoneInfo

import orjson
import pytest
from pydantic import SecretStr

from hubspot_deals.errors import HubSpotProtocolError, HubSpotRequestError, HubSpotScopeError
from hubspot_deals.source.account import HubSpotAccount
from hubspot_deals.source.client import ConnectionOptions

DATED = "/crm/objects/2026-03"
EMPTY = (200, {"results": []})
REFUSED = (403, {"status": "error", "message": "no"})


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def account_of(routes, version="2026-03") -> Iterator[HubSpotAccount]:
    """An account on a server that has just these paths."""
    reasons = {200: "OK", 403: "Forbidden", 404: "Not Found"}

    def application(environ, start_response):
        status, body = routes.get(environ["PATH_INFO"], (404, {"message": "resource not found"}))
        start_response(f"{status} {reasons[status]}", [("Content-Type", "application/json")])
        return [orjson.dumps(body)]

    with make_server("127.0.0.1", 0, application, handler_class=_Quiet) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        options = ConnectionOptions(
            base_url=f"http://127.0.0.1:{server.server_port}",
            api_version=version,
            request_timeout=2,
            retry_time=1,
        )
        try:
            with HubSpotAccount(SecretStr("canary-token-0123456789"), options) as account:
                yield account
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"{DATED}/0-3", f"{DATED}/0-3"),
        (f"{DATED}/deals", f"{DATED}/deals"),
        ("/crm/v3/objects/deals", "/crm/v3/objects/deals"),
    ],
)
def test_deals_are_found_under_any_spelling(path, expected):
    with account_of({path: EMPTY}) as account:
        account.check_access()
        assert account._endpoints.deals.path == expected
        assert account.portal_id is None
        assert "details are not known" in account.notes[0]


def test_a_server_without_deals_is_refused_with_the_documented_path():
    with account_of({}) as account, pytest.raises(HubSpotRequestError, match=f"{DATED}/0-3"):
        account.check_access()


def test_a_missing_scope_is_not_taken_for_a_missing_path():
    routes = {f"{DATED}/0-3": REFUSED, f"{DATED}/deals": EMPTY}
    with account_of(routes) as account, pytest.raises(HubSpotScopeError, match=r"deals\.read"):
        account.check_access()


@pytest.mark.parametrize("answer", [REFUSED, None], ids=["refused", "absent"])
def test_what_only_explains_deals_may_be_missing_and_is_noted(answer):
    routes = {f"{DATED}/0-3": EMPTY, "/account-info/2026-03/details": (200, {"portalId": 7})}
    for name in ("properties/2026-03/deals", "pipelines/2026-03/deals", "owners/2026-03"):
        if answer is not None:
            routes[f"/crm/{name}"] = answer
    with account_of(routes) as account:
        account.check_access()
        assert account.portal_id == 7
        assert account.fetch_definitions() == account.fetch_pipelines() == []
        assert account.fetch_owners() == []
        assert [note.split(" ", 1)[0] for note in account.notes] == [
            "deal_properties",
            "pipelines",
            "users",
        ]


def test_definitions_that_a_scan_needs_must_be_there():
    with account_of({f"{DATED}/0-3": EMPTY}) as account, pytest.raises(HubSpotRequestError):
        account.fetch_definitions(required=True)


def test_a_list_that_loops_is_not_followed():
    loop = (200, {"results": [{"id": "1"}], "paging": {"next": {"after": "x"}}})
    with (
        account_of({"/crm/owners/2026-03": loop}) as account,
        pytest.raises(HubSpotProtocolError, match="cursor 'x' twice"),
    ):
        account.fetch_owners()


@pytest.mark.parametrize(("name", "zone"), [("US/Eastern", ZoneInfo("US/Eastern")), ("?", None)])
def test_the_accounts_time_zone_is_learned_from_its_details(name, zone):
    details = (200, {"portalId": 7, "timeZone": name})
    routes = {f"{DATED}/0-3": EMPTY, "/account-info/2026-03/details": details}
    with account_of(routes) as account:
        account.check_access()
        assert account._client.time_zone == zone
