import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from click.testing import CliRunner

from hubspot_deals.cli import download
from hubspot_deals.cli.main import cli
from hubspot_deals.cli.settings import CommandLine

CONTENT = bytes(range(256)) * 40


class Cut(httpx.SyncByteStream):
    """A body that breaks off after some bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
        msg = "peer closed connection"
        raise httpx.RemoteProtocolError(msg)


@dataclass
class FileService:
    """Serves one file, in parts if its connections are to be cut."""

    content: bytes = CONTENT
    tag: str = '"one"'
    cuts: list[int] = field(default_factory=list)
    """After how many bytes each of the first answers breaks off."""
    ready_after: int = 1
    sha256: str = ""
    removed_after: int | None = None
    requests: list[httpx.Request] = field(default_factory=list)
    manifests: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/manifest"):
            self.manifests += 1
            return httpx.Response(200, json={"success": True, "data": self._manifest()})
        self.requests.append(request)
        if self.removed_after is not None and len(self.requests) > self.removed_after:
            return httpx.Response(404, json={"success": False, "message": "removed"})
        start, status = 0, 200
        if "Range" in request.headers and request.headers.get("If-Range") == self.tag:
            start, status = int(request.headers["Range"][6:-1]), 206
            if start >= len(self.content):
                return httpx.Response(416, json={"success": False, "message": "behind the end"})
        rest = self.content[start:]
        headers = {"ETag": self.tag}
        if self.cuts:
            body = Cut(rest[: self.cuts.pop(0)])
            return httpx.Response(status, headers=headers, stream=body)
        headers["Content-Length"] = str(len(rest))
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(rest))

    def _manifest(self) -> dict[str, object]:
        is_ready = self.manifests >= self.ready_after
        return {
            "fileName": "s1-deals.csv",
            "ready": is_ready,
            "etag": self.tag,
            "rowCount": 7,
            "rowsWritten": 3,
            "bytes": len(self.content) if is_ready else None,
            "sha256": self.sha256 or hashlib.sha256(self.content).hexdigest(),
        }


@pytest.fixture(autouse=True)
def in_a_folder_without_pauses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "_RETRY_SECONDS", 0)
    monkeypatch.setattr(download, "_POLL_SECONDS", 0)


def run(service, *arguments):
    line = CommandLine(httpx.MockTransport(service))
    return CliRunner().invoke(cli, ["download", "s1", *arguments], obj=line)


def test_a_file_is_written_under_the_name_that_the_service_gives(tmp_path):
    result = run(FileService(), "csv")

    assert result.exit_code == 0, result.output
    assert result.stdout == (
        f"s1-deals.csv: 7 rows, 10,240 bytes, sha256 {hashlib.sha256(CONTENT).hexdigest()}\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["s1-deals.csv"]
    assert (tmp_path / "s1-deals.csv").read_bytes() == CONTENT


def test_what_is_cut_off_goes_on_where_it_was(tmp_path):
    service = FileService(cuts=[100, 1, 5_000])

    result = run(service, "csv", "-o", "mine.csv", "-q")

    assert (result.exit_code, result.output) == (0, "")
    assert (tmp_path / "mine.csv").read_bytes() == CONTENT
    ranges = [request.headers.get("Range") for request in service.requests]
    assert ranges == [None, "bytes=100-", "bytes=101-", "bytes=5101-"]


def test_a_later_command_goes_on_with_the_part_of_an_earlier_one(tmp_path):
    (tmp_path / "f.part").write_bytes(CONTENT[:77])
    (tmp_path / "f.part.etag").write_text('"one"')
    service = FileService()

    assert run(service, "csv", "-o", "f").exit_code == 0
    assert service.requests[0].headers["Range"] == "bytes=77-"
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_part_that_is_all_of_it_is_only_verified(tmp_path):
    (tmp_path / "f.part").write_bytes(CONTENT)
    (tmp_path / "f.part.etag").write_text('"one"')

    assert run(FileService(), "csv", "-o", "f").exit_code == 0
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_part_of_another_file_is_started_over(tmp_path):
    (tmp_path / "f.part").write_bytes(b"other" * 1_000)
    (tmp_path / "f.part.etag").write_text('"other"')

    assert run(FileService(), "csv", "-o", "f").exit_code == 0
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_file_with_another_digest_is_thrown_away(tmp_path):
    result = run(FileService(sha256="0" * 64), "csv", "-o", "f")

    assert result.exit_code == 1
    assert "SHA-256 differs" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_brings_nothing_is_given_up_and_the_part_kept(tmp_path):
    result = run(FileService(cuts=[9, *[0] * 20]), "csv", "-o", "f")

    assert result.exit_code == 3
    assert (tmp_path / "f.part").read_bytes() == CONTENT[:9]
    assert not (tmp_path / "f").exists()


def test_a_scan_that_is_removed_meanwhile_ends_the_download(tmp_path):
    result = run(FileService(cuts=[9], removed_after=1), "csv", "-o", "f")

    assert result.exit_code == 4
    assert not (tmp_path / "f").exists()


def test_a_workbook_is_asked_for_when_it_is_written(tmp_path):
    service = FileService(ready_after=4)

    assert run(service, "excel", "-o", "f").exit_code == 0
    assert service.manifests >= 4
    assert len(service.requests) == 1


def test_options_become_parameters(tmp_path):
    service = FileService()

    assert run(service, "csv", "--table", "users", "--columns", "id,email", "--raw").exit_code == 0
    assert dict(service.requests[0].url.params) == {
        "tableName": "users",
        "columns": "id,email",
        "raw": "true",
    }
    assert service.requests[0].url.path == "/api/v1/results/s1/download/csv"


def test_an_unknown_format_is_wrong_usage():
    assert run(FileService(), "pdf").exit_code == 2


def test_standard_output_is_no_place_for_a_download(tmp_path) -> None:
    result = run(FileService(), "csv", "-o", "-")

    assert result.exit_code == 2
    assert "--output is a file" in result.output
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path) -> None:
    (tmp_path / "file").touch()

    result = run(FileService(), "csv", "-o", "file/deals.csv")

    assert result.exit_code == 2
    assert "cannot be written" in result.output
    assert "--output" in result.output
