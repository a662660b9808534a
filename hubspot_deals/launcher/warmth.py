"""What the run host does once so that no run has to: imports, definitions, Dagster's settings."""

import base64
import gc
import importlib
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from dagster import DagsterInstance
from dagster._core.code_pointer import CodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.definitions.repository_definition import RepositoryLoadData
from dagster._core.execution.api import create_execution_plan
from dagster._core.instance import InstanceRef
from pydantic import SecretStr

from hubspot_deals.contract import CODE_LOCATION, JOB_NAME
from hubspot_deals.errors import PermanentError
from hubspot_deals.launcher import storage
from hubspot_deals.settings import PipelineSettings
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.pipeline import build_schema, configure_dlt

# What a run imports on its way, found by comparing sys.modules before and after one.
_MODULES: Final = (
    "anyio._backends._asyncio",
    "dagster._core.definitions.external_asset",
    "dagster._core.definitions.repository_definition.repository_data_builder",
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.utility_ops",
    "dagster._utils.test.definitions",
    "dlt.common.libs.pyarrow",
    "dlt.destinations.impl.postgres.postgres",
    "hubspot_deals.launcher.compute_logs",
    "hubspot_deals.launcher.storage",
    "hubspot_deals.sync_definitions",
    "pendulum.locales.en.locale",
    "psycopg2.extras",
    "pyarrow.csv",
    "pyarrow.fs",
    "pyarrow.parquet",
    "upath.implementations.local",
    "watchdog.observers.polling",
)
_DEFINITIONS: Final = "hubspot_deals.definitions"
_ATTRIBUTE: Final = "defs"
_TASKS: Final = Path("/proc/self/task")


class RunHostThreadsError(PermanentError):
    """A fork copies one thread of several, and with it the locks that the others hold."""

    def __init__(self, count: int) -> None:
        super().__init__(f"The run host has {count} threads and must have one to fork.")


@dataclass(frozen=True, slots=True)
class Warmth:
    """What a forked run finds ready."""

    instance: DagsterInstance
    """Without a connection, which it opens where it is used first: after the fork."""

    @classmethod
    def build(cls, dagster_home: Path) -> Self:
        """Import and prepare everything, without a thread, a connection or an event loop."""
        for name in _MODULES:
            importlib.import_module(name)
        job = recon_job()
        # Dagster remembers the last job that it has loaded; the plan fills further caches.
        job.get_definition()
        create_execution_plan(job)
        storage.assume_tables()
        _use_once()
        instance = DagsterInstance.from_ref(InstanceRef.from_dir(str(dagster_home)))
        # Built when they are asked for; a run asks for all of them.
        _ = instance.run_launcher, instance.compute_log_manager
        _ = instance.run_storage, instance.event_log_storage
        return cls(instance)


def _use_once() -> None:
    """Use what sets itself up at its first use: 8 MB that each run had for itself, measured."""
    key = base64.b64encode(os.urandom(32)).decode()
    settings = PipelineSettings(
        database_url=SecretStr("postgresql://localhost"), encryption_keys=SecretStr(f"once:{key}")
    )
    keys = KeyRing.parse(settings.encryption_keys)
    keys.open(keys.seal(SecretStr("token"), bound_to="scan"), bound_to="scan")
    configure_dlt()
    build_schema()


def recon_job() -> ReconstructableJob:
    """Return the job as the code server describes it in each run."""
    pointer = CodePointer.from_module(_DEFINITIONS, _ATTRIBUTE, str(Path.cwd()))
    repository = ReconstructableRepository(
        pointer, executable_path=sys.executable, container_context={}
    )
    # What a run brings along, and Dagster compares before it uses a job that it has loaded.
    return repository.get_reconstructable_job(JOB_NAME).with_repository_load_data(
        RepositoryLoadData(code_location_name=CODE_LOCATION)
    )


def require_one_thread() -> None:
    """Raise RunHostThreadsError unless this process can be forked."""
    count = threading.active_count()
    if _TASKS.exists():
        # Those of C libraries, too.
        count = len(list(_TASKS.iterdir()))
    if count != 1:
        raise RunHostThreadsError(count)


def freeze() -> None:
    """Keep the collector away from what is there, so that its pages stay shared after a fork."""
    gc.collect()
    gc.freeze()
