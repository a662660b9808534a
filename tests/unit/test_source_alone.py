"""`python -m hubspot_deals.source`: Parquet files of an account, without Dagster or PostgreSQL."""

import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from hubspot_deals.contract import DATASET_NAME
from hubspot_deals.source.__main__ import main
from hubspot_deals.tables import TABLES
from hubspot_sandbox.testing import SandboxProcess

TOKEN = "deals-only-token-0123456789"


def run(output, url, *options):
    """Everything that a run printed."""
    done = subprocess.run(
        [sys.executable, "-m", "hubspot_deals.source", "--output", output, *options],
        env={
            "HUBSPOT_DEALS_ACCESS_TOKEN": TOKEN,
            "HUBSPOT_DEALS_HUBSPOT_URL": url,
            "HOME": str(output.parent),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def rows(output, table):
    files = sorted((output / DATASET_NAME / table).glob("*.parquet"))
    return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]


def test_two_runs_into_one_folder_leave_the_account_once_and_print_no_warning(tmp_path):
    output = tmp_path / "deals"
    scopes = ["crm.objects.deals.read", "crm.schemas.deals.read"]
    with SandboxProcess(deals=2_500, archived_share=0, tokens={TOKEN: scopes}) as account:
        run(output, account.url)
        account.control.delete(1)
        printed = run(output, account.url)
        truth = {deal["id"]: deal["properties"] for deal in account.control.deals()}
    deals = rows(output, "deals")
    assert sorted(deal["id"] for deal in deals) == sorted(truth)
    owners = {values["hubspot_owner_id"] for values in truth.values()} - {None, ""}
    assert sorted(user["id"] for user in rows(output, "users")) == sorted(owners) != []
    assert all(rows(output, table) for table in TABLES)
    assert len(printed.splitlines()) == len(TABLES) + 1, printed


def test_an_account_whose_deals_are_gone_still_has_its_tables(tmp_path):
    output = tmp_path / "deals"
    with SandboxProcess(deals=1, archived_share=0, tokens={TOKEN: None}) as account:
        run(output, account.url)
        account.control.delete(1)
        run(output, account.url)
    assert rows(output, "deals") == []
    assert rows(output, "users") != []


@pytest.mark.parametrize(
    "options",
    [
        ["--start-date", "2024-02-01", "--end-date", "2024-01-31"],
        ["--property", "Deal Name"],
        ["--property", "x" * 101],
        ["--property", "*", "--property", "dealname"],
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_asked(options):
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 2
    assert options[0] in result.output


def test_an_api_version_that_does_not_exist_is_refused():
    variables = {
        "HUBSPOT_DEALS_ACCESS_TOKEN": TOKEN,
        "HUBSPOT_DEALS_HUBSPOT_API_VERSION": "2026-04",
    }
    result = CliRunner(env=variables).invoke(main, [])
    assert result.exit_code == 1
    assert "HUBSPOT_DEALS_HUBSPOT_API_VERSION" in result.output


def test_no_telemetry_is_left_once_the_runtime_is_configured():
    """In a process of its own: dlt starts its telemetry once a process, at the first setting."""
    program = (
        "from hubspot_deals.dlt_runtime import configure_dlt_runtime as configure\n"
        "from dlt.common import logger\n"
        "from dlt.common.runtime import anon_tracker\n"
        "configure(); configure()\n"
        "import dlt; dlt.pipeline('quiet')\n"
        "print(anon_tracker._ANON_TRACKER_ENDPOINT, logger.log_level())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "None ERROR"
