"""The run queue, without the wait where there is nothing to wait for.

Dagster's queue is looked at by its daemon once a second. A run that finds the queue empty and a
place free is launched by whoever submits it, under the same limits.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dagster import DagsterRun, DagsterRunStatus, QueuedRunCoordinator, RunsFilter
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.storage.dagster_run import ACTIVE_RUN_STATUSES
from dagster._utils.tags import TagConcurrencyLimitsCounter

from hubspot_deals.launcher.folder import LauncherFolder
from hubspot_deals.launcher.run_launcher import WarmForkRunLauncher

_lock: Final = threading.Lock()


class PromptRunCoordinator(QueuedRunCoordinator):
    """Launches a run at once if nothing is queued before it and no limit is reached.

    Launching at once takes the run host, which answers within milliseconds; with another launcher,
    or while the host is away, every run is queued.
    """

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Launch or queue a new run; one that was submitted before is left alone."""
        run = context.dagster_run
        launcher = self._instance.run_launcher
        if (
            run.status is DagsterRunStatus.NOT_STARTED
            and isinstance(launcher, WarmForkRunLauncher)
            and launcher.is_prompt()
        ):
            # One at a time, so that nobody counts the same free place twice.
            with _one_at_a_time(launcher.folder):
                if self._may_start(run):
                    return self._instance.launch_run(run.run_id, context.workspace)
        return super().submit_run(context)

    def _may_start(self, run: DagsterRun) -> bool:
        """Decide as Dagster's daemon does; pools are left to it."""
        limits = self._instance.get_concurrency_config().run_queue_config
        if limits is None or run.run_op_concurrency is not None:
            return False
        queued = RunsFilter(statuses=[DagsterRunStatus.QUEUED])
        if self._instance.get_runs(queued, limit=1):
            return False
        running = self._instance.get_runs(RunsFilter(statuses=ACTIVE_RUN_STATUSES))
        if -1 < limits.max_concurrent_runs <= len(running):
            return False
        counter = TagConcurrencyLimitsCounter(limits.tag_concurrency_limits, running)
        return not counter.is_blocked(run)


@contextmanager
def _one_at_a_time(folder: LauncherFolder) -> Iterator[None]:
    """Keep out other threads, and the other processes of this machine."""
    with _lock:
        descriptor = os.open(folder.path / "submit.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
