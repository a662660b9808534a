"""One pace for many workers, in PostgreSQL."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from hubspot_deals.source.governor import Budget, Governor
from hubspot_deals.warehouse.paces import SharedPace

SEARCHES = 200
"""A second; more than HubSpot's, so that the test is short."""


@pytest.fixture
def connect(settings):
    """Connects as another worker does."""
    opened = []

    def connect():
        url = settings.database_url.get_secret_value()
        opened.append(psycopg.connect(url, autocommit=True))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def test_workers_with_connections_of_their_own_keep_one_pace_and_share_it(connect):
    def work(connection):
        async def admissions():
            governor = Governor(SEARCHES, pace=SharedPace(connection), app="same")
            moments = []
            for _ in range(60):
                await governor.admit(Budget.SEARCH)
                moments.append(time.monotonic())
            return moments

        return asyncio.run(admissions())

    with ThreadPoolExecutor(4) as workers:
        runs = list(workers.map(work, [connect() for _ in range(4)]))
    moments = sorted(moment for run in runs for moment in run)
    # A slot may be used late on a busy machine, and never early.
    assert moments[-1] - moments[0] >= (len(moments) - 1) / SEARCHES * 0.99
    ends = [run[-1] for run in runs]
    assert max(ends) - min(ends) < 0.5 * (moments[-1] - moments[0])


def test_a_slot_that_is_postponed_is_postponed_for_everybody(connect):
    async def scenario():
        first, second = (SharedPace(connect()) for _ in range(2))
        await first.reserve("key", 0.01, 0.0)
        await first.postpone("key", 5.0)
        await second.postpone("key", 1.0)  # a shorter one does not open it earlier
        return await second.reserve("key", 0.01, 0.0), await second.reserve("other", 0.01, 0.0)

    waits = asyncio.run(scenario())
    assert 4 < waits[0] <= 5
    assert waits[1] <= 0.0


def test_slots_that_nobody_took_may_be_made_up_for_within_the_slack(connect):
    async def scenario():
        connection = connect()
        connection.execute(
            "INSERT INTO hubspot_deals.request_paces VALUES ('key', now() - interval '1 hour')"
        )
        return [await SharedPace(connection).reserve("key", 10.0, 30.0) for _ in range(5)]

    waits = asyncio.run(scenario())
    assert [round(wait) for wait in waits] == [0, 0, 0, 0, 10]


def test_a_clock_that_was_set_back_holds_nobody_up_for_long(connect):
    connection = connect()
    connection.execute(
        "INSERT INTO hubspot_deals.request_paces VALUES ('key', now() + interval '1 day')"
    )
    wait = asyncio.run(SharedPace(connection).reserve("key", 0.01, 0.0))
    assert wait <= 600


def test_a_slot_that_a_busy_process_hears_of_too_late_counts_as_missed(connect):
    async def scenario():
        pace, other = SharedPace(connect()), connect()
        await pace.reserve("key", 0.01, 0.0)
        with other.transaction():
            other.execute("SELECT 1 FROM hubspot_deals.request_paces FOR UPDATE")
            reserved = asyncio.create_task(pace.reserve("key", 0.01, 0.0))
            await asyncio.sleep(0.2)
        time.sleep(0.5)  # noqa: ASYNC251 - what a busy process does to its event loop
        return await reserved

    assert -1.0 < asyncio.run(scenario()) < -0.3
