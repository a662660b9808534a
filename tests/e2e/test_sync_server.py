"""What happens when the process dies that holds the connections, while the one around it lives."""

import time

import httpx
import psutil

SECONDS = 90


def inner_processes(stack):
    children = psutil.Process(stack.pids["sync_server"]).children()
    return {child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE}


def code_location(stack):
    return httpx.get(f"{stack.urls['api']}/api/v1/health").json()["checks"]["code_location"]


def wait_until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nobody noticed"
        time.sleep(1.5)  # less often than health may be asked about


def test_the_connections_are_held_again_when_their_process_has_died(stack) -> None:
    wait_until(lambda: code_location(stack) == "healthy")
    outer, before = stack.pids["sync_server"], inner_processes(stack)
    assert len(before) == 1
    psutil.Process(before.pop()).kill()

    wait_until(lambda: code_location(stack) != "healthy")
    wait_until(lambda: code_location(stack) == "healthy")

    assert len(inner_processes(stack)) == 1
    # The supervisor had nothing to do: to it, and to Dagster's own check, all was well.
    assert stack.pids["sync_server"] == outer
