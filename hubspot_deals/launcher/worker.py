"""What a forked process does: carry one run out, or report that a worker ended without a word.

Everything that must not be forked (connections, threads, event loops) begins here.
"""

import os
import sys
import time
from typing import Final

from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.events import EngineEventData
from dagster._grpc.impl import core_execute_run
from dagster._utils.hosted_user_process import recon_job_from_origin
from dagster._utils.interrupts import capture_interrupts

from hubspot_deals import logs
from hubspot_deals.launcher import signals
from hubspot_deals.sync_defs.focus import connections_of, focus_on

_REPORT_SECONDS: Final = 60.0
_REPORT_PAUSE_SECONDS: Final = 2.0


def carry_out(warm: DagsterInstance, run_id: str) -> int:
    """Do what a run worker of Dagster's own launcher does; return the exit code.

    Called with signals blocked: an interrupt that came since the fork is seen by Dagster's handler.
    """
    logs.keep_console()
    with capture_interrupts():
        signals.unblock()
        with warm as instance:
            return _execute(instance, run_id)


def _execute(instance: DagsterInstance, run_id: str) -> int:
    run = instance.get_run_by_id(run_id)
    if run is None or run.job_code_origin is None:
        sys.stderr.write(f"Run {run_id} is unknown, or has no code location.\n")
        return 1
    instance.report_engine_event(
        f"Started process for run (pid: {os.getpid()}).",
        run,
        EngineEventData.in_process(os.getpid()),
    )
    focus_on(connections_of(run))
    try:
        job = recon_job_from_origin(run.job_code_origin)
        for _ in core_execute_run(job, run, instance, inject_env_vars=False):
            pass
    except BaseException:
        # Dagster has recorded it, interrupts included; if it could not, the host will.
        again = instance.get_run_by_id(run_id)
        if again is not None and not again.is_finished:
            raise
    return 0


def report_end(warm: DagsterInstance, run_id: str, how: str) -> int:
    """Tell Dagster that a worker is gone, unless the run had ended; return the exit code.

    PostgreSQL may be what the worker has died of, so it is tried for a while. If all fails, the
    sensor that looks after scans finds the run.
    """
    signals.unblock()
    deadline = time.monotonic() + _REPORT_SECONDS
    while True:
        try:
            _report(warm, run_id, how)
        except Exception:
            if time.monotonic() > deadline:
                raise
        else:
            return 0
        time.sleep(_REPORT_PAUSE_SECONDS)


def _report(instance: DagsterInstance, run_id: str, how: str) -> None:
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return
    message = f"The worker of this run {how}."
    if run.status is DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, message)
    else:
        instance.report_run_failed(run, message)
