"""Downloading tables over HTTP, with real export processes and a real PostgreSQL."""

import base64
import hashlib
import json
import os
import random
import threading
import time
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from api.dagster.testing import InMemoryDagsterGateway
from api.downloads import service
from api.main import create_app
from api.settings import ApiSettings
from api.testing import serve
from benchmarks.serving_data import BIG_SCAN, COLUMNS, add_deals
from hubspot_deals.cli.main import cli
from tests.conftest import TEST_KEYS
from tests.pace import within

FORMATS = {
    "json": ("json", "application/json"),
    "ndjson": ("ndjson", "application/x-ndjson"),
    "csv": ("csv", "text/csv; charset=utf-8"),
    "excel": ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    "parquet": ("parquet", "application/vnd.apache.parquet"),
}
ROWS = 2_000
_SLOW_BYTES = 65_536


@pytest.fixture
def settings(database_url, tmp_path):
    return ApiSettings(
        database_url=SecretStr(database_url),
        encryption_keys=TEST_KEYS,
        download_dir=tmp_path,
    )


@pytest.fixture
def client(settings):
    with serve(create_app(settings, gateway=InMemoryDagsterGateway())) as client:
        yield client


@pytest.fixture
def stored(database_url):
    add_deals(database_url, ROWS)


def path_of(form, more=""):
    return f"/api/v1/results/{BIG_SCAN}/download/{form}{more}?tableName=deals"


def download(client, form, headers=None, **params):
    return client.get(path_of(form), params={"tableName": "deals", **params}, headers=headers)


def manifest(client, form, seconds=30, **params):
    deadline = time.monotonic() + seconds
    while True:
        answer = client.get(path_of(form, "/manifest"), params={"tableName": "deals", **params})
        if answer.status_code != 202 or time.monotonic() > deadline:
            return answer
        assert answer.headers["Retry-After"] == "1"
        assert answer.json()["data"]["sha256"] is None
        time.sleep(0.1)


def receive(client, after_the_first_piece, *, known_length=False):
    with client.stream("GET", path_of("json")) as answer:
        assert answer.status_code == 200
        assert ("Content-Length" in answer.headers) == known_length
        for number, _ in enumerate(answer.iter_raw(_SLOW_BYTES)):
            if number == 0:
                after_the_first_piece()


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_is_what_its_manifest_says(client, stored, form):
    answer = download(client, form)
    described = manifest(client, form).json()["data"]

    ending, media_type = FORMATS[form]
    name = f"{BIG_SCAN}-deals.{ending}"
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == media_type
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["ETag"] == described["etag"]
    assert described == {
        "scanId": BIG_SCAN,
        "tableName": "deals",
        "format": form,
        "columns": COLUMNS,
        "snapshot": 1,
        "fileName": name,
        "etag": described["etag"],
        "ready": True,
        "rowCount": ROWS,
        "rowsWritten": ROWS,
        "bytes": len(answer.content),
        "sha256": hashlib.sha256(answer.content).hexdigest(),
        "shortenedCells": 0,
    }


@pytest.mark.parametrize("form", FORMATS)
def test_once_it_is_written_a_file_has_a_length_and_a_digest(client, stored, form):
    described = manifest(client, form).json()["data"]

    answer = client.head(path_of(form))

    digest = base64.b64encode(bytes.fromhex(described["sha256"])).decode()
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Length"] == str(described["bytes"])
    assert answer.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("form", FORMATS)
def test_a_download_cut_anywhere_is_resumed_to_the_same_file(settings, stored, form):
    # A second service that has nothing written yet makes the same bytes.
    with serve(create_app(settings, gateway=InMemoryDagsterGateway())) as client:
        whole = download(client, form)
    with serve(create_app(settings, gateway=InMemoryDagsterGateway())) as client:
        for place in random.sample(range(1, len(whole.content)), 10):
            rest = download(
                client, form, {"Range": f"bytes={place}-", "If-Range": whole.headers["ETag"]}
            )

            assert rest.status_code == 206
            size = len(whole.content)
            assert rest.headers["Content-Range"] == f"bytes {place}-{size - 1}/{size}"
            assert whole.content[:place] + rest.content == whole.content


def test_nobody_waits_for_a_workbook_to_hear_that_it_is_being_written(client, database_url):
    add_deals(database_url, 20_000)
    began = time.monotonic()

    answer = client.get(path_of("excel", "/manifest"))
    head = client.head(path_of("excel"))

    assert time.monotonic() - began < within(2)
    assert (answer.status_code, head.status_code) == (202, 200)
    described = answer.json()["data"]
    assert (described["ready"], described["bytes"], described["sha256"]) == (False, None, None)
    assert "Content-Length" not in head.headers
    done = manifest(client, "excel", seconds=300).json()["data"]
    assert (done["ready"], done["rowsWritten"]) == (True, 20_000)


def test_ranges_and_conditions_are_answered_as_http_says(client, stored):
    whole = download(client, "csv")
    tag, size = whole.headers["ETag"], len(whole.content)

    part = download(client, "csv", {"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, whole.content[5:10])
    part = download(client, "csv", {"Range": "bytes=-7"})
    assert (part.status_code, part.content) == (206, whole.content[-7:])

    beyond = download(client, "csv", {"Range": f"bytes={size}-"})
    assert beyond.status_code == 416
    assert beyond.headers["Content-Range"] == f"bytes */{size}"
    assert beyond.json()["error_code"] == "RANGE_NOT_SATISFIABLE"

    other = download(client, "csv", {"Range": "bytes=5-9", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, whole.content)
    several = download(client, "csv", {"Range": "bytes=0-1,4-5"})
    assert (several.status_code, several.content) == (200, whole.content)

    same = download(client, "csv", {"If-None-Match": f'"other", {tag}'})
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["ETag"] == tag


def test_columns_are_chosen_in_their_order(client, stored):
    answer = download(client, "csv", columns="amount,id")

    assert answer.text.splitlines()[:2] == ['"amount","id"', '"1.50","9000000001"']
    assert answer.headers["ETag"] != download(client, "csv").headers["ETag"]


def test_columns_are_answered_alike_in_every_format(client, stored):
    records = download(client, "json", columns="id,amount,archived").json()
    lines = download(client, "ndjson", columns="id,amount,archived").text.splitlines()

    assert len(records) == ROWS
    assert [json.loads(line) for line in lines] == records
    assert records[-1] == {"id": str(9_000_000_000 + ROWS), "amount": "2000.50", "archived": False}


@pytest.mark.parametrize(
    "columns",
    ["nothing", "", "id,", "id;drop table x", "properties", "row_no", "id,\x00", "x" * 999],
)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_column_that_is_not_in_the_table_is_refused(client, stored, form, columns):
    answer = download(client, form, columns=columns)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "UNKNOWN_COLUMN")


def test_what_cannot_be_downloaded_is_answered_like_its_pages(client, stored, database):
    for path, status, code in [
        ("/api/v1/results/none/download/csv", 404, "SCAN_NOT_FOUND"),
        ("/api/v1/results/no.ne/download/csv", 404, "SCAN_NOT_FOUND"),
        (f"/api/v1/results/{BIG_SCAN}/download/csv?tableName=x", 400, "UNKNOWN_TABLE"),
        (f"/api/v1/results/{BIG_SCAN}/download/xml", 400, "VALIDATION_ERROR"),
        (f"/api/v1/results/{BIG_SCAN}/download/csv?snapshot=2", 409, "SNAPSHOT_REPLACED"),
        (f"/api/v1/results/{BIG_SCAN}/download/csv?raw=perhaps", 400, "VALIDATION_ERROR"),
    ]:
        for more in ("", "/manifest"):
            head, mark, query = path.partition("?")
            answer = client.get(f"{head}{more}{mark}{query}")
            assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    database.execute("UPDATE hubspot_deals.scans SET outcome = NULL, generation = 0")
    assert download(client, "csv").json()["error_code"] == "SCAN_NOT_COMPLETED"


HIDES = {
    "removed": "UPDATE hubspot_deals.scans SET results_removed_at = now(), removal = 'results'",
    "rerun": "UPDATE hubspot_deals.scans SET generation = 2",
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("how", HIDES)
def test_a_file_is_not_served_any_longer_than_its_rows(client, stored, database, form, how):
    manifest(client, form)
    database.execute(HIDES[how])
    if how == "rerun":
        database.execute("DELETE FROM hubspot_deals.scan_chunks")
        database.execute("UPDATE hubspot_deals.scan_tables SET generation = 2")

    answer = client.get(path_of(form), params={"tableName": "deals", "snapshot": 1})

    expected = {"removed": (404, "RESULTS_REMOVED"), "rerun": (409, "SNAPSHOT_REPLACED")}[how]
    assert (answer.status_code, answer.json()["error_code"]) == expected


@pytest.mark.parametrize("how", HIDES)
@pytest.mark.parametrize("known_length", [False, True])
def test_a_download_under_way_breaks_when_its_rows_are_hidden(
    client, database, database_url, how, known_length
):
    add_deals(database_url, 20_000)
    if known_length:
        manifest(client, "json")
    with pytest.raises(httpx.RemoteProtocolError):
        receive(client, lambda: database.execute(HIDES[how]), known_length=known_length)


def test_a_download_breaks_when_its_process_dies(client, database, database_url):
    add_deals(database_url, 20_000)

    def end_session():
        ended = database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'hubspot_deals_export'"
        ).fetchall()
        assert ended == [(True,)]

    with pytest.raises(httpx.RemoteProtocolError):
        receive(client, end_session)
    again = download(client, "json")
    assert len(again.json()) == 20_000


def test_many_callers_of_one_file_share_one_process(client, stored, settings):
    answers = []

    def ask():
        answers.append(download(client, "ndjson"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({answer.content for answer in answers}) == 1
    assert len(files_in(settings.download_dir)) == 1


def test_what_does_not_fit_is_refused_and_leaves_nothing(settings, stored):
    small = settings.model_copy(update={"download_bytes": 1_000_000})
    with serve(create_app(small, gateway=InMemoryDagsterGateway())) as client:
        fitting = download(client, "csv", columns="id")
        refused = manifest(client, "json")

        assert fitting.status_code == 200
        assert (refused.status_code, refused.json()["error_code"]) == (503, "DOWNLOAD_SPACE")
        assert len(files_in(settings.download_dir)) <= 1
        assert download(client, "csv", columns="id").content == fitting.content


def test_the_file_used_least_recently_makes_room(settings, stored):
    size = 2_600_000
    small = settings.model_copy(update={"download_bytes": size})
    with serve(create_app(small, gateway=InMemoryDagsterGateway())) as client:
        for form in ("json", "ndjson", "csv", "json"):
            assert download(client, form).status_code == 200
            time.sleep(0.05)
            stored_bytes = sum(path.stat().st_size for path in files_in(settings.download_dir))
            assert stored_bytes <= size


def test_files_end_with_the_service_and_those_of_a_dead_one_with_the_next(settings, stored):
    left = settings.download_dir / "hubspot-deals-downloads-dead"
    left.mkdir()
    (left / "lock").touch()
    (left / "1-x").write_text("rows")
    os.utime(left, (0, 0))
    young = settings.download_dir / "hubspot-deals-downloads-young"
    young.mkdir()
    with serve(create_app(settings, gateway=InMemoryDagsterGateway())) as client:
        download(client, "csv")
        assert not left.exists()
        assert len(files_in(settings.download_dir)) == 1
    assert list(settings.download_dir.iterdir()) == [young]


def test_a_living_service_keeps_its_files_when_another_one_starts(settings, stored):
    with serve(create_app(settings, gateway=InMemoryDagsterGateway())) as client:
        first = download(client, "csv")
        for folder in settings.download_dir.iterdir():
            os.utime(folder, (0, 0))
        with serve(create_app(settings, gateway=InMemoryDagsterGateway())):
            assert len(files_in(settings.download_dir)) == 1
        assert download(client, "csv").content == first.content


@pytest.mark.parametrize("why", ["removed", "nobody asks"])
def test_files_are_thrown_away_in_the_background(settings, stored, database, monkeypatch, why):
    monkeypatch.setattr(service, "_SWEEP_SECONDS", 0.1)
    minutes = 0 if why == "nobody asks" else 60
    kept = settings.model_copy(update={"download_minutes": minutes})
    with serve(create_app(kept, gateway=InMemoryDagsterGateway())) as client:
        assert download(client, "csv").status_code == 200
        if why == "removed":
            assert len(files_in(settings.download_dir)) == 1
            database.execute(HIDES["removed"])
        deadline = time.monotonic() + 10
        while files_in(settings.download_dir):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_only_we_can_read_the_files(client, stored, settings):
    download(client, "csv")
    (folder,) = settings.download_dir.iterdir()
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_line_downloads_and_goes_on_with_a_part(client, stored, tmp_path, form):
    target = tmp_path / "mine"
    arguments = ["download", BIG_SCAN, form, "-o", str(target)]
    whole = download(client, form).content
    (tmp_path / "mine.part").write_bytes(whole[:1_000])
    (tmp_path / "mine.part.etag").write_text(download(client, form).headers["ETag"])

    result = CliRunner().invoke(cli, arguments, env={"HUBSPOT_DEALS_API_URL": str(client.base_url)})

    assert result.exit_code == 0, result.output
    assert f"{ROWS:,} rows, {len(whole):,} bytes" in result.output
    assert target.read_bytes() == whole


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/*") if path.name != "lock"]
