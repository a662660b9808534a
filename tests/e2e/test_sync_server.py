"""What happens when the process dies that holds the connections, while the one around it lives."""

import time

import httpx
import psutil
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._grpc.client import DagsterGrpcClient

from tests.pace import within

SECONDS = 90


def inner_processes(stack):
    children = psutil.Process(stack.pids["sync_server"]).children()
    return {child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE}


def holds_the_connections(stack):
    """Ask the outer process for what only the inner one can answer."""
    command = psutil.Process(stack.pids["sync_server"]).cmdline()
    try:
        DagsterGrpcClient(host="127.0.0.1", port=int(command[command.index("-p") + 1])).ping("")
    except DagsterUserCodeUnreachableError:
        return False
    return True


def code_location(stack):
    return httpx.get(f"{stack.urls['api']}/api/v1/health").json()["checks"]["code_location"]


def wait_until(condition, missing):
    deadline = time.monotonic() + within(SECONDS)
    while not condition():
        assert time.monotonic() < deadline, missing()
        time.sleep(1.5)  # less often than health may be asked about


def test_the_connections_are_held_again_when_their_process_has_died(stack) -> None:
    wait_until(lambda: code_location(stack) == "healthy", stack.explain)
    outer, before = stack.pids["sync_server"], inner_processes(stack)
    assert len(before) == 1
    psutil.Process(next(iter(before))).kill()

    # Health need not notice: the sensor may look before Dagster's webserver does.
    wait_until(lambda: inner_processes(stack) - before, stack.explain)
    wait_until(lambda: holds_the_connections(stack), stack.explain)
    wait_until(lambda: code_location(stack) == "healthy", stack.explain)

    after = inner_processes(stack)
    assert len(after) == 1
    assert after != before
    # The supervisor had nothing to do: to it, and to Dagster's own check, all was well.
    assert stack.pids["sync_server"] == outer
