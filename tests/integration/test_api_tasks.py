"""Tasks of the API end when they are told to, also those that wait for the database."""

import asyncio

import pytest

from api.database import build_pool
from api.tasks import end_tasks
from tests.pace import within


@pytest.mark.parametrize("turns", range(8))
def test_a_task_ends_whose_connection_comes_at_that_moment(api_settings, turns):
    """A single cancellation is lost at some of these turns: the task would go on for ever."""

    async def ask_for_ever(pool):
        while True:
            async with pool.connection() as connection:
                await connection.execute("SELECT 1")

    async def end():
        settings = api_settings.model_copy(update={"database_pool_size": 1})
        async with build_pool(settings) as pool:
            async with pool.connection():
                asking = asyncio.create_task(ask_for_ever(pool))
                await asyncio.sleep(0.05)
            for _ in range(turns):
                await asyncio.sleep(0)
            ending = asyncio.create_task(end_tasks([asking]))
            _, unended = await asyncio.wait([ending], timeout=within(10))
            assert not unended
            assert asking.cancelled()

    asyncio.run(end())


def test_what_a_task_raises_at_its_end_is_nobody_s_concern():
    async def fail():
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError

    async def end():
        failing, done = asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(0))
        await asyncio.sleep(0.01)
        await end_tasks([failing, done])
        assert isinstance(failing.exception(), ValueError)

    asyncio.run(end())
