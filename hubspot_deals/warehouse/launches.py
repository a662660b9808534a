"""Scans that wait for a run, as the sensors of the pipeline see them."""

from dataclasses import dataclass

from psycopg.rows import class_row
from pydantic import SecretStr

from hubspot_deals.contract import Outcome
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.scans import LAUNCH_CLAIM_SECONDS


@dataclass(frozen=True, slots=True)
class WaitingScan:
    """An accepted scan without a run."""

    seq: int
    scan_id: str
    organization_id: str
    epoch: int


def claim_scans_to_launch(database_url: SecretStr, *, limit: int) -> list[WaitingScan]:
    """Claim scans that nobody is launching, in the order in which they were accepted.

    The claim lasts until the run has surely been created; a launcher that dies in between only
    delays its scans by that much.
    """
    with (
        open_connection(database_url) as connection,
        connection.cursor(row_factory=class_row(WaitingScan)) as cursor,
    ):
        cursor.execute(
            f"""
            UPDATE hubspot_deals.scans
            SET launch_claimed_until = now() + interval '{LAUNCH_CLAIM_SECONDS} seconds'
            WHERE seq IN (
                SELECT seq FROM hubspot_deals.scans
                WHERE run_id IS NULL AND started_at IS NULL AND outcome IS NULL
                AND (launch_claimed_until IS NULL OR launch_claimed_until < now())
                ORDER BY seq LIMIT %s FOR UPDATE SKIP LOCKED
            )
            RETURNING seq, scan_id, organization_id, epoch
            """,
            (limit,),
        )
        return sorted(cursor.fetchall(), key=lambda scan: scan.seq)


def end_unstarted_scan(
    database_url: SecretStr, scan_id: str, run_id: str, outcome: Outcome, message: str
) -> None:
    """Record the end of a scan that no worker has ever taken up, if this was its run."""
    with open_connection(database_url) as connection:
        connection.execute(
            "UPDATE hubspot_deals.scans SET outcome = %s, ended_at = now(), error_message = %s"
            " WHERE scan_id = %s AND started_at IS NULL AND outcome IS NULL"
            " AND (run_id IS NULL OR run_id = %s)",
            (outcome, message, scan_id, run_id),
        )
