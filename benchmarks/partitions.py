"""What 100 connections of two years of hourly partitions cost Dagster's pages, sensors and runs.

Run it as `python benchmarks/partitions.py`; it takes minutes on two cores. One stack is measured
twice: with one connection, and with 99 more beside it that have a run for every hour. The first
load of the one completes 90 days of hours; those before them are added to what Dagster knows of
its deals.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, LiteralString

import click
import httpx
import psycopg

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import Figure, at_most, print_figures
from benchmarks.stacks import Bench, running_stack
from hubspot_deals.sync_contract import SYNC_LOCATION

_MORE, _ROUNDS, _DEALS, _WAIT_SECONDS = 99, 5, 500, 300
_LOADED, _YEARS = timedelta(days=90), timedelta(days=731)
_SLOWER: Final = 3.0
_LOAD_SECONDS: Final = 10.0
_ASSET: Final = "$key: AssetKeyInput!"
_STATUSES: Final = (
    "assetPartitionStatuses { ... on TimePartitionStatuses { ranges { startKey endKey status } } }"
)
_QUERIES: Final = {
    "catalog": """{ assetsOrError { ... on AssetConnection { nodes { id key { path } definition {
        id groupName isPartitioned kinds description } } } } }""",
    "asset with its partitions": f"""query({_ASSET}) {{ assetNodeOrError(assetKey: $key) {{
        ... on AssetNode {{ id partitionStats {{ numMaterialized numPartitions numFailed }}
        assetMaterializations(limit: 1) {{ timestamp partition }} {_STATUSES} }} }} }}""",
    "backfill dialog": f"""query({_ASSET}) {{ assetNodes(assetKeys: [$key]) {{ id
        partitionKeysByDimension {{ name partitionKeys }} {_STATUSES} }} }}""",
}
_RELOAD: Final = """mutation($name: String!) { reloadRepositoryLocation(
    repositoryLocationName: $name) { __typename } }"""
_SENSOR: Final = """mutation($selector: SensorSelector!, $cursor: String) {
    sensorDryRun(selectorData: $selector, cursor: $cursor) { __typename
    ... on PythonError { message }
    ... on DryRunInstigationTick { evaluationResult { cursor error { message } } } } }"""
_SCHEDULE: Final = """mutation($selector: ScheduleSelector!, $at: Float!) { scheduleDryRun(
    selectorData: $selector, timestamp: $at) { __typename ... on PythonError { message }
    ... on DryRunInstigationTick { evaluationResult {
    runRequests { runKey } error { message } } } } }"""
_DATED_BACK: Final = (
    """
    INSERT INTO dagster.event_logs (run_id, event, dagster_event_type, timestamp, step_key,
        asset_key, partition)
    SELECT run_id, replace(event, partition, to_char(h, 'YYYY-MM-DD-HH24:MI')),
        dagster_event_type, timestamp, step_key, asset_key, to_char(h, 'YYYY-MM-DD-HH24:MI')
    FROM (SELECT * FROM dagster.event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'
        AND asset_key = '["one", "deals_current"]' ORDER BY id LIMIT 1) template,
    generate_series(%(start)s::timestamp, (SELECT min(window_start) AT TIME ZONE 'UTC'
        - interval '1 hour' FROM hubspot_deals.sync_runs), interval '1 hour') h
    """,
    "UPDATE hubspot_deals.sync_runs SET window_start = %(start)s::timestamp AT TIME ZONE 'UTC'",
    (
        "UPDATE hubspot_deals.connections"
        " SET settings = settings || jsonb_build_object('startDate', %(start)s::text)"
    ),
)
_ADDED: Final = (
    """
    INSERT INTO hubspot_deals.connections (connection_id, organization_id, settings, is_enabled,
        cursor, fresh_as_of)
    SELECT 'more_' || n, 'org', (SELECT settings FROM hubspot_deals.connections LIMIT 1), false,
        now(), now() FROM generate_series(1, %(more)s) n
    """,
    """
    INSERT INTO hubspot_deals.sync_runs (connection_id, run_no, run_id, epoch, kind, window_start,
        window_end, started_at, ended_at, outcome)
    SELECT 'more_' || n, row_number() OVER (PARTITION BY n ORDER BY h), 'none', 1, 'changes', h,
        h + interval '1 hour', h, h, 'completed'
    FROM generate_series(1, %(more)s) n, generate_series(
        (SELECT min(window_start) FROM hubspot_deals.sync_runs), now(), interval '1 hour') h
    """,
    "ANALYZE hubspot_deals.sync_runs",
)


def run(more: int = _MORE, rounds: int = _ROUNDS, slow_rounds: int = 3) -> list[Figure]:
    """Measure with one connection and with so many more; figures in seconds and as ratios."""
    # PostgreSQL's own user, under root, has to pass.
    with tempfile.TemporaryDirectory(prefix="hubspot-deals-bench-") as folder:
        Path(folder).chmod(0o755)
        with running_stack("partitions", Path(folder), _DEALS) as bench:
            loaded = _first_load(bench)
            _add(bench, 0, _DATED_BACK)
            before = _measure(bench, rounds, slow_rounds)
            _add(bench, more, _ADDED)
            after = _measure(bench, rounds, slow_rounds)
    return [*loaded, *(_figure(name, before[name], after[name], more + 1) for name in before)]


def _first_load(bench: Bench) -> list[Figure]:
    start = (datetime.now(UTC) - _LOADED).date().isoformat()
    answer = bench.client.post(
        "/api/v1/connections",
        json={
            "connectionId": "one",
            "organizationId": "org",
            "auth": {"accessToken": "one-token-0123456789"},
            "settings": {"cadence": "hourly", "startDate": start},
        },
    )
    answer.raise_for_status()
    began = time.monotonic()
    _wait(bench, "SELECT count(*) FROM hubspot_deals.sync_runs WHERE outcome = 'completed'", 1)
    synced = time.monotonic() - began
    _wait(bench, "SELECT count(*) FROM dagster.runs WHERE status = 'SUCCESS'", 1)
    (events,) = _ask(
        bench,
        "SELECT count(*) FROM dagster.event_logs"
        " WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND asset_key LIKE '%\"one\"%'",
    )
    stored = time.monotonic() - began - synced
    return [
        Figure("a connection's first load, from its request on", f"{synced:.1f} s"),
        Figure("its partitions' events, stored by its worker", f"{events:,} in {stored:.1f} s"),
    ]


def _add(bench: Bench, more: int, statements: tuple[LiteralString, ...]) -> None:
    values = {"more": more, "start": (datetime.now(UTC) - _YEARS).date().isoformat()}
    with psycopg.connect(bench.facts["urls"]["database"], autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement, values)


def _measure(bench: Bench, rounds: int, slow_rounds: int) -> dict[str, float]:
    """Return the medians in seconds."""
    with httpx.Client(base_url=bench.facts["urls"]["dagster"], timeout=120) as client:

        def ask(query: str, **variables: Any) -> Any:
            said = client.post("/graphql", json={"query": query, "variables": variables}).json()
            if "errors" in said or "NotFound" in str(said) or "'message'" in str(said):
                raise RuntimeError(str(said)[:2_000])
            return said["data"]

        repository = {
            "repositoryName": "__repository__",
            "repositoryLocationName": SYNC_LOCATION,
        }
        seconds = {
            "code location, loaded": _median(lambda: ask(_RELOAD, name=SYNC_LOCATION), slow_rounds)
        }
        key = {"path": ["one", "deals_current"]}
        for name, query in _QUERIES.items():
            variables = {"key": key} if _ASSET in query else {}
            seconds[name] = _median(lambda q=query, v=variables: ask(q, **v), rounds)  # type: ignore[misc]
        for name in ("launch_due_syncs", "watch_connections"):
            chosen = repository | {"sensorName": name}
            first = ask(_SENSOR, selector=chosen, cursor=None)["sensorDryRun"]
            follow = {"selector": chosen, "cursor": first["evaluationResult"]["cursor"]}
            seconds[f"tick of {name}"] = _median(lambda f=follow: ask(_SENSOR, **f), rounds)  # type: ignore[misc]
        schedule = repository | {"scheduleName": "sync_one_hourly"}
        at = datetime.now(UTC).replace(minute=0, second=0, microsecond=0).timestamp()
        seconds["evaluation of a schedule"] = _median(
            lambda: ask(_SCHEDULE, selector=schedule, at=at), rounds
        )
        seconds["a run, from its process to its step"] = statistics.median(
            _start_seconds(bench) for _ in range(slow_rounds)
        )
    click.echo(f"{seconds}", err=True)
    return seconds


def _start_seconds(bench: Bench) -> float:
    """Have the connection synchronized, and return how long its worker took to begin."""
    count = "SELECT count(*) FROM hubspot_deals.sync_runs WHERE connection_id = 'one'"
    (runs,) = _ask(bench, count)
    bench.client.post("/api/v1/connections/one/sync").raise_for_status()
    _wait(bench, f"{count} AND outcome = 'completed'", runs + 1)
    (run_id,) = _ask(
        bench,
        "SELECT run_id FROM hubspot_deals.sync_runs WHERE connection_id = 'one'"
        " ORDER BY run_no DESC LIMIT 1",
    )
    (seconds,) = _ask(
        bench,
        "SELECT extract(epoch FROM max(timestamp) FILTER (WHERE dagster_event_type = 'STEP_START')"
        " - min(timestamp) FILTER (WHERE dagster_event_type = 'ENGINE_EVENT'))::float"
        f" FROM dagster.event_logs WHERE run_id = '{run_id}'",
    )
    # Dagster's own record of the run follows a moment later, and only then is it free again.
    _wait(
        bench,
        f"SELECT count(*) FROM dagster.runs WHERE run_id = '{run_id}' AND status = 'SUCCESS'",
        1,
    )
    return float(seconds)


def _median(call: Callable[[], Any], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        began = time.monotonic()
        call()
        taken.append(time.monotonic() - began)
    return statistics.median(taken)


def _figure(name: str, before: float, after: float, connections: int) -> Figure:
    value, reference = f"{after:.2f} s with {connections}", f"{before:.2f} s with 1"
    if name in {"code location, loaded", "catalog"}:
        # What is loaded, or listed, is a hundred times as much.
        return at_most(f"{name}, in seconds", after, _LOAD_SECONDS, value, reference)
    return at_most(name, after / before, _SLOWER, value, reference)


def _ask(bench: Bench, query: str) -> tuple[Any, ...]:
    with psycopg.connect(bench.facts["urls"]["database"], autocommit=True) as connection:
        return connection.execute(query).fetchall()[0]  # type: ignore[arg-type]


def _wait(bench: Bench, query: str, number: int) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while _ask(bench, query)[0] < number:
        if time.monotonic() > deadline:
            raise TimeoutError(query)
        time.sleep(0.2)


@click.command()
@click.option("--more", default=_MORE, help="Connections beside the first one.")
@click.option("--rounds", default=_ROUNDS, help="Times that each question is asked.")
@click.option("--slow-rounds", default=3, help="Times of loads and runs.")
def main(more: int, rounds: int, slow_rounds: int) -> None:
    """Print the figures."""
    print_figures("A hundred connections, two years of hours each", run(more, rounds, slow_rounds))


if __name__ == "__main__":
    main()
