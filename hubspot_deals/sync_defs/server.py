"""The code server of the connections, seen from outside."""

from typing import Final

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._grpc.client import DagsterGrpcClient
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from hubspot_deals.settings import PREFIX

_RELOAD_SECONDS: Final = 50
"""A tick of a sensor that takes over a minute is cut off."""


class SyncServerAddress(BaseSettings):
    """Where `workspace.yaml` finds the code location of the connections."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    sync_server_host: str = Field(default="127.0.0.1")
    sync_server_port: int = Field(default=4001)


def load_anew() -> None:
    """Have the definitions of the connections built anew.

    Raises DagsterUserCodeUnreachableError without the server, and after having replaced a process
    that was gone.
    """
    _client().reload_code(timeout=_RELOAD_SECONDS)


@dg.sensor(
    description="Starts the process that holds the connections again when it is gone.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def revive_sync_server(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Replace the process that holds the connections when it is gone, for lack of memory say.

    `dagster code-server start` is two processes. The outer one lives on without the inner one, says
    to every health check that it is well, and starts another only when it is asked to load the code
    anew; the sensors that could ask were in the inner one.
    """
    if not _has_lost_its_code():
        return dg.SkipReason("The code server of the connections has its code, or is not there.")
    context.log.warning("The process that holds the connections is gone; another is started.")
    try:
        load_anew()
    except DagsterUserCodeUnreachableError:
        # The outer process has started another before it fails to take leave of the first.
        context.log.debug("The next tick looks whether the process that was started is well.")
    return dg.SkipReason("The process that holds the connections was started again.")


def _has_lost_its_code() -> bool:
    try:
        # Answered by the inner process, through the outer one.
        _client().ping("")
    except DagsterUserCodeUnreachableError as error:
        code = getattr(error.__cause__, "code", None)
        # Otherwise it is the outer one that does not answer, which whoever started it replaces.
        return code is not None and code().name == "UNKNOWN"
    return False


def _client() -> DagsterGrpcClient:
    address = SyncServerAddress()
    return DagsterGrpcClient(host=address.sync_server_host, port=address.sync_server_port)
