"""One stack for the session on an account of 100,000 deals, and the means to break it."""

import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import psycopg
import pytest
from psycopg import sql

from hubspot_deals.tables import CORE_PROPERTIES, TABLES
from hubspot_sandbox.testing import SandboxProcess
from tests.conftest import FAST
from tests.e2e.conftest import RunningStack, running_stack
from tests.faults import report

DEALS = 100_000
CHUNK_ROWS = 10_000
SCAN_SECONDS = 180
_LIST_PAGE = 100
_TRIES = 8
_TOKEN = "token-of-the-fault-tests-0123456789"
_STAMPS = {"organization_id", "scan_id", "row_no"}
_ENDED = {"completed", "failed", "cancelled", "crashed"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-report", action="store_true", help="Write docs/reliability.md.")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--write-report") and not report.is_prepared():
        msg = f"{report.PAGE} has no place for the table: {report.BEGIN} and {report.END}"
        raise pytest.UsageError(msg)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if lines := report.table():
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(lines))
        if config.getoption("--write-report"):
            report.write_report()


class Lab:
    """The stack under test: starts scans, finds their workers, and reads what they left."""

    def __init__(self, stack: RunningStack, sandbox: SandboxProcess, workers: Path) -> None:
        self.stack = stack
        self.workers = workers
        self._sandbox = sandbox
        self._api = httpx.Client(base_url=stack.urls["api"], timeout=30)
        self._kills: dict[str, float] = {}
        self._numbers = iter(range(1_000_000))
        self._lock = threading.Lock()
        self.undisturbed = self._scan_undisturbed()

    def close(self) -> None:
        self._api.close()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.stack.urls["database"], autocommit=True) as connection:
            return connection.execute(query, values).fetchall()  # type: ignore[call-overload]

    # -- scans

    def new_id(self, name: str) -> str:
        with self._lock:
            return f"{name}-{next(self._numbers)}"

    def body(self, scan_id: str, **filters: object) -> dict[str, Any]:
        return {
            "config": {
                "scanId": scan_id,
                "organizationId": "faults",
                "type": ["user"],
                "auth": {"accessToken": _TOKEN},
                "filters": filters,
            }
        }

    def post(self, body: Mapping[str, Any], **headers: str) -> httpx.Response:
        return self._api.post("/api/v1/scan/start", json=body, headers=headers)

    def start(self, name: str, **filters: object) -> str:
        """Start a scan; as a caller would, ask again while the API is being started again."""
        scan_id = self.new_id(name)
        deadline = time.monotonic() + SCAN_SECONDS
        while True:
            with suppress(httpx.TransportError):
                answer = self.post(self.body(scan_id, **filters))
                if answer.status_code in {202, 409}:
                    return scan_id
                assert answer.status_code >= 500, answer.text
            assert time.monotonic() < deadline, self.stack.explain()
            time.sleep(0.2)

    def status(self, scan_id: str) -> dict[str, Any]:
        """Return the scan as a caller sees it; nothing while the API cannot say."""
        with suppress(httpx.TransportError):
            answer = self._api.get(f"/api/v1/scan/{scan_id}/status")
            if answer.status_code == 200:
                data: dict[str, Any] = answer.json()["data"]
                return data
        return {"status": "unknown", "metadata": {}}

    def wait(
        self, scan_id: str, condition: Callable[[dict[str, Any]], bool], seconds: float
    ) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while not condition(data := self.status(scan_id)):
            assert time.monotonic() < deadline, f"{scan_id} is {data}\n{self.stack.explain()}"
            time.sleep(0.1)
        return data

    def wait_completed(self, scan_id: str) -> None:
        data = self.wait(scan_id, lambda data: data["status"] in _ENDED, SCAN_SECONDS)
        assert data["status"] == "completed", data

    def goes_on_elsewhere(self, scan_id: str, run_id: str | None) -> float:
        """Wait until another run carries the scan out; return the seconds that took."""
        began = time.monotonic()

        def elsewhere(data: dict[str, Any]) -> bool:
            assert data["status"] not in {"failed", "cancelled", "crashed"}, data
            is_working = data["status"] in {"running", "completed"}
            return is_working and data["metadata"].get("runId") != run_id

        self.wait(scan_id, elsewhere, SCAN_SECONDS)
        return time.monotonic() - began

    # -- what is stored

    def check_exact(self, scan_id: str) -> None:
        """Check that a scan has every deal once, equal in every column to the undisturbed scan."""
        assert self.fingerprint(scan_id) == self.undisturbed, scan_id
        assert self.uncounted_rows(scan_id) == {}, scan_id

    def fingerprint(self, scan_id: str) -> tuple[Any, ...]:
        """Return counts and one sum over a hash of all columns of every deal."""
        with psycopg.connect(self.stack.urls["database"]) as connection:
            view = connection.execute("SELECT * FROM hubspot_deals.deals LIMIT 0").description or []
            columns = [column.name for column in view if column.name not in _STAMPS]
            query = sql.SQL(
                "SELECT count(*), count(DISTINCT id), min(row_no), max(row_no),"
                " sum(hashtextextended(ROW({})::text, 0)) FROM hubspot_deals.deals"
                " WHERE scan_id = %s"
            ).format(sql.SQL(", ").join(map(sql.Identifier, columns)))
            return connection.execute(query, [scan_id]).fetchone() or ()

    def uncounted_rows(self, scan_id: str) -> dict[str, int]:
        """Count the scan's rows, by table, of packages that do not count."""
        counts = {
            table: self.rows(
                f"SELECT count(*) FROM hubspot_deals_extraction.{table} WHERE scan_id = %s"
                " AND _dlt_load_id NOT IN (SELECT load_id FROM hubspot_deals.scan_chunks)",
                scan_id,
            )[0][0]
            for table in TABLES
        }
        return {table: count for table, count in counts.items() if count}

    def forget(self, scan_id: str) -> None:
        """Make room: twenty copies of the account would fill a small disk."""
        for table in TABLES:
            with psycopg.connect(self.stack.urls["database"]) as connection:
                name = sql.Identifier("hubspot_deals_extraction", table)
                connection.execute(
                    sql.SQL("DELETE FROM {} WHERE scan_id = %s").format(name), [scan_id]
                )

    def _scan_undisturbed(self) -> tuple[Any, ...]:
        """Scan once without faults, and check the values against the sandbox's own account."""
        before, began = self.list_pages(), time.monotonic()
        scan_id = self.start("undisturbed")
        self.wait_completed(scan_id)
        self.scan_seconds = time.monotonic() - began
        self.pages_of_a_scan = self.list_pages() - before
        names = sorted(CORE_PROPERTIES)
        truth = _hash_of(
            (deal["id"], {name: deal["properties"].get(name) for name in names})
            for deal in self._sandbox.control.iter_deals(archived=False, properties=names)
        )
        with psycopg.connect(self.stack.urls["database"]) as connection:
            stored = connection.execute(
                "SELECT id, properties FROM hubspot_deals.deals WHERE scan_id = %s", [scan_id]
            )
            found = _hash_of(
                (deal_id, {name: properties.get(name) for name in names})
                for deal_id, properties in stored
            )
        assert found == truth
        fingerprint = self.fingerprint(scan_id)
        assert fingerprint[:4] == (DEALS, DEALS, 1, DEALS)
        self.forget(scan_id)
        return fingerprint

    def list_pages(self) -> int:
        """How many pages of deals the sandbox has served by list, whatever came of them."""
        return sum(self._sandbox.control.requests()["by_kind"].get("list", {}).values())

    def deals_read_again(self, name: str, since: int) -> int:
        """How many deals the scans of this name have read more than they would undisturbed."""
        ((scans,),) = self.rows(
            "SELECT count(*) FROM hubspot_deals.scans WHERE scan_id LIKE %s", f"{name}-%"
        )
        return (self.list_pages() - since - scans * self.pages_of_a_scan) * _LIST_PAGE

    # -- workers and processes

    def worker(self, scan_id: str, seconds: float = 60) -> psutil.Process:
        """Return the process of the scan's run, found by the other end of its sessions."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := self.find_worker(scan_id):
                return found
            time.sleep(0.2)
        pytest.fail(f"{scan_id} has no worker: {self.status(scan_id)}\n{self.stack.explain()}")

    def find_worker(self, scan_id: str) -> psutil.Process | None:
        # Nothing in a worker's command line or environment names its run: Dagster forks it from a
        # helper of the code server and sends the rest through a pipe.
        ports = {
            port
            for (port,) in self.rows(
                "SELECT client_port FROM pg_stat_activity a JOIN hubspot_deals.scans s ON"
                " a.application_name = format('hubspot_deals_scan_%%s_epoch_%%s', seq, epoch)"
                " WHERE scan_id = %s",
                scan_id,
            )
        }
        for connection in psutil.net_connections("tcp") if ports else ():
            if connection.laddr and connection.laddr.port in ports and connection.pid:
                with suppress(psutil.NoSuchProcess):
                    return psutil.Process(connection.pid)
        return None

    def folders(self, scan_id: str) -> list[Path]:
        """Return dlt's working folders of the run that holds the scan now."""
        ((seq, epoch),) = self.rows(
            "SELECT seq, epoch FROM hubspot_deals.scans WHERE scan_id = %s", scan_id
        )
        return list(self.workers.glob(f"hubspot-deals-*/scan_{seq}_{epoch}"))

    def start_and_wait_inside(self, name: str) -> str:
        """Start a scan and return it at a random point of its reading."""
        for _ in range(_TRIES):
            scan_id = self.start(name)
            self.worker(scan_id)
            time.sleep(random.uniform(0, 0.8 * self.scan_seconds))
            if self.status(scan_id)["status"] == "running":
                return scan_id
            self.wait_completed(scan_id)
            self.forget(scan_id)
        pytest.fail("every scan was over before its random point")

    def spare(self, name: str) -> None:
        """Wait before a part is killed again: the supervisor gives up what ends too often."""
        time.sleep(max(0.0, self._kills.get(name, 0.0) + 16 - time.monotonic()))

    def kill(self, name: str, signal_number: int) -> None:
        """Signal a part of the stack, and wait until another process has its place."""
        pid = self.stack.pids[name]
        psutil.Process(pid).send_signal(signal_number)
        self._kills[name] = time.monotonic()
        self.wait_restarted(name, pid)

    def wait_restarted(self, name: str, pid: int) -> None:
        deadline = time.monotonic() + 60
        while self.stack.pids[name] == pid:
            assert self.stack.process.poll() is None, self.stack.output.read_text()
            assert time.monotonic() < deadline, self.stack.output.read_text()
            time.sleep(0.05)


def _hash_of(deals: Iterator[tuple[str, dict[str, Any]]]) -> str:
    """Hash deals and their properties, whatever their order."""
    lines = {
        int(deal_id): sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).digest()
        for deal_id, values in deals
    }
    assert len(lines) == DEALS
    return sha256(
        b"".join(b"%d" % deal_id + lines[deal_id] for deal_id in sorted(lines))
    ).hexdigest()


@contextmanager
def several(count: int) -> Iterator[ThreadPoolExecutor]:
    """Do things at the same time; the first failure is raised where its result is asked for."""
    with ThreadPoolExecutor(count) as pool:
        yield pool


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    tuning = {"HUBSPOT_DEALS_SEARCHES_PER_SECOND": "1000", "HUBSPOT_DEALS_RATE_LIMITS": "off"}
    with (
        SandboxProcess(deals=DEALS, **FAST) as sandbox,
        tempfile.TemporaryDirectory(prefix="hubspot-deals-faults-") as parent,
    ):
        folder, workers = Path(parent), Path(parent) / "workers"
        # PostgreSQL's own user passes through it when the tests run as root.
        folder.chmod(0o755)
        workers.mkdir()
        with running_stack(folder, sandbox.url, TMPDIR=str(workers), **tuning) as stack:
            lab = Lab(stack, sandbox, workers)
            yield lab
            lab.close()
