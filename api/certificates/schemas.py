"""Bodies of the certificate endpoint."""

from pydantic import Field

from api.schemas import Camel, Timestamp


class Reason(Camel):
    """Why HubSpot's count differs, without a fault."""

    why: str
    deals: int
    ids: list[str] = Field(description="At most a hundred of them.")


class HubSpotCount(Camel):
    """How HubSpot's own count of live deals compares with what was stored."""

    agreement: str = Field(
        description="`equal`, `explained`, `differs` (not all of it could be explained), or "
        "`not_counted` (`note` says why)."
    )
    counted: int | None
    stored: int
    note: str | None
    missing: int
    missing_ids: list[str]
    unexplained: int = Field(description="More that HubSpot counts; negative for fewer.")
    reasons: list[Reason]


class CertifiedTable(Camel):
    """One table as it was when the scan completed."""

    name: str
    read: int
    committed: int
    stored: int
    distinct: int
    archived: int
    key_hash: str | None = Field(
        description="SHA-256 of its keys, sorted by bytes, each followed by a line break."
    )


class StoredCertificate(Camel):
    """What the scan completed with."""

    made_at: Timestamp
    reading_began: Timestamp
    complete: bool
    statements: list[str] = Field(description="The same in words.")
    hubspot: HubSpotCount
    tables: list[CertifiedTable]


class AuditedTable(Camel):
    """One table as it is now."""

    name: str
    committed: int
    stored: int
    distinct: int
    key_hash: str | None
    differing_chunks: list[int]
    unhashed_chunks: int = Field(description="Chunks from before hashes were kept.")
    foreign_rows: int = Field(description="Rows that are in no chunk; no page shows them.")


class TableDifference(Camel):
    """One way in which a table is not what was read."""

    table: str
    chunk: int | None
    kind: str = Field(
        description="`rows_missing`, `rows_added`, `keys_changed`, `duplicate`, `foreign_rows`, "
        "`recount` or `more`."
    )
    text: str
    row_numbers: list[int] = Field(description="At most a hundred.")
    keys: list[str] = Field(description="At most a hundred; of changed keys those that were read.")


class TableAudit(Camel):
    """The tables as they are now."""

    made_at: Timestamp
    seconds: float
    tables: list[AuditedTable]
    differences: list[TableDifference]


class ScanCertificate(Camel):
    """The proof of a scan, and whether its rows still are what was proved."""

    scan_id: str
    snapshot: int
    complete: bool = Field(
        description="Whether the certificate says so, and the tables are what was read."
    )
    certificate: StoredCertificate | None = Field(
        description="Null of a scan from before there were certificates."
    )
    audit: TableAudit
