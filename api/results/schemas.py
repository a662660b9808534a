"""Bodies of the result endpoints."""

from typing import Any

from pydantic import Field

from api.schemas import Camel, Pagination


class ResultTable(Camel):
    """One table of a completed scan."""

    name: str
    row_count: int
    extracted_count: int


class ResultTables(Camel):
    """The tables of a completed scan."""

    scan_id: str
    dataset_name: str
    tables: list[ResultTable]
    total_tables: int


class ResultPage(Camel):
    """One page of records of one table."""

    scan_id: str
    table_name: str
    defaulted_table: bool = Field(description="True when the request named no table.")
    records: list[dict[str, Any]]
    pagination: Pagination
    available_tables: list[str]
    columns: list[str]
    snapshot: int = Field(
        description="Number of the scan's result: a rerun that completes serves another one."
    )
