"""Start a sandbox from a test, and steer it."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryFile
from threading import Timer
from types import TracebackType
from typing import IO, Any, Final, Self
from urllib.parse import urlencode, urlsplit

import orjson

_PACKAGE_PARENT: Final = Path(__file__).parents[1]
_READY: Final = "hubspot-sandbox ready at "
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 5.0
_OK: Final = 200
# A token that every sandbox without `tokens` accepts.
GOOD_TOKEN: Final = "sandbox-token-0123456789"  # noqa: S105


class SandboxError(RuntimeError):
    """The sandbox did not start, or refused a control request."""


class SandboxControl:
    """The control endpoint of a running sandbox."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), parts.port

    def state(self) -> dict[str, Any]:
        """Counts, configuration, index backlog, the sandbox's time."""
        return self._ask("GET", "state")

    def deals(
        self, *, archived: bool | None = None, properties: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """The truth: every deal as it is now; `archived=None` means live ones, then archived."""
        return list(self.iter_deals(archived=archived, properties=properties))

    def iter_deals(
        self, *, archived: bool | None = None, properties: Sequence[str] = ()
    ) -> Iterator[dict[str, Any]]:
        """The truth, one deal at a time, for big accounts."""
        asked = {"archived": "all" if archived is None else str(archived).lower()}
        if properties:
            asked["properties"] = ",".join(properties)
        connection = self._connect()
        try:
            connection.request("GET", f"/_sandbox/deals?{urlencode(asked)}")
            for line in connection.getresponse():
                yield orjson.loads(line)
        finally:
            connection.close()

    def merges(self) -> dict[str, str]:
        """Losing id to winning id."""
        return self._ask("GET", "merges")

    def requests(self, last: int = 100) -> dict[str, Any]:
        """Counts by kind and status, highest rates, the last requests."""
        return self._ask("GET", f"requests?last={last}")

    def create(self, *deals: Mapping[str, str | None], count: int = 1) -> list[str]:
        """Create deals with these properties (`count` of each); their ids."""
        ids: list[str] = self._ask("POST", "deals/create", {"deals": deals, "count": count})["ids"]
        return ids

    def update(
        self,
        ids: Sequence[str] | int,
        properties: Mapping[str, str | None] | None = None,
        *,
        modified_at: str | int | None = None,
    ) -> int:
        """Change deals, by id or the first so many; without properties only the time of change."""
        body = {"properties": properties or {}, "modified_at": modified_at}
        return self._change("update", ids, body)

    def archive(self, ids: Sequence[str] | int) -> int:
        """Move deals to the bin."""
        return self._change("archive", ids)

    def restore(self, ids: Sequence[str] | int) -> int:
        """Take deals out of the bin."""
        return self._change("restore", ids)

    def delete(self, ids: Sequence[str] | int) -> int:
        """Erase deals for good."""
        return self._change("delete", ids)

    def merge(self, winner: str, losers: Sequence[str]) -> int:
        """Merge deals into one."""
        body = {"winner": winner, "losers": losers}
        changed: int = self._ask("POST", "deals/merge", body)["changed"]
        return changed

    def recalculate(self, ids: Sequence[str] | int, properties: Mapping[str, str | None]) -> int:
        """Change properties that HubSpot computes: moves no time of last change."""
        return self._change("recalculate", ids, {"properties": properties})

    def associate(self, ids: Sequence[str] | int, to: str, targets: Sequence[int]) -> int:
        """Let deals have these contacts, companies or line_items and no others."""
        return self._change("associate", ids, {"to": to, "targets": targets})

    def live_on(
        self, seconds: float, *, seed: int, rates: Mapping[str, float] | None = None
    ) -> dict[str, int]:
        """Let the account live for so many seconds; how often what has happened.

        `rates` are events an hour and win over `life.RATES`.
        """
        body = {"seconds": seconds, "seed": seed, "rates": rates or {}}
        done: dict[str, int] = self._ask("POST", "life", body)["done"]
        return done

    def fates(self) -> dict[str, dict[str, Any]]:
        """How each deal that is not live has ended: `reason`, `at_ms`, of a merge `survivor`."""
        return self._ask("GET", "fates")

    def touched_since(self, moment_ms: int) -> set[str]:
        """Ids of deals to which anything has happened at a moment or later."""
        return set(self._ask("POST", "touched", {"since_ms": moment_ms})["ids"])

    def associations(self, ids: Sequence[str], to: str) -> dict[str, list[int]]:
        """The records of one type that deals have, however many."""
        return self._ask("POST", "associations", {"ids": ids, "to": to})

    def history(self, ids: Sequence[str], name: str) -> dict[str, list[dict[str, Any]]]:
        """All past values of a property, `value` and `moment_ms`, newest first."""
        return self._ask("POST", "history", {"ids": ids, "property": name})

    def add_fault(
        self,
        fault: Mapping[str, Any],
        *,
        match: Mapping[str, str] | None = None,
        after: int = 0,
        times: int | None = 1,
    ) -> None:
        """Let matching requests number after+1 to after+times fail; `times=None` is for ever."""
        rule = {"match": match or {}, "fault": fault, "after": after, "times": times}
        self._ask("POST", "faults", rule)

    def faults(self) -> list[dict[str, Any]]:
        """The rules in force, with how often they matched and struck."""
        rules: list[dict[str, Any]] = self._ask("GET", "faults")["rules"]
        return rules

    def clear_faults(self) -> None:
        """Let nothing fail any more."""
        self._ask("DELETE", "faults")

    def reset(self) -> None:
        """Forget counters, spent budgets, faults and expired tokens; deals stay as they are."""
        self._ask("POST", "reset")

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock: budgets refill, the search index catches up."""
        self._ask("POST", "clock", {"advance_seconds": seconds})

    def _change(
        self, action: str, ids: Sequence[str] | int, body: Mapping[str, Any] | None = None
    ) -> int:
        chosen = {"first": ids} if isinstance(ids, int) else {"ids": ids}
        changed: int = self._ask("POST", f"deals/{action}", {**chosen, **(body or {})})["changed"]
        return changed

    def _connect(self) -> HTTPConnection:
        return HTTPConnection(self._host, self._port, timeout=60)

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        connection = self._connect()
        try:
            payload = None if body is None else orjson.dumps(body)
            connection.request(method, f"/_sandbox/{path}", payload)
            response = connection.getresponse()
            answer: dict[str, Any] = orjson.loads(response.read())
        finally:
            connection.close()
        if response.status != _OK:
            message = f"{method} {path}: {answer}"
            raise SandboxError(message)
        return answer


class SandboxProcess:
    """A sandbox in a process of its own, for the length of a `with` block.

    Options are those of the command with underscores; no latency and no budgets unless asked
    for: give `tier` or `burst` to have budgets. `tokens` maps tokens to their scopes.
    """

    def __init__(
        self,
        *,
        deals: int = 1_000,
        latency_ms: float | str = 0,
        tier: str | None = None,
        rate_limit: int | None = None,
        tokens: Mapping[str, Sequence[str] | None] | None = None,
        **options: float | str | bool,
    ) -> None:
        options = {"port": 0, **options, "deals": deals, "latency_ms": latency_ms}
        if rate_limit is not None:
            options["burst"] = rate_limit
        if tier:
            options["tier"] = tier
        if not {"tier", "burst", "daily"} & set(options):
            options["no_limits"] = True
        self._arguments = [*_flags(options), *_token_flags(tokens or {})]
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        # What it wrote to standard error, known once it has ended: empty unless something broke.
        self.complaints = ""
        self._errors: IO[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        code = self.stop()
        # A sandbox that broke must not pass for HubSpot; the test's own error goes first.
        if error is None and (code or self.complaints):
            message = f"The sandbox ended with {code}: {self.complaints}"
            raise SandboxError(message)

    @property
    def control(self) -> SandboxControl:
        """The control endpoint."""
        return SandboxControl(self.url)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start and wait until it listens."""
        # A file, because a full pipe would stop a sandbox that complains a lot.
        self._errors = TemporaryFile("w+")  # noqa: SIM115 - closed by stop
        # From the folder of the package, so that it runs uninstalled as well.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "hubspot_sandbox", *self._arguments],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=_PACKAGE_PARENT,
        )
        watchdog = Timer(_START_SECONDS, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline() if self._process.stdout else ""
        watchdog.cancel()
        if not line.startswith(_READY):
            self.stop()
            message = f"The sandbox did not start: {self.complaints}"
            raise SandboxError(message)
        self.url = line.removeprefix(_READY).strip()

    def stop(self) -> int:
        """Ask it to end; the exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()
        if self._errors:
            self._errors.seek(0)
            self.complaints = self._errors.read()
            self._errors.close()
        return process.returncode


def _flags(options: Mapping[str, float | str | bool]) -> Iterator[str]:
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            yield flag
        elif value is not False:
            yield f"{flag}={value}"


def _token_flags(tokens: Mapping[str, Sequence[str] | None]) -> Iterator[str]:
    for token, scopes in tokens.items():
        yield f"--token={token}" if scopes is None else f"--token={token}={','.join(scopes)}"
