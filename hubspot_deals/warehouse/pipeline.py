"""The dlt pipeline of one scan: Arrow batches in, one load package of COPY jobs out.

The schema is declared here once and frozen: `migrate` creates the tables, and no run changes them.
Rows go into dlt's package as CSV files that are ready for COPY, so that dlt links what it would
otherwise write three times.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

import dlt
import pyarrow as pa
import pyarrow.csv as pa_csv
from dlt.common.configuration.utils import get_resolved_traces
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
from hubspot_deals.warehouse.csv_rows import CSV, spell
from hubspot_deals.warehouse.destination import ThriftyPostgres
from hubspot_deals.warehouse.scratch import working_folder

if TYPE_CHECKING:
    from dlt.common.schema.typing import TTableSchema, TTableSchemaColumns

LOAD_ID: Final = "_dlt_load_id"
_STAMP_COLUMNS: Final[dict[str, dict[str, Any]]] = {
    "scan_id": {"name": "scan_id", "data_type": "text", "nullable": False},
    "row_no": {"name": "row_no", "data_type": "bigint", "nullable": False},
}
_STAMPS: Final = (
    pa.field("scan_id", pa.string(), nullable=False),
    pa.field("row_no", pa.int64(), nullable=False),
)
# libpq's own words that dlt must not get a second time, or that only libpq understands.
_NOT_FOR_DLT: Final = {"host", "hostaddr", "port", "user", "password", "dbname", "passfile"}


class ScanPipeline:
    """Loads the rows of one scan. Two pipelines never share a working folder or a dlt state.

    It has one connection while it loads a package, and none in between.
    """

    def __init__(self, database_url: SecretStr, name: str, *, session_name: str) -> None:
        """`session_name` is the PostgreSQL application name, by which past epochs are refused."""
        configure_dlt()
        self._is_new = True
        self._held = ExitStack()
        self._folder = self._held.enter_context(working_folder())
        self._destination = ThriftyPostgres(dlt_credentials(database_url, session_name))
        self._pipeline = dlt.pipeline(
            pipeline_name=name,
            pipelines_dir=str(self._folder),
            destination=self._destination,
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
        self._held.close()

    def load(
        self,
        tables: Mapping[Table, list[pa.Table]],
        *,
        scan_id: str,
        first_rows: Mapping[str, int],
    ) -> str:
        """Load Arrow batches of some tables as one package and return its load id.

        The lists are empty afterwards: dlt would hold what they had until the pipeline ends.
        Rows are stamped with the scan and a dense number, counted from `first_rows` of their
        table. They count only once the caller has committed the package's chunk.
        """
        return self._run(
            [
                dlt.resource(
                    self._write_file(table, batches, scan_id, first_rows[table.name]),
                    name=table.name,
                    write_disposition="append",
                )
                for table, batches in tables.items()
                if any(batch.num_rows for batch in batches)
            ],
            schema_contract="freeze",
        )

    def create_tables(self) -> None:
        """Create the dataset and its tables, or add columns that a new release brings."""
        # dlt's table of states is one of those that migrations put a fence on.
        self._pipeline.config.restore_from_destination = True
        empty = [
            dlt.resource(iter([_empty_batch(table)]), name=table.name, columns=_columns(table))
            for table in TABLES.values()
        ]
        self._run(empty)

    def _write_file(
        self, table: Table, batches: list[pa.Table], scan_id: str, first_row: int
    ) -> Iterator[Any]:
        """Write the rows while dlt extracts: only then the package has an id to stamp them with."""
        path = self._folder / f"{table.name}.csv"
        rows = pa.concat_tables(batches)
        batches.clear()
        load_id = dlt.current.load_package_state()["load_id"]
        pa_csv.write_csv(_to_file_rows(rows, scan_id, first_row, load_id), path, CSV)
        yield dlt.mark.with_file_import(str(path), "csv", rows.num_rows)

    def _run(self, resources: Sequence[DltResource], **options: Any) -> str:
        if self._is_new:
            # Given once, dlt keeps it.
            options["schema"] = build_schema()
        # dlt notes each setting that it looks up, per thread, and 0.5 MB of them for each package.
        get_resolved_traces().logging_enabled = False
        try:
            load_info = self._pipeline.run(resources, loader_file_format="csv", **options)
        except PipelineStepFailed as error:
            cause = error.exception
            # What PostgreSQL said, rather than a traceback as text.
            said = getattr(cause, "client_exception", cause)
            raise LoadFailedError(error.step, str(said)) from error
        finally:
            self._destination.close()
        self._is_new = False
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


def _to_file_rows(rows: pa.Table, scan_id: str, first_row: int, load_id: str) -> pa.Table:
    """Add the scan, running row numbers and the package; leave columns out that are all NULL."""
    count = rows.num_rows
    columns = {
        "scan_id": pa.repeat(scan_id, count),
        "row_no": pa.array(range(first_row, first_row + count), pa.int64()),
        LOAD_ID: pa.repeat(load_id, count),
    }
    for name in rows.column_names:
        column = rows.column(name)
        if column.null_count < count:
            columns[name] = spell(column)
    return pa.table(columns)


def _empty_batch(table: Table) -> pa.Table:
    """An Arrow batch without rows makes dlt create the table without loading anything."""
    return pa.schema([*_STAMPS, *table.arrow_schema()]).empty_table()


def configure_dlt() -> None:
    """Give dlt the settings of every pipeline of ours."""
    configure_dlt_runtime()
    dlt.config["normalize.parquet_normalizer.add_dlt_load_id"] = True
    # Measured: gzip of the intermediate CSV costs 4 of 6.4 CPU seconds per 100,000 deals.
    dlt.config["normalize.data_writer.disable_compression"] = True
    dlt.config["load.workers"] = 1
    # Else the rows of a whole scan would stay on the worker's disk until its end.
    dlt.config["load.delete_completed_jobs"] = True
    # Nothing of ours is in dlt's state or traces; the lease knows where a scan goes on.
    dlt.config["restore_from_destination"] = False
    dlt.config["enable_runtime_trace"] = False
    # A repeated COPY may store its rows twice; the scan goes on after its last chunk instead.
    dlt.config["load.raise_on_max_retries"] = 1
    # Dagster's own handler must see a termination, also while a package is loaded.
    dlt.config["runtime.intercept_signals"] = False


def dlt_credentials(database_url: SecretStr, session_name: str) -> PostgresCredentials:
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
