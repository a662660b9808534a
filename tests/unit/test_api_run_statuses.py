"""How often Dagster is asked about runs that scans wait for."""

import asyncio

from api.dagster.testing import InMemoryDagsterGateway
from api.scans import run_statuses
from api.scans.run_statuses import RunStatuses


class CountingGateway(InMemoryDagsterGateway):
    asked = 0

    async def find_run_status(self, run_id):
        self.asked += 1
        await asyncio.sleep(0)
        return await super().find_run_status(run_id)


def find_all(gateway, run_ids):
    async def find():
        runs = RunStatuses(gateway)
        return await asyncio.gather(*(runs.find(run_id) for run_id in run_ids)), runs

    return asyncio.run(find())


def test_many_callers_who_follow_one_run_cost_one_question():
    gateway = CountingGateway(run_statuses={"run-1": "QUEUED"})

    found, _ = find_all(gateway, ["run-1"] * 50)

    assert (set(found), gateway.asked) == ({"QUEUED"}, 1)


def test_each_run_has_its_own_answer():
    gateway = CountingGateway(run_statuses={"run-1": "QUEUED", "run-2": "STARTED"})

    assert find_all(gateway, ["run-1", "run-2", "run-3"])[0] == ["QUEUED", "STARTED", None]


def test_a_dagster_that_is_down_is_not_asked_by_every_caller():
    gateway = CountingGateway(is_down=True)

    found, _ = find_all(gateway, ["run-1"] * 50)

    assert (set(found), gateway.asked) == ({None}, 1)


def test_what_was_said_is_kept_of_a_bounded_number_of_runs():
    gateway = CountingGateway()

    _, runs = find_all(gateway, [f"run-{number}" for number in range(1_500)])

    assert len(runs._asked) == run_statuses._MOST_RUNS


def test_a_caller_who_goes_away_takes_the_answer_from_nobody():
    gateway = CountingGateway(run_statuses={"run-1": "QUEUED"})

    async def find():
        runs = RunStatuses(gateway)
        first = asyncio.create_task(runs.find("run-1"))
        await asyncio.sleep(0)
        first.cancel()
        return await runs.find("run-1")

    assert asyncio.run(find()) == "QUEUED"
