"""The `download` command: a table as a file, resumed where it was cut off, and verified."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import click
import httpx
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from hubspot_deals.cli.client import (
    Params,
    ServiceClient,
    ServiceFailedError,
    ServiceUnreachableError,
)
from hubspot_deals.cli.settings import CommandLine, pass_command_line
from hubspot_deals.errors import ConfigurationError, PermanentError
from hubspot_deals.exports.order import ExportFormat

_POLL_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 1.0
_MOST_RETRIES: Final = 5
"""In a row without a byte."""

Show = Callable[[str, int, int | None], None]
"""Shows what is going on, how many bytes there are and how many there will be, if known."""


class DownloadDamagedError(PermanentError):
    """The file that arrived is not the one that was written."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} did not arrive as it was written: its size or SHA-256 differs. It was thrown "
            "away; download it again."
        )


@click.command()
@click.argument("scan_id")
@click.argument("form", metavar="FORMAT", type=click.Choice([one.value for one in ExportFormat]))
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="The file.")
@click.option("--table", default="deals", show_default=True, help="Which table.")
@click.option("--columns", help="Names with commas between them; all when absent.")
@click.option("--raw", is_flag=True, help="CSV: leave texts that begin like a formula.")
@click.option("--expand-labels", is_flag=True, help="Deals with stage, pipeline and owner named.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@pass_command_line
def download(  # noqa: PLR0913 - one parameter per option
    command_line: CommandLine,
    *,
    scan_id: str,
    form: str,
    output: Path | None,
    table: str,
    columns: str | None,
    raw: bool,
    expand_labels: bool,
    quiet: bool,
) -> None:
    """Download a table as json, ndjson, csv, excel or parquet.

    A download that was cut off goes on where it was when the command is given again.
    """
    if output == Path("-"):
        msg = "What was received is checked before it is handed over: --output is a file, not -"
        raise click.UsageError(msg)
    params: Params = {"tableName": table}
    if columns is not None:
        params["columns"] = columns
    if raw:
        params["raw"] = "true"
    if expand_labels:
        params["expand"] = "labels"
    console = Console(stderr=True)
    with (
        closing(command_line.service()) as service,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        ) as progress,
    ):
        task = progress.add_task("asking", total=None)

        def show(what: str, received: int, total: int | None) -> None:
            progress.update(task, description=what, completed=received, total=total)

        target = Target(service, scan_id, form, params)
        with _writing(output):
            path, manifest = fetch(target, output, show)
    if not quiet:
        rows, size = f"{manifest['rowCount']:,} rows", f"{manifest['bytes']:,} bytes"
        click.echo(f"{path}: {rows}, {size}, sha256 {manifest['sha256']}")


@dataclass(frozen=True, slots=True)
class Target:
    """The file that is asked for."""

    service: ServiceClient
    scan_id: str
    form: str
    params: Params

    def manifest(self) -> dict[str, Any]:
        """Return what the service knows of the file."""
        return self.service.get_manifest(self.scan_id, self.form, self.params)

    def wait_until_ready(self, show: Show) -> dict[str, Any]:
        """Return the manifest of the whole file, once it is written."""
        while not (manifest := self.manifest())["ready"]:
            rows = f"{manifest['rowsWritten']:,} of {manifest['rowCount']:,}"
            show(f"written: {rows} rows", 0, None)
            time.sleep(_POLL_SECONDS)
        return manifest


class PartFile:
    """What has arrived of a file, beside the tag of that file."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.part")
        self._tag = path.with_name(f"{path.name}.part.etag")

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def tag(self) -> str:
        """The entity tag that the bytes belong to; empty when there is none."""
        return self._tag.read_text(encoding="ascii") if self._tag.exists() else ""

    def start_over(self, tag: str) -> None:
        """Forget the bytes; the next ones belong to this tag."""
        self.path.write_bytes(b"")
        self._tag.write_text(tag, encoding="ascii")

    def remove(self) -> None:
        """Remove what there is."""
        self.path.unlink(missing_ok=True)
        self._tag.unlink(missing_ok=True)

    def is_whole(self, manifest: Mapping[str, Any]) -> bool:
        """Tell whether these are the bytes that the manifest describes."""
        if self.size != manifest["bytes"]:
            return False
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest == str(manifest["sha256"])


@contextmanager
def _writing(output: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or output or "The file"
        msg = f"{where} cannot be written: {error.strerror}. --output names another file."
        raise ConfigurationError(msg) from None


def fetch(target: Target, output: Path | None, show: Show) -> tuple[Path, dict[str, Any]]:
    """Download to a file and return where it is, with its manifest.

    Raises DownloadDamagedError, and whatever the service answers.
    """
    manifest = target.manifest()
    path = output or Path(manifest["fileName"])
    part = PartFile(path)
    while True:
        if part.size or target.form == ExportFormat.EXCEL:
            # Such a file is sent only when it is whole, and nobody should wait without a word.
            target.wait_until_ready(show)
        _receive_all(target, part, show)
        manifest = target.wait_until_ready(show)
        if manifest["etag"] == part.tag:
            break
        # A rerun replaced the result just now: its file is another one.
    if not part.is_whole(manifest):
        part.remove()
        raise DownloadDamagedError(path)
    part.path.replace(path)
    part.remove()
    return path, manifest


def _receive_all(target: Target, part: PartFile, show: Show) -> None:
    retries = 0
    while True:
        size = part.size
        try:
            _receive(target, part, show)
        except (httpx.TransportError, ServiceUnreachableError, ServiceFailedError) as error:
            retries = retries + 1 if part.size == size else 0
            if retries > _MOST_RETRIES:
                if isinstance(error, httpx.TransportError):
                    raise ServiceUnreachableError(target.service.url, str(error)) from None
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return


def _receive(target: Target, part: PartFile, show: Show) -> None:
    headers = {"Accept-Encoding": "identity"}
    if part.size and part.tag:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.tag}
    with target.service.stream_download(
        target.scan_id, target.form, target.params, headers
    ) as answer:
        if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            # All of it is there already, if the tag is still that of the file.
            return
        if answer.status_code != HTTPStatus.PARTIAL_CONTENT:
            part.start_over(answer.headers.get("ETag", ""))
        received = part.size
        length = answer.headers.get("Content-Length")
        total = None if length is None else received + int(length)
        with part.path.open("ab") as file:
            for piece in answer.iter_raw():
                file.write(piece)
                received += len(piece)
                show(part.path.stem, received, total)
