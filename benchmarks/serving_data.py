"""Databases for the serving benchmark, filled by PostgreSQL itself: scans, and a million deals."""

import time
from typing import Final

import orjson
import psycopg
from psycopg import sql
from pydantic import SecretStr

from hubspot_deals.local.postgres import EmbeddedPostgres
from hubspot_deals.warehouse.migrate import migrate

BIG_SCAN: Final = "every-deal"
_CHUNK_ROWS: Final = 5_000
_BATCH_ROWS: Final = 100_000
_DATASET: Final = "hubspot_deals_extraction"

# Constant texts stand for the properties that vary little; the rest is made of the row number.
_CONSTANT: Final = {
    "pipeline": "default",
    "dealtype": "newbusiness",
    "description": "Renewal of the yearly contract, with the options they asked for in March.",
    "hubspot_owner_id": "81023456",
    "hubspot_team_id": "5512",
    "hs_is_closed": "false",
    "hs_is_closed_won": "false",
    "hs_deal_stage_probability": "0.40000000000000002220446049250313080847263336181640625",
    "hs_priority": "high",
    "hs_forecast_probability": None,
    "deal_currency_code": "EUR",
    "closed_lost_reason": None,
    "hs_next_step": "Send the offer",
    "num_associated_contacts": "2",
    "num_notes": "11",
    "notes_last_contacted": "2024-05-01T09:30:00Z",
    "notes_last_updated": "2024-05-02T09:30:00Z",
    "hs_acv": "12000",
    "hs_arr": "12000",
    "hs_mrr": "1000",
    "hs_tcv": "36000",
    "hs_analytics_source": "OFFLINE",
}
_VARYING: Final = {
    "dealname": "'Deal ' || n || ', Ærø & Søn'",
    "amount": "(n %% 1000000)::text || '.50'",
    "dealstage": "'stage-' || n %% 7",
    "closedate": "'2024-0' || 1 + n %% 9 || '-15T12:00:00Z'",
    "createdate": "'2023-0' || 1 + n %% 9 || '-15T12:00:00.123Z'",
    "hs_lastmodifieddate": "'2024-0' || 1 + n %% 9 || '-20T12:00:00.456Z'",
    "hs_object_id": "(9000000000 + n)::text",
    "days_to_close": "(n %% 365)::text",
}
_PAIRS: Final = ", ".join(f"'{name}', {text}" for name, text in _VARYING.items())
_LOAD_ID: Final = f"'load-' || (n - 1) / {_CHUNK_ROWS}"
COLUMNS: Final = ["id", *_VARYING, *_CONSTANT, "archived", "archivedAt"]

_INSERT_DEALS: Final = f"""
    INSERT INTO {_DATASET}.deals (scan_id, row_no, id, created_at, updated_at, archived, dealname,
        amount, dealstage, pipeline, closedate, createdate, hs_lastmodifieddate, hubspot_owner_id,
        dealtype, description, deal_currency_code, hs_acv, hs_arr, hs_mrr, hs_tcv, hs_is_closed,
        hs_is_closed_won, days_to_close, properties, _dlt_load_id)
    SELECT '{BIG_SCAN}', n, (9000000000 + n)::text, now(), now(), false, 'Deal ' || n,
        n %% 1000000 + 0.5, 'stage-' || n %% 7, 'default', now(), now(), now(), '81023456',
        'newbusiness', same.properties ->> 'description', 'EUR', 12000, 12000, 1000, 36000, false,
        false, n %% 365, same.properties || jsonb_build_object({_PAIRS}), {_LOAD_ID}
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n,
        (SELECT %(same)s::jsonb AS properties) same
"""
_INSERT_SCAN: Final = f"""
    WITH scan AS (
        INSERT INTO hubspot_deals.scans (scan_id, organization_id, config, request_hash,
            started_at, ended_at, outcome, generation, records_extracted)
        VALUES ('{BIG_SCAN}', 'org-1', '{{"type": ["user"]}}', '', now(), now(), 'completed', 1,
            %(rows)s)
    ), tables AS (
        INSERT INTO hubspot_deals.scan_tables
        VALUES ('{BIG_SCAN}', 1, 'deals', %(rows)s, %(rows)s, %(columns)s)
    )
    INSERT INTO hubspot_deals.scan_chunks (scan_id, generation, table_name, chunk_no, load_id,
        first_row, row_count, epoch)
    SELECT '{BIG_SCAN}', 1, 'deals', 1 + (min(n) - 1) / {_CHUNK_ROWS}, {_LOAD_ID}, min(n),
        count(*), 1
    FROM generate_series(1, %(rows)s::bigint) n GROUP BY (n - 1) / {_CHUNK_ROWS}
"""


def create_database(server: EmbeddedPostgres, name: str) -> str:
    """Create and migrate a database; its URL."""
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER hubspot_deals").format(sql.Identifier(name))
        )
    url = server.url.replace("/hubspot_deals?", f"/{name}?")
    migrate(SecretStr(url))
    return url


def add_scans(url: str, count: int) -> None:
    """Store so many scans of ten organizations, nearly all of them completed."""
    with psycopg.connect(url, autocommit=True) as database:
        database.execute(
            """
            INSERT INTO hubspot_deals.scans (scan_id, organization_id, config, request_hash,
                run_id, started_at, heartbeat_at, ended_at, outcome, generation, worker_epoch,
                epoch, records_extracted, metadata)
            SELECT 'scan-' || n, 'org-' || n %% 10,
                '{"scanId": "x", "type": ["user"], "filters": {"includeArchived": true}}', '',
                gen_random_uuid(), now() - interval '1 hour', now() - interval '59 minutes',
                now() - interval '59 minutes', CASE WHEN n %% 50 > 0 THEN 'completed'
                    WHEN n %% 100 > 0 THEN 'failed' END,
                (n %% 50 > 0)::int, 1, 1, 1000, '{"portalId": 7, "requests": 12}'
            FROM generate_series(1, %s) n
            """,
            (count,),
        )
        database.execute(
            """
            INSERT INTO hubspot_deals.scan_chunks (scan_id, generation, table_name, chunk_no,
                load_id, first_row, row_count, epoch, checkpoint)
            SELECT scan_id, 1, 'deals', 1, scan_id, 1, 1000, 1, '{"after": "123456789"}'
            FROM hubspot_deals.scans
            """
        )
        database.execute("VACUUM ANALYZE")


def add_deals(url: str, rows: int) -> float:
    """Store a completed scan of so many deals with thirty properties; the seconds it took."""
    began = time.perf_counter()
    with psycopg.connect(url, autocommit=True) as database:
        database.execute("SET synchronous_commit = off")
        database.execute(f"DROP INDEX {_DATASET}.deals_by_row, {_DATASET}.deals_by_id")
        for first in range(1, rows + 1, _BATCH_ROWS):
            last = min(first + _BATCH_ROWS - 1, rows)
            database.execute(_INSERT_DEALS, {"first": first, "last": last, "same": _same()})
        database.execute(f"CREATE INDEX deals_by_row ON {_DATASET}.deals (scan_id, row_no)")
        database.execute(f"CREATE INDEX deals_by_id ON {_DATASET}.deals (scan_id, id)")
        database.execute(_INSERT_SCAN, {"rows": rows, "columns": COLUMNS})
        database.execute("VACUUM ANALYZE")
    return time.perf_counter() - began


def _same() -> str:
    return orjson.dumps(_CONSTANT).decode()
