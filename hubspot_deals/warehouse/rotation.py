"""Seals everything that is stored anew with the first key of the key ring, while work goes on.

A row changes in one statement, key and ciphertext together, so whoever reads it meanwhile opens
either the old one or the new one. Whoever has only the old key must have got the new one before.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString

from psycopg import Connection, sql
from pydantic import SecretStr

from hubspot_deals.errors import CredentialError
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.credentials import KeyRing, SealedToken

_BATCH: Final = 100
"""Rows of one transaction: their locks are held for a few milliseconds."""
_PASSES: Final = 40
_PAUSE_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class SealedTable:
    """A table of schema `hubspot_deals` with the columns `key_id`, `nonce` and `ciphertext`."""

    name: LiteralString
    id_column: LiteralString
    bound_to: LiteralString
    """What a ciphertext is bound to, as SQL on the row."""
    has_account: bool = True
    """Whether a column `account` tells accounts apart by a fingerprint, which the key makes."""


SEALED_TABLES: Final = (
    SealedTable("credentials", "scan_id", bound_to="scan_id"),
    SealedTable(
        "connection_credentials", "connection_id", bound_to="'connection:' || connection_id"
    ),
    SealedTable(
        "webhook_secrets",
        "secret_id",
        bound_to="webhook_id || '/' || secret_id",
        has_account=False,
    ),
)
"""Whatever is sealed has to be here, or its key can never be dropped."""


@dataclass(slots=True)
class TableRotation:
    """What became of one table."""

    table: str
    resealed: int = 0
    left: dict[str, int] = field(default_factory=dict)
    """Rows that still need another key than the first one, by that key's id."""
    damaged: list[str] = field(default_factory=list)
    """Ids of rows that do not open although their key is here: they were changed or moved."""


def rotate(
    database_url: SecretStr, keys: KeyRing, tables: Sequence[SealedTable] = SEALED_TABLES
) -> list[TableRotation]:
    """Seal every row anew that another key than the first one of the ring has sealed.

    Rows that somebody is just writing are come back to. What no key of the ring opens is left as
    it is and told. Safe to run at any time, by several at once, and again.
    """
    with open_connection(database_url, application_name="hubspot_deals_rotate") as connection:
        return [_rotate_table(connection, keys, table) for table in tables]


def _rotate_table(connection: Connection[Any], keys: KeyRing, table: SealedTable) -> TableRotation:
    done = TableRotation(table.name)
    for turn in range(_PASSES):
        if turn:
            time.sleep(_PAUSE_SECONDS)
        done.damaged = []
        _pass(connection, keys, table, done)
        done.left = _count_left(connection, keys, table)
        within_reach = sum(n for key_id, n in done.left.items() if key_id in keys.ids)
        if within_reach <= len(done.damaged):
            break
    return done


def _pass(
    connection: Connection[Any], keys: KeyRing, table: SealedTable, done: TableRotation
) -> None:
    """Go once through the rows whose old key is here, in the order of their ids."""
    last: tuple[Any, ...] = ()
    while True:
        with connection.transaction():
            rows = connection.execute(
                _select(table, is_first=not last),
                (keys.primary, list(keys.ids), *last, _BATCH),
            ).fetchall()
            for row_id, bound_to, *stored in rows:
                try:
                    token = keys.open(SealedToken(*stored), bound_to=bound_to)
                except CredentialError:
                    done.damaged.append(str(row_id))
                    continue
                _store(connection, table, row_id, keys.seal(token, bound_to=bound_to))
                done.resealed += 1
        if len(rows) < _BATCH:
            return
        last = (rows[-1][0],)


def _store(
    connection: Connection[Any], table: SealedTable, row_id: Any, fresh: SealedToken
) -> None:
    values: list[Any] = [fresh.key_id, fresh.nonce, fresh.ciphertext]
    account = sql.SQL("")
    if table.has_account:
        account = sql.SQL(", account = %s")
        values.append(fresh.account)
    connection.execute(
        sql.SQL(
            "UPDATE hubspot_deals.{} SET key_id = %s, nonce = %s, ciphertext = %s{} WHERE {} = %s"
        ).format(sql.Identifier(table.name), account, sql.Identifier(table.id_column)),
        (*values, row_id),
    )


def _select(table: SealedTable, *, is_first: bool) -> sql.Composed:
    """Rows that somebody holds are skipped: waiting for several could end in a deadlock."""
    row_id = sql.Identifier(table.id_column)
    return sql.SQL(
        "SELECT {id}, {bound_to}, key_id, nonce, ciphertext FROM hubspot_deals.{table}"
        " WHERE key_id <> %s AND key_id = ANY(%s){after} ORDER BY {id} LIMIT %s"
        " FOR UPDATE SKIP LOCKED"
    ).format(
        id=row_id,
        bound_to=sql.SQL(table.bound_to),
        table=sql.Identifier(table.name),
        after=sql.SQL("") if is_first else sql.SQL(" AND {} > %s").format(row_id),
    )


def _count_left(connection: Connection[Any], keys: KeyRing, table: SealedTable) -> dict[str, int]:
    found = count_keys(connection, table)
    return {key_id: n for key_id, n in sorted(found.items()) if key_id != keys.primary}


def count_keys(connection: Connection[Any], table: SealedTable) -> Counter[str]:
    """Return how many rows each key has sealed."""
    found = connection.execute(
        sql.SQL("SELECT key_id, count(*) FROM hubspot_deals.{} GROUP BY key_id").format(
            sql.Identifier(table.name)
        )
    )
    return Counter(dict(found.fetchall()))
