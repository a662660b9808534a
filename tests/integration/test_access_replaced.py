"""An id of a scan that passes to another organization while, or before, somebody asks for it."""

import pytest

from api.access.owners import Owners
from api.results.service import ResultReader
from tests.integration.access_cases import add_completed_scan, add_key, bearer, told


def test_an_id_that_was_taken_by_somebody_else_between_check_and_answer_is_unknown(
    service, database, monkeypatch
):
    """The window is a moment; here it is opened by whoever looks for the second time."""
    add_completed_scan(database, "scan-1")
    key, _ = add_key(database, organizations=["org-1"])
    original, calls = Owners.look, []

    async def look(self, actor, asked):
        calls.append(list(asked))
        if len(calls) == 2:
            database.execute("DELETE FROM hubspot_deals.scans WHERE scan_id = 'scan-1'")
            add_completed_scan(database, "scan-1", "org-2")
        return await original(self, actor, calls[-1])

    monkeypatch.setattr(Owners, "look", look)

    answer = service.get("/api/v1/scan/scan-1/status", headers=bearer(key))

    monkeypatch.undo()
    unknown = service.get("/api/v1/scan/scan-0/status", headers=bearer(key))
    assert told(answer, "scan-1") == told(unknown, "scan-0")


def test_a_page_whose_scan_was_replaced_by_another_organizations_is_unknown(
    service, database, monkeypatch
):
    """Nobody looks for the second time where the page's own statement names the scan."""
    page = "/api/v1/results/{}/result?tableName=deals"
    add_completed_scan(database, "scan-1")
    key, _ = add_key(database, organizations=["org-1"])
    assert service.get(page.format("scan-1"), headers=bearer(key)).status_code == 200
    original, looks = Owners.look, []

    async def look(self, actor, asked):
        looks.append(asked)
        return await original(self, actor, asked)

    monkeypatch.setattr(Owners, "look", look)
    assert service.get(page.format("scan-1"), headers=bearer(key)).status_code == 200
    assert looks == []

    async def read_late(self, request, original=ResultReader.get_page):
        database.execute("DELETE FROM hubspot_deals.scans WHERE scan_id = 'scan-1'")
        add_completed_scan(database, "scan-1", "org-2")
        return await original(self, request)

    monkeypatch.setattr(ResultReader, "get_page", read_late)
    answer = service.get(page.format("scan-1"), headers=bearer(key))

    assert looks
    unknown = service.get(page.format("scan-0"), headers=bearer(key))
    assert told(answer, "scan-1") == told(unknown, "scan-0")


@pytest.mark.parametrize("path", ["tables", "result?tableName=deals"])
def test_what_is_remembered_of_an_id_is_forgotten_with_its_scan(service, database, path):
    mine, _ = add_key(database, organizations=["org-1"], level="read")
    theirs, _ = add_key(database, organizations=["org-2"], level="read")

    def status(key):
        return service.get(f"/api/v1/results/scan-1/{path}", headers=bearer(key)).status_code

    for owner, other, organization in ((mine, theirs, "org-1"), (theirs, mine, "org-2")) * 2:
        add_completed_scan(database, "scan-1", organization)
        # Twice: the second time from what is remembered.
        assert [status(owner), status(owner), status(other), status(owner)] == [200, 200, 404, 200]
        database.execute("DELETE FROM hubspot_deals.scans")
        assert [status(owner), status(other)] == [404, 404]
        add_completed_scan(database, "scan-1", organization)
        assert status(owner) == 200
        database.execute("DELETE FROM hubspot_deals.scans")
