"""What a chunk holds, written down before it is stored: to be held against the table later."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyroaring import BitMap64

from hubspot_deals.tables import DEALS, Table
from hubspot_deals.warehouse.audits import KEYS


@dataclass(frozen=True, slots=True)
class ChunkDigest:
    """The hash of a chunk's keys, and for deals their ids as a serialized bitmap."""

    key_hash: str
    ids: bytes | None


def digest(table: Table, batches: Sequence[pa.Table]) -> ChunkDigest | None:
    """Return the digest of rows that are about to be stored; None of no rows.

    The keys are sorted by bytes, each followed by a line break, and hashed by SHA-256: what
    `audits` has PostgreSQL compute of the stored rows.
    """
    columns = [
        [key for batch in batches for key in batch.column(name).to_pylist()]
        for name in KEYS[table.name]
    ]
    rows = zip(*columns, strict=True)
    keys = sorted(" ".join(part for part in row if part is not None) for row in rows)
    if not keys:
        return None
    lines = "".join(f"{key}\n" for key in keys)
    return ChunkDigest(
        key_hash=hashlib.sha256(lines.encode()).hexdigest(),
        ids=BitMap64(map(int, keys)).serialize() if table is DEALS else None,
    )
