"""The gateway to a real Dagster webserver, and the one in memory, do the same."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import httpx
import pytest

from api.dagster.gateway import GraphQLGateway
from api.dagster.testing import InMemoryDagsterGateway
from api.errors import DagsterRefusedError, DagsterUnavailableError
from hubspot_deals.contract import CODE_LOCATION, JOB_NAME, SCANS_PARTITIONS

DEFINITIONS = f"""
import dagster as dg

@dg.asset(partitions_def=dg.DynamicPartitionsDefinition(name="{SCANS_PARTITIONS}"))
def deals():
    pass

defs = dg.Definitions(
    assets=[deals], jobs=[dg.define_asset_job("{JOB_NAME}", selection=[deals])]
)
"""
# Without a daemon a launched run stays in the queue, so no worker starts.
WORKSPACE = f"""
load_from:
  - python_file:
      relative_path: definitions.py
      location_name: {CODE_LOCATION}
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def dagster_url(tmp_path_factory):
    home = tmp_path_factory.mktemp("dagster")
    (home / "definitions.py").write_text(DEFINITIONS)
    (home / "workspace.yaml").write_text(WORKSPACE)
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    port = free_port()
    program = Path(sys.executable).with_name("dagster-webserver")
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)],
            cwd=home,
            env={**os.environ, "DAGSTER_HOME": str(home)},  # noqa: TID251 - to start a program with
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_it_answers(url, process, home / "log")
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)


def wait_until_it_answers(url, process, log, seconds=90):
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{url}/server_info", trust_env=False, timeout=5)
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@contextlib.asynccontextmanager
async def graphql_gateway(url):
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        yield GraphQLGateway(client)


@pytest.fixture(params=["in memory", "dagster"])
def ask(request):
    """Run a coroutine function on the gateway, in memory or real."""
    if request.param == "in memory":
        gateway = InMemoryDagsterGateway()
        return lambda question: asyncio.run(question(gateway))
    url = request.getfixturevalue("dagster_url")

    async def on_dagster(question):
        async with graphql_gateway(url) as gateway:
            return await question(gateway)

    return lambda question: asyncio.run(on_dagster(question))


@pytest.fixture(params=["in memory", "dagster"])
def ask_while_down(request):
    if request.param == "in memory":
        gateway = InMemoryDagsterGateway(is_down=True)
        return lambda question: asyncio.run(question(gateway))

    async def on_nothing(question):
        async with graphql_gateway(f"http://127.0.0.1:{free_port()}") as gateway:
            return await question(gateway)

    return lambda question: asyncio.run(on_nothing(question))


def new_id():
    return f"scan-{uuid.uuid4()}"


def test_a_partition_may_be_added_twice(ask):
    async def question(gateway):
        scan_id = new_id()
        await gateway.add_partition(scan_id)
        await gateway.add_partition(scan_id)

    ask(question)


def test_a_launched_run_has_a_status(ask):
    async def question(gateway):
        scan_id = new_id()
        await gateway.add_partition(scan_id)
        run_id = await gateway.launch_run(scan_id, "org-1", epoch=0)
        return await gateway.find_run_status(run_id)

    assert ask(question) == "QUEUED"


def test_two_launches_are_two_runs(ask):
    async def question(gateway):
        scan_id = new_id()
        await gateway.add_partition(scan_id)
        return {await gateway.launch_run(scan_id, "org-1", epoch=0) for _ in range(2)}

    assert len(ask(question)) == 2


def test_the_longest_ids_of_the_contract_are_taken(ask):
    async def question(gateway):
        scan_id = new_id().ljust(255, "x")
        await gateway.add_partition(scan_id)
        return await gateway.launch_run(scan_id, "ö" * 255, epoch=0)

    assert ask(question)


def test_dagster_launches_even_a_partition_that_does_not_exist_so_it_must_be_added_first(ask):
    assert ask(lambda gateway: gateway.launch_run(new_id(), "org-1", epoch=0))


def test_a_run_that_does_not_exist_has_no_status(ask):
    assert ask(lambda gateway: gateway.find_run_status(str(uuid.uuid4()))) is None


def test_a_queued_run_is_terminated_at_once_and_may_be_terminated_again(ask):
    async def question(gateway):
        scan_id = new_id()
        await gateway.add_partition(scan_id)
        run_id = await gateway.launch_run(scan_id, "org-1", epoch=3)
        await gateway.terminate_run(run_id)
        await gateway.terminate_run(run_id)
        return await gateway.find_run_status(run_id)

    assert ask(question) == "CANCELED"


def test_terminating_one_run_leaves_the_others_alone(ask):
    async def question(gateway):
        scan_id = new_id()
        await gateway.add_partition(scan_id)
        runs = [await gateway.launch_run(scan_id, "org-1", epoch=epoch) for epoch in range(2)]
        await gateway.terminate_run(runs[0])
        return [await gateway.find_run_status(run_id) for run_id in runs]

    assert ask(question) == ["CANCELED", "QUEUED"]


def test_a_run_that_does_not_exist_is_as_good_as_terminated(ask):
    ask(lambda gateway: gateway.terminate_run(str(uuid.uuid4())))


def test_a_location_is_loaded_anew(ask):
    ask(lambda gateway: gateway.reload_location(CODE_LOCATION))


def test_a_location_that_does_not_exist_is_a_refusal(ask):
    with pytest.raises(DagsterRefusedError, match="RepositoryLocationNotFound"):
        ask(lambda gateway: gateway.reload_location("nowhere"))


def test_the_version_is_told(ask):
    assert ask(lambda gateway: gateway.get_state())


def test_code_locations_that_are_not_loaded_are_told_apart(dagster_url):
    async def question():
        async with graphql_gateway(dagster_url) as gateway:
            return await gateway.get_state()

    state = asyncio.run(question())
    assert state.location_error is None
    assert state.sync_location_error == "hubspot_deals_syncs is not loaded"


@pytest.mark.parametrize(
    "question",
    [
        lambda gateway: gateway.add_partition("scan-1"),
        lambda gateway: gateway.launch_run("scan-1", "org-1", epoch=0),
        lambda gateway: gateway.find_run_status("run-1"),
        lambda gateway: gateway.terminate_run("run-1"),
        lambda gateway: gateway.get_state(),
        lambda gateway: gateway.reload_location(CODE_LOCATION),
    ],
)
def test_a_dagster_that_is_down_is_unavailable(ask_while_down, question):
    with pytest.raises(DagsterUnavailableError):
        ask_while_down(question)


def test_a_launch_tells_dagster_ids_and_no_more(dagster_url):
    scan_id = new_id()

    async def launch():
        async with graphql_gateway(dagster_url) as gateway:
            await gateway.add_partition(scan_id)
            return await gateway.launch_run(scan_id, "org-1", epoch=7)

    query = """
        query($run: ID!) {
          runOrError(runId: $run) { ... on Run { runConfigYaml tags { key value } } }
        }
    """
    answer = httpx.post(
        f"{dagster_url}/graphql",
        json={"query": query, "variables": {"run": asyncio.run(launch())}},
        trust_env=False,
    )
    run = answer.json()["data"]["runOrError"]
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert tags["dagster/partition"] == tags["hubspot_deals/scan_id"] == scan_id
    assert tags["hubspot_deals/organization_id"] == "org-1"
    assert tags["hubspot_deals/launch_epoch"] == "7"
    assert run["runConfigYaml"].strip() in {"", "{}"}


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(502, html="<html>Bad Gateway</html>"),
        httpx.Response(200, content=b""),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"errors": [{"message": "no"}]}),
        httpx.Response(200, json={"data": None}),
        httpx.Response(200, json={"data": {"result": None}}),
        httpx.Response(200, json={"data": "x" * 100_000}),
    ],
)
def test_an_answer_that_is_no_graphql_is_unavailability_in_few_words(response):
    async def ask():
        transport = httpx.MockTransport(lambda _: response)
        async with httpx.AsyncClient(transport=transport, base_url="http://dagster") as client:
            await GraphQLGateway(client).add_partition("scan-1")

    with pytest.raises(DagsterUnavailableError) as unavailable:
        asyncio.run(ask())
    assert len(str(unavailable.value)) < 700


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"__typename": "PythonError", "message": "broken"}, "PythonError: broken"),
        (
            {"__typename": "RunConfigValidationInvalid", "errors": [{"message": "no such field"}]},
            "RunConfigValidationInvalid: no such field",
        ),
        ({"__typename": "InvalidStepError"}, "InvalidStepError"),
    ],
)
def test_a_refusal_says_dagsters_reason(result, text):
    async def ask():
        transport = httpx.MockTransport(
            lambda _: httpx.Response(200, json={"data": {"result": result}})
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://dagster") as client:
            await GraphQLGateway(client).launch_run("scan-1", "org-1", epoch=0)

    with pytest.raises(DagsterRefusedError, match=text):
        asyncio.run(ask())


def terminate(result):
    """Terminate a run whose termination Dagster answers like this."""

    async def ask():
        transport = httpx.MockTransport(
            lambda _: httpx.Response(200, json={"data": {"result": result}})
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://dagster") as client:
            await GraphQLGateway(client).terminate_run("run-1")

    asyncio.run(ask())


def test_a_location_whose_definitions_do_not_load_is_a_refusal_that_says_why():
    entry = {"__typename": "PythonError", "message": "no module"}
    answer = {"__typename": "WorkspaceLocationEntry", "locationOrLoadError": entry}

    async def ask():
        transport = httpx.MockTransport(
            lambda _: httpx.Response(200, json={"data": {"result": answer}})
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://dagster") as client:
            await GraphQLGateway(client).reload_location("hubspot_deals_syncs")

    with pytest.raises(DagsterRefusedError, match="no module"):
        asyncio.run(ask())


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "CANCELED", "CANCELING"])
def test_a_run_that_cannot_be_terminated_because_it_ends_anyway_is_fine(status):
    terminate({"__typename": "TerminateRunFailure", "message": "no", "run": {"status": status}})


@pytest.mark.parametrize("status", ["STARTING", "STARTED", "NOT_STARTED"])
def test_a_run_that_lives_on_is_a_refusal(status):
    with pytest.raises(DagsterRefusedError, match="TerminateRunFailure: no"):
        terminate({"__typename": "TerminateRunFailure", "message": "no", "run": {"status": status}})
