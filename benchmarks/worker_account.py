"""What both sides of the worker benchmark read and write, and how a scan is accepted for it."""

import asyncio
import base64
from typing import Final

import psycopg
from pydantic import HttpUrl, SecretStr

from hubspot_deals.contract import ScanConfig, ScanFilters
from hubspot_deals.settings import PipelineSettings
from hubspot_deals.tables import CORE_PROPERTIES
from hubspot_deals.warehouse.acceptance import create_scan
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_sandbox.testing import GOOD_TOKEN

TOKEN: Final = GOOD_TOKEN
KEYS: Final = SecretStr("k1:" + base64.b64encode(bytes(32)).decode())
PROPERTIES: Final = (
    "dealname",
    "amount",
    "closedate",
    "createdate",
    "hs_lastmodifieddate",
    "hs_object_id",
    "dealstage",
    "pipeline",
    "dealtype",
    "description",
    "hubspot_owner_id",
    "hubspot_team_id",
    "hs_is_closed",
    "hs_is_closed_won",
    "hs_deal_stage_probability",
    "hs_priority",
    "hs_forecast_probability",
    "deal_currency_code",
    "closed_lost_reason",
    "days_to_close",
    "hs_next_step",
    "num_associated_contacts",
    "num_notes",
    "notes_last_contacted",
    "notes_last_updated",
    "hs_acv",
    "hs_arr",
    "hs_mrr",
    "hs_tcv",
    "hs_analytics_source",
)
COLUMNS: Final = (
    "id",
    "created_at",
    "updated_at",
    "archived",
    *(name for name in CORE_PROPERTIES if name in PROPERTIES),
    "properties",
)
"""Of the deals table, those that a scan of these properties fills."""


def settings_for(url: str, database: str) -> PipelineSettings:
    """A worker's settings, as they are by default."""
    return PipelineSettings(
        database_url=SecretStr(database),
        encryption_keys=KEYS,
        hubspot_url=HttpUrl(url),
        searches_per_second=1_000,
    )


def accept(settings: PipelineSettings, scan_id: str, filters: ScanFilters) -> None:
    """Store a scan and its credential."""
    config = ScanConfig(scan_id, "bench", filters=filters)
    sealed = KeyRing.parse(settings.encryption_keys).seal(SecretStr(TOKEN), bound_to=scan_id)

    async def store() -> None:
        connect = psycopg.AsyncConnection.connect
        async with await connect(
            settings.database_url.get_secret_value(), autocommit=True
        ) as connection:
            await create_scan(connection, config, sealed, request_hash="-")

    asyncio.run(store())
