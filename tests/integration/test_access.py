"""Who may call what, over HTTP on a real PostgreSQL: every route with an id, for every caller."""

import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from api.access.levels import NEEDS
from api.access.route import GuardedRoute, check_routes
from api.main import build_app
from hubspot_deals.contract import AccessLevel
from tests.integration.access_cases import (
    MINE,
    NOWHERE,
    STANDING,
    add_completed_scan,
    add_connection,
    add_key,
    add_webhook,
    add_what_is_mine,
    bearer,
    start_body,
    told,
)


def operations_with_ids():
    """Every method and path of the service with an id in it, of the document itself."""
    paths = build_app().openapi()["paths"]
    return sorted(
        (method.upper(), path, operation["operationId"].removesuffix("_at_root"))
        for path, methods in paths.items()
        for method, operation in methods.items()
        if "{" in path
    )


OPERATIONS = operations_with_ids()


BODIES = {"change_connection": {"name": "another"}, "change_webhook": {"description": "another"}}


def ask(client, operation, key, ids):
    method, path, name = operation
    query = {"table_name" if "/scan/" in path else "tableName": "deals"}
    is_read = method == "GET" and path.endswith(("result", "result/{scan_id}", "{format}"))
    return client.request(
        method,
        path.format(**ids, format="csv"),
        headers=bearer(key) if key else {},
        params=query if is_read else {},
        json=BODIES.get(name),
    )


def stored(database):
    tables = ("scans", "connections", "webhooks", "webhook_deliveries")
    return [
        database.execute(f"SELECT t::text FROM hubspot_deals.{table} t").fetchall()
        for table in tables
    ]


@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_each_caller_gets_from_a_route_with_an_id_what_it_may_have(service, database, operation):
    name = operation[2]
    add_what_is_mine(database)
    before = stored(database)
    own, foreign = ["org-1"], ["org-2", "org-3"]
    keys = {
        "expired": add_key(database, organizations=own, expires="-1 second")[0],
        "revoked": add_key(database, organizations=own, revoked=True)[0],
        "foreign": add_key(database, organizations=foreign)[0],
        "reader": add_key(database, organizations=own, level="read")[0],
        "runner": add_key(database, organizations=own, level="run")[0],
        "owner": add_key(database, organizations=own)[0],
        "admin": add_key(database, organizations=None)[0],
    }

    # Nobody, and who is nobody any more.
    for refused in (None, keys["expired"], keys["revoked"], keys["admin"][:-1] + "x"):
        answer = ask(service, operation, refused, MINE)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
        assert not any(one in answer.text for one in MINE.values())
        unknown = ask(service, operation, refused, NOWHERE)
        assert told(answer, *MINE.values()) == told(unknown, *NOWHERE.values())

    # What is another organization's does not exist.
    there = ask(service, operation, keys["foreign"], MINE)
    unknown = ask(service, operation, keys["foreign"], NOWHERE)
    assert told(there, *MINE.values()) == told(unknown, *NOWHERE.values())
    assert there.status_code == (200 if name == "get_extraction_status" else 404)
    assert "org-1" not in there.text

    # Who may only read.
    answer = ask(service, operation, keys["reader"], MINE)
    needed = NEEDS[name].level
    assert answer.status_code in ({200, 202} if needed is AccessLevel.READ else {403}), answer.text
    if answer.status_code == 403:
        scope = f'error="insufficient_scope", scope="{needed}"'
        assert scope in answer.headers["WWW-Authenticate"]
        unknown = ask(service, operation, keys["reader"], NOWHERE)
        assert told(answer, *MINE.values()) == told(unknown, *NOWHERE.values())
    # Who may have work done, and not say what goes on after it.
    if name in STANDING:
        answer = ask(service, operation, keys["runner"], MINE)
        assert answer.status_code == 403
        unknown = ask(service, operation, keys["runner"], NOWHERE)
        assert told(answer, *MINE.values()) == told(unknown, *NOWHERE.values())
    assert stored(database) == before

    # Who may do it: what comes then is the route's own answer.
    entitled = ("runner", "admin") if name not in STANDING else ("owner", "admin")
    for allowed in entitled:
        answer = ask(service, operation, keys[allowed], MINE)
        has_gone = name.startswith(("remove", "delete")) and allowed == "admin"
        assert answer.status_code == (404 if has_gone else answer.status_code)
        assert has_gone or answer.status_code in {200, 202, 400}, answer.text
        assert '"UNAUTHORIZED"' not in answer.text


def test_a_diff_with_a_foreign_scan_is_one_with_an_unknown_scan(service, database):
    add_completed_scan(database, "own")
    add_completed_scan(database, "foreign", "org-2")
    key, _ = add_key(database, organizations=["org-1"])

    for old, new in (("own", "{}"), ("{}", "own")):
        answers = [
            service.get(
                f"/results/{old.format(other)}/diff/{new.format(other)}", headers=bearer(key)
            )
            for other in ("foreign", "nowhere")
        ]
        assert told(answers[0], "foreign") == told(answers[1], "nowhere")
        assert answers[0].status_code == 404


def test_lists_and_sums_are_of_the_callers_organizations(service, database):
    for number in range(6):
        add_completed_scan(database, f"scan-{number}", f"org-{number % 3}")
    key, _ = add_key(database, organizations=["org-0", "org-1"], level="read")
    every, _ = add_key(database, organizations=None, level="read")

    for prefix in ("", "/api/v1"):
        first = service.get(f"{prefix}/scan/list?limit=3", headers=bearer(key))
        page = first.json()["data"]
        rest = service.get(first.links["next"]["url"], headers=bearer(key)).json()["data"]
        assert [scan["scanId"] for scan in page["scans"] + rest["scans"]] == [
            "scan-4",
            "scan-3",
            "scan-1",
            "scan-0",
        ]
        assert page["pagination"]["total"] == 4
        assert first.headers["X-Pagination-Total"] == "4"
        sums = service.get(f"{prefix}/stats", headers=bearer(key)).json()["data"]
        assert (sums["total_jobs"], sums["status_breakdown"]) == (4, {"completed": 4})
        one = service.get(f"{prefix}/stats?organizationId=org-1", headers=bearer(key))
        assert one.json()["data"]["total_jobs"] == 2
        all_of_them = service.get(f"{prefix}/stats", headers=bearer(every)).json()["data"]
        assert all_of_them["total_jobs"] == 6
        for path in ("/scan/list", "/stats"):
            answers = [
                service.get(f"{prefix}{path}?organizationId={name}", headers=bearer(key))
                for name in ("org-2", "org-of-nobody")
            ]
            assert [answer.status_code for answer in answers] == [403, 403]
            assert told(answers[0], "-") == told(answers[1], "-")
        # A cursor of another caller's list is none of this one's.
        mine = page["pagination"]["nextCursor"]
        assert (
            service.get(f"{prefix}/scan/list?cursor={mine}", headers=bearer(every)).status_code
            == 400
        )


def test_lists_of_connections_and_webhooks_are_of_the_callers_organizations(service, database):
    for number in range(6):
        add_connection(database, f"connection_{number}", f"org-{number % 3}")
        add_webhook(database, f"wh_{number:032d}", f"org-{number % 3}")
    key, _ = add_key(database, organizations=["org-0", "org-1"], level="read")
    every, _ = add_key(database, organizations=None, level="read")

    for kind in ("connections", "webhooks"):
        first = service.get(f"/api/v1/{kind}?limit=3", headers=bearer(key))
        page = first.json()["data"]
        rest = service.get(first.links["next"]["url"], headers=bearer(key)).json()["data"]
        found = [one["organizationId"] for one in page[kind] + rest[kind]]
        assert found == ["org-1", "org-0", "org-1", "org-0"]
        assert page["pagination"]["total"] == 4
        one = service.get(f"/api/v1/{kind}?organizationId=org-1", headers=bearer(key)).json()
        assert one["data"]["pagination"]["total"] == 2
        answers = [
            service.get(f"/api/v1/{kind}?organizationId={name}", headers=bearer(key))
            for name in ("org-2", "org-of-nobody")
        ]
        assert [answer.status_code for answer in answers] == [403, 403]
        assert told(answers[0], "-") == told(answers[1], "-")
        all_of_them = service.get(f"/api/v1/{kind}", headers=bearer(every)).json()
        assert all_of_them["data"]["pagination"]["total"] == 6
    sums = service.get("/api/v1/stats", headers=bearer(key)).json()
    assert sums["connections"]["total"] == 4


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("connections", {"auth": {"accessToken": "pat-na1-xxxxxxxx"}, "check": False}),
        ("webhooks", {"url": "https://example.com/hook", "events": ["scan.completed"]}),
    ],
)
def test_what_is_made_is_of_an_own_organization_and_by_its_administrator(
    service, database, path, body
):
    key, _ = add_key(database, organizations=["org-1"])
    runner, _ = add_key(database, organizations=["org-2"], level="run")

    for name in ("org-2", "org-of-nobody"):
        answer = service.post(
            f"/api/v1/{path}", json={**body, "organizationId": name}, headers=bearer(key)
        )
        assert (answer.status_code, answer.json()["error_code"]) == (403, "FORBIDDEN")
        assert name not in answer.text
    refused = service.post(
        f"/api/v1/{path}", json={**body, "organizationId": "org-2"}, headers=bearer(runner)
    )
    assert refused.status_code == 403
    assert 'scope="admin"' in refused.headers["WWW-Authenticate"]
    assert database.execute(f"SELECT count(*) FROM hubspot_deals.{path}").fetchone() == (0,)


@pytest.mark.parametrize(
    ("organizations", "level", "expected"),
    [(None, "read", 200), (["org-1"], "admin", 403)],
)
def test_figures_are_for_who_may_see_everything(service, database, organizations, level, expected):
    key, _ = add_key(database, organizations=organizations, level=level)

    assert service.get("/metrics", headers=bearer(key)).status_code == expected
    assert service.get("/metrics").status_code == 401


@pytest.mark.parametrize("path", ["/scan/start", "/api/v1/scan/start", "/scan/plan"])
def test_a_scan_is_started_and_planned_for_own_organizations_only(service, database, path):
    key, _ = add_key(database, organizations=["org-1"], level="run")
    reader, _ = add_key(database, organizations=["org-2"], level="read")

    for name in ("org-2", "org-of-nobody"):
        answer = service.post(path, json=start_body("scan-1", name), headers=bearer(key))
        assert (answer.status_code, answer.json()["error_code"]) == (403, "FORBIDDEN")
        assert name not in answer.text
    answer = service.post(path, json=start_body("scan-1", "org-2"), headers=bearer(reader))
    assert answer.status_code == 403
    assert database.execute("SELECT count(*) FROM hubspot_deals.scans").fetchone() == (0,)


@pytest.mark.parametrize("path", ["/scan/start", "/api/v1/scan/start"])
def test_a_taken_id_of_another_organization_tells_nothing_but_that_it_is_taken(
    service, database, path
):
    add_completed_scan(database, "done", "org-2")
    owner, _ = add_key(database, organizations=["org-2"], level="run")
    key, _ = add_key(database, organizations=["org-1"], level="run")
    started = start_body("active", "org-2")
    assert service.post(path, json=started, headers=bearer(owner)).status_code == 202
    removed = start_body("removed", "org-2")
    assert service.post(path, json=removed, headers=bearer(owner)).status_code == 202
    database.execute("UPDATE hubspot_deals.scans SET removal = 'scan' WHERE scan_id = 'removed'")

    answers = {
        scan_id: service.post(path, json=start_body(scan_id, "org-1"), headers=bearer(key))
        for scan_id in ("done", "active", "removed")
    }

    assert len({told(answer, scan_id)[2] for scan_id, answer in answers.items()}) == 1
    assert {answer.status_code for answer in answers.values()} == {409}
    assert {answer.json()["code"] for answer in answers.values()} == {"SCAN_EXISTS"}


def test_verb_first_starts_are_for_the_one_organization_of_their_key(service, database):
    key, _ = add_key(database, organizations=["org-1"], level="run")
    body = start_body("scan-1", "-")
    del body["config"]["organizationId"]

    assert service.post("/scan/start", json=body, headers=bearer(key)).status_code == 202

    row = database.execute("SELECT organization_id FROM hubspot_deals.scans").fetchone()
    assert row == ("org-1",)


@pytest.mark.parametrize("path", ["cleanup", "detect-crashed"])
@pytest.mark.parametrize(
    ("organizations", "level", "expected"),
    [(None, "admin", 200), (["org-1"], "admin", 403), (None, "run", 403)],
)
def test_maintenance_is_for_administrators_of_everything(
    service, database, path, organizations, level, expected
):
    key, _ = add_key(database, organizations=organizations, level=level)

    answer = service.post(f"/api/v1/maintenance/{path}", headers=bearer(key))

    assert answer.status_code == expected


@pytest.mark.parametrize(
    "path",
    [
        "/health/live",
        "/api/v1/health/ready",
        "/health",
        "/api/v1/health",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/api/v1/docs",
    ],
)
@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "hsd_wrong"}])
def test_health_and_documentation_are_open(service, path, headers):
    assert service.get(path, headers=headers).status_code == 200


def test_every_route_has_a_declared_level_and_no_declaration_is_left_over():
    app = build_app()
    routes = [context.original_route for context in iter_route_contexts(app.routes)]
    names = {getattr(route, "name", None) or route.path for route in routes}

    assert names == set(NEEDS)
    for route in routes:
        assert NEEDS[getattr(route, "name", None) or route.path].level is None or isinstance(
            route, GuardedRoute
        )


def test_a_route_without_level_keeps_the_application_from_starting():
    app = build_app()

    async def forgotten():
        return {}

    app.get("/forgotten")(forgotten)
    with pytest.raises(LookupError, match="forgotten"):
        check_routes(app)

    app.router.routes.pop()
    app.router.routes.append(APIRoute("/list", forgotten, name="list_scans"))
    with pytest.raises(LookupError, match="GuardedRoute"):
        check_routes(app)
