"""The dlt pipeline of one scan: Arrow batches in, one load package of COPY jobs out.

The schema is declared here once and frozen: `migrate` creates the tables, and no run changes them.
"""

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

import dlt
import pyarrow as pa
from dlt.common.schema import Schema
from dlt.destinations.impl.postgres.configuration import PostgresCredentials
from dlt.extract import DltResource
from dlt.pipeline.exceptions import PipelineStepFailed
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from hubspot_deals.contract import DATASET_NAME, SOURCE_NAME
from hubspot_deals.dlt_runtime import configure_dlt_runtime
from hubspot_deals.errors import LoadFailedError
from hubspot_deals.tables import TABLES, Table
from hubspot_deals.warehouse.connections import KEEPALIVES, NO_TIMEOUTS, open_connection

if TYPE_CHECKING:
    from dlt.common.schema.typing import TTableSchema, TTableSchemaColumns

LOAD_ID: Final = "_dlt_load_id"
_STAMP_COLUMNS: Final[dict[str, dict[str, Any]]] = {
    "scan_id": {"name": "scan_id", "data_type": "text", "nullable": False},
    "row_no": {"name": "row_no", "data_type": "bigint", "nullable": False},
}
# libpq's own words that dlt must not get a second time, or that only libpq understands.
_NOT_FOR_DLT: Final = {"host", "hostaddr", "port", "user", "password", "dbname", "passfile"}


class ScanPipeline:
    """Loads the rows of one scan. Two pipelines never share a working folder or a dlt state."""

    def __init__(self, database_url: SecretStr, name: str, *, session_name: str) -> None:
        """`session_name` is the PostgreSQL application name, by which past epochs are refused."""
        _configure_dlt()
        self._folder = Path(tempfile.mkdtemp(prefix="hubspot-deals-"))
        self._pipeline = dlt.pipeline(
            pipeline_name=name,
            pipelines_dir=str(self._folder),
            destination=dlt.destinations.postgres(_credentials(database_url, session_name)),
            dataset_name=DATASET_NAME,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def load(
        self, resources: Sequence[DltResource], *, scan_id: str, first_rows: dict[str, int]
    ) -> str:
        """Load resources as one package and return its load id.

        Rows are stamped with the scan and a dense number, counted from `first_rows` of their
        table. They count only once the caller has committed the package's chunk.
        """
        stamped = [
            resource.add_map(_Stamp(scan_id, first_rows[str(resource.name)]))
            for resource in resources
        ]
        return self._run(stamped, schema_contract="freeze")

    def create_tables(self) -> None:
        """Create the dataset and its tables, or add columns that a new release brings."""
        empty = [
            dlt.resource(iter([_empty_batch(table)]), name=table.name, columns=_columns(table))
            for table in TABLES.values()
        ]
        self._run(empty)

    def _run(self, resources: Sequence[DltResource], **options: Any) -> str:
        try:
            load_info = self._pipeline.run(
                resources, schema=build_schema(), loader_file_format="csv", **options
            )
        except PipelineStepFailed as error:
            cause = error.exception
            # What PostgreSQL said, rather than a traceback as text.
            said = getattr(cause, "client_exception", cause)
            raise LoadFailedError(error.step, str(said)) from error
        return load_info.loads_ids[0]


def build_schema() -> Schema:
    """Return the dlt schema of the dataset."""
    schema = Schema(SOURCE_NAME)
    for table in TABLES.values():
        declared = {
            "name": table.name,
            "columns": _columns(table),
            "write_disposition": "append",
            "resource": table.name,
        }
        schema.update_table(cast("TTableSchema", declared))
    return schema


def _columns(table: Table) -> "TTableSchemaColumns":
    return cast(
        "TTableSchemaColumns",
        {
            **_STAMP_COLUMNS,
            **table.dlt_columns(),
            LOAD_ID: {"name": LOAD_ID, "data_type": "text", "nullable": False},
        },
    )


class _Stamp:
    """Adds the scan id and a running row number in front of each batch."""

    def __init__(self, scan_id: str, first_row: int) -> None:
        self._scan_id = scan_id
        self._numbers = count(first_row)

    def __call__(self, batch: pa.Table) -> pa.Table:
        numbers = [next(self._numbers) for _ in range(batch.num_rows)]
        return _with_stamps(batch, [self._scan_id] * batch.num_rows, numbers)


def _with_stamps(batch: pa.Table, scan_ids: Iterable[str], numbers: Iterable[int]) -> pa.Table:
    scan_id = pa.field("scan_id", pa.string(), nullable=False)
    row_no = pa.field("row_no", pa.int64(), nullable=False)
    numbered = batch.add_column(0, row_no, pa.array(numbers, pa.int64()))
    return numbered.add_column(0, scan_id, pa.array(scan_ids, pa.string()))


def _empty_batch(table: Table) -> pa.Table:
    """An Arrow batch without rows makes dlt create the table without loading anything."""
    return _with_stamps(table.arrow_schema().empty_table(), [], [])


def _configure_dlt() -> None:
    """Give dlt the settings of every pipeline of ours."""
    configure_dlt_runtime()
    dlt.config["normalize.parquet_normalizer.add_dlt_load_id"] = True
    # Measured: gzip of the intermediate CSV costs 4 of 6.4 CPU seconds per 100,000 deals.
    dlt.config["normalize.data_writer.disable_compression"] = True
    dlt.config["load.workers"] = 2
    # A repeated COPY may store its rows twice; the scan goes on after its last chunk instead.
    dlt.config["load.raise_on_max_retries"] = 1
    # Dagster's own handler must see a termination, also while a package is loaded.
    dlt.config["runtime.intercept_signals"] = False


def _credentials(database_url: SecretStr, session_name: str) -> PostgresCredentials:
    """Translate a libpq URL for dlt, which wants a password where libpq has more ways.

    Connecting once lets libpq find the password (URL, passfile, environment) and shows at the
    start of a scan, not at its first chunk, that the database answers.
    """
    with open_connection(database_url) as connection:
        info = connection.info
        credentials = PostgresCredentials()
        credentials.host, credentials.port = info.host, info.port
        credentials.username, credentials.database = info.user, info.dbname
        # dlt insists on one; a server that asked for none ignores it.
        credentials.password = info.password or "none"
    said = conninfo_to_dict(database_url.get_secret_value())
    extra = {key: str(value) for key, value in said.items() if key not in _NOT_FOR_DLT}
    credentials.query = {
        **extra,
        **{name: str(value) for name, value in KEEPALIVES.items()},
        "application_name": session_name,
        "options": f"{extra.get('options', '')} {NO_TIMEOUTS}".strip(),
    }
    credentials.resolve()
    return credentials
