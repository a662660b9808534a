"""Compute logs without helpers: what a run prints goes into its files, and nothing is spawned.

Dagster's own manager also copies it to the worker's output, by four processes for each run
(`tail` and a Python that watches it, twice).
"""

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from dagster import Field, Float, StringSource
from dagster._config.config_schema import UserConfigSchema
from dagster._core.execution.compute_logs import redirect_to_file
from dagster._core.storage.compute_log_manager import CapturedLogContext
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._serdes import ConfigurableClassData
from dagster._utils import ensure_file

from hubspot_deals.launcher.folder import DagsterHome


class FileComputeLogManager(LocalComputeLogManager):
    """Keeps stdout and stderr of each run in files, where Dagster's UI reads them."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Build it from `dagster.yaml`."""
        folder = config_value.get("base_dir") or str(DagsterHome().path / "storage")
        return cls(
            base_dir=folder,
            polling_timeout=config_value.get("polling_timeout"),
            inst_data=inst_data,
        )

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Say what `dagster.yaml` may set; without a folder, it is Dagster's usual one."""
        return {
            "base_dir": Field(StringSource, is_required=False),
            "polling_timeout": Field(Float, is_required=False),
        }

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext, None, None]:
        """Send what the process prints to the files of this key."""
        out, err = (self.get_captured_local_path(log_key, suffix) for suffix in ("out", "err"))
        for path in (out, err):
            ensure_file(path)
        with redirect_to_file(sys.stdout, out), redirect_to_file(sys.stderr, err):
            yield CapturedLogContext(log_key)
        # By this file others know that nothing more will come.
        Path(self.complete_artifact_path(log_key)).touch()  # type: ignore[no-untyped-call]
