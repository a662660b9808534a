"""The run launcher that asks the run host, and Dagster's own one where the host cannot be had."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from dagster import DagsterRun, DefaultRunLauncher, Field, IntSource, StringSource
from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._serdes import ConfigurableClassData

from hubspot_deals.launcher.channel import (
    RunHostRefusedError,
    RunHostUnreachableError,
    ask_patiently,
    is_ready,
)
from hubspot_deals.launcher.folder import DagsterHome, LauncherFolder

logger = logging.getLogger(__name__)

_WAIT_SECONDS: Final = 15


class WarmForkRunLauncher(DefaultRunLauncher):
    """Forks each run from the run host of this machine.

    A host that is being started again is waited for; when it stays away, the code server starts the
    run, as without this launcher.
    """

    def __init__(
        self,
        folder: LauncherFolder,
        *,
        wait_seconds: int = _WAIT_SECONDS,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__(inst_data=inst_data)
        self._folder = folder
        self._wait_seconds = wait_seconds

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Say what `dagster.yaml` may set."""
        return {
            "folder": Field(
                StringSource,
                is_required=False,
                description="Where launcher and host meet; `launcher` in DAGSTER_HOME by default.",
            ),
            "wait_seconds": Field(
                IntSource,
                default_value=_WAIT_SECONDS,
                description="How long a host that does not answer is waited for.",
            ),
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> Self:
        """Build it from `dagster.yaml`."""
        folder = config_value.get("folder")
        return cls(
            LauncherFolder(Path(folder)) if folder else LauncherFolder.below(DagsterHome().path),
            wait_seconds=config_value["wait_seconds"],
            inst_data=inst_data,
        )

    @property
    def folder(self) -> LauncherFolder:
        """Where it meets the host."""
        return self._folder

    def is_prompt(self) -> bool:
        """Tell whether a launch takes milliseconds, because the host answers."""
        return is_ready(self._folder)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Have the run forked. Asking twice is safe: one run has one worker."""
        run_id = context.dagster_run.run_id
        try:
            ask_patiently(self._folder, "launch", run_id, seconds=self._wait_seconds)
        except (RunHostUnreachableError, RunHostRefusedError) as error:
            if self._folder.is_alive(run_id):
                return
            logger.warning("%s The code server starts run %s instead.", error, run_id)
            super().launch_run(context)

    def terminate(self, run_id: str) -> bool:
        """Interrupt the worker, which ends its run as canceled and cancels the scan."""
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        if run is None or run.is_finished:
            return False
        if _is_of_the_code_server(run):
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        try:
            answer = ask_patiently(self._folder, "terminate", run_id, seconds=self._wait_seconds)
        except (RunHostUnreachableError, RunHostRefusedError) as error:
            self._instance.report_engine_event(str(error), run, cls=type(self))
            return False
        return answer["pid"] is not None

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Anybody on this machine can tell whether a worker lives."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Look at the lock that a worker holds as long as it lives."""
        if _is_of_the_code_server(run):
            # Which looks after its children itself.
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if self._folder.is_alive(run.run_id):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, f"No worker of run {run.run_id} is left on this machine."
        )


def _is_of_the_code_server(run: DagsterRun) -> bool:
    return GRPC_INFO_TAG in run.tags
