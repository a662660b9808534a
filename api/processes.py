"""Runs the product's modules in processes of their own, for what is not to be done in this one."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

_END_SECONDS: Final = 5
"""How long a process may take to end by itself before it is killed."""


class Child(NamedTuple):
    """A process under way: what it writes, and its exit code once it has ended."""

    output: asyncio.StreamReader
    wait: Callable[[], Awaitable[int]]


@asynccontextmanager
async def run_module(module: str, order: bytes) -> AsyncIterator[Child]:
    """Let a process carry out an order, which it reads from its standard input.

    It ends with the block at the latest. What it writes to standard error goes to this one's.
    """
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    try:
        process.stdin.write(order)
        process.stdin.close()
        yield Child(process.stdout, process.wait)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _END_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
