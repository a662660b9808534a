"""Downloads opened in a real spreadsheet: no text of an account is ever evaluated."""

import shutil
import subprocess
from collections import Counter
from xml.etree import ElementTree as ET

import psycopg
import pytest
from psycopg.rows import dict_row

from hubspot_deals.exports.__main__ import export
from hubspot_deals.exports.order import ExportFormat, ExportOrder
from hubspot_deals.source.arrow import deals_to_arrow
from hubspot_deals.tables import CORE_PROPERTIES
from tests.integration.test_result_json import deal, store

OFFICE = shutil.which("soffice")
NUMBERS = ["-5", "-1234.50", "+7", "12.25", "-.5"]
PAYLOADS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(1,1)",
    "=cmd|'/C calc'!A0",
    "+cmd|'/C calc'!A0",
    "-cmd|'/C calc'!A0",
    "@cmd|'/C calc'!A0",
    '=HYPERLINK("http://127.0.0.1/x","click")',
    '=WEBSERVICE("http://127.0.0.1/x")',
    '=IMPORTXML("http://127.0.0.1/x","//a")',
    '=DDE("soffice","/etc/passwd","A1")',
    "=SUM(1+1)*cmd|' /C calc'!A0",
    "=2+5+cmd|' /C calc'!A0",
    " =1+1",
    "   =1+1",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "\r\n=1+1",
    "\u00a0=1+1",
    "\ufeff=1+1",
    "\u200b=1+1",
    "\uff1d1+1",
    "\uff0b1+1",
    "\uff0d1+1",
    "\uff20SUM(1)",
    '"=1+1"',
    '","=1+1',
    "a,=1+1",
    "a;=1+1",
    "a\t=1+1",
    "a\n=1+1",
    "a\r\n=1+1",
    "'=1+1",
    "{=1+1}",
    "=A1",
    "=-5",
    "--5",
    "-5+cmd",
    "+5-3",
    "=",
    "=\u0661+\u0661",
    "-2+3+cmd|' /C calc'!A0",
]
# Separator, quote, UTF-8, first row, …, texts in quotes may be numbers, formulas are evaluated.
_READ_CSV = "CSV:44,34,76,1,,0,false,true,false,false,false,0,true"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"

pytestmark = pytest.mark.skipif(OFFICE is None, reason="LibreOffice is not installed")


@pytest.fixture
def stored(database_url):
    texts = PAYLOADS + NUMBERS
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as database:
        deals = [deal(n, dealname=text, amount="-12.50") for n, text in enumerate(texts)]
        store(database, "deals", deals_to_arrow(deals, frozenset(CORE_PROPERTIES), Counter()))
    return texts


def cells_in_the_spreadsheet(database_url, folder, form, ending, rows, *, raw=False):
    """Export, let LibreOffice open the file, and return (type, formula, text) of the cells."""
    columns = ("dealname", "amount")
    order = ExportOrder(ExportFormat(form), "scan-1", 1, 1, "", "deals", columns, rows, raw)
    path = folder / f"file.{ending}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        export(connection, order, path, lambda _: None)
    command = [OFFICE, f"-env:UserInstallation=file://{folder}/profile", "--headless"]
    if ending == "csv":
        command.append(f"--infilter={_READ_CSV}")
    command += ["--convert-to", "fods", "--outdir", str(folder), str(path)]
    subprocess.run(command, check=True, timeout=180, capture_output=True)
    root = ET.parse(folder / "file.fods").getroot()
    return [
        [
            (
                cell.get(f"{_OFFICE}value-type"),
                cell.get(f"{_TABLE}formula"),
                "\n".join("".join(part.itertext()) for part in cell),
            )
            for cell in row.iter(f"{_TABLE}table-cell")
        ][:2]
        for row in root.iter(f"{_TABLE}table-row")
    ][1 : rows + 1]


@pytest.mark.parametrize(("form", "ending"), [("csv", "csv"), ("excel", "xlsx")])
def test_no_text_is_evaluated_and_numbers_are_numbers(database_url, tmp_path, stored, form, ending):
    cells = cells_in_the_spreadsheet(database_url, tmp_path, form, ending, len(stored))

    assert len(cells) == len(stored)
    assert [formula for row in cells for _, formula, _ in row if formula] == []
    assert {row[0][0] for row in cells[: len(PAYLOADS)]} == {"string"}
    assert {row[1][0] for row in cells} == {"float"}
    if form == "csv":
        assert {row[0][0] for row in cells[len(PAYLOADS) :]} == {"float"}


def test_without_neutralising_they_would_be(database_url, tmp_path, stored):
    cells = cells_in_the_spreadsheet(database_url, tmp_path, "csv", "csv", len(stored), raw=True)

    assert len([formula for row in cells for _, formula, _ in row if formula]) > 10
