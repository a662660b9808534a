import hashlib
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal

import openpyxl
import pytest

from hubspot_deals.exports.excel import write_excel
from hubspot_deals.exports.order import ExportFormat, ExportOrder, Job, Progress
from hubspot_deals.exports.sink import FileSink
from hubspot_deals.warehouse.exports import Column, Kind
from hubspot_deals.warehouse.results import Page

ORDER = ExportOrder(
    ExportFormat.CSV,
    "scan-1",
    7,
    2,
    "2024-01-01T00:00:00+00:00",
    "deals",
    ("id", "é"),
    5,
    raw=False,
)


@dataclass
class ReadyLines:
    """A reader of lines that are there already, a page each."""

    columns: list[Column]
    lines: list[bytes] = field(default_factory=list)

    def as_csv(self, *, neutralise: bool) -> list[Page]:
        assert not neutralise
        return [Page(line, 1) for line in self.lines]


def workbook(tmp_path, reader, **options):
    path = tmp_path / "file"
    with FileSink(path, lambda _: None) as sink:
        write_excel(reader, sink, "deals", tmp_path, **options)
        whole = sink.whole()
    content = path.read_bytes()
    path.rename(tmp_path / "book.xlsx")
    return openpyxl.load_workbook(tmp_path / "book.xlsx"), content, whole


def cells(*texts, kind=Kind.NUMBER):
    return ReadyLines(
        [Column("value", kind, is_raw=True)], [b'"%b"\r\n' % t.encode() for t in texts]
    )


def test_a_job_and_a_progress_survive_the_way_to_the_other_process():
    job = Job(ORDER, "/x", 10, {"conninfo": "postgresql://é"})
    assert Job.from_json(job.to_json()) == job
    progress = Progress(1, 2, "ab", 3)
    assert Progress.from_json(progress.to_json().encode()) == progress


def test_every_part_of_an_order_makes_another_file():
    others = {
        "format": ExportFormat.JSON,
        "scan_id": "scan-2",
        "seq": 8,
        "generation": 3,
        "accepted_at": "2024-01-02T00:00:00+00:00",
        "table_name": "users",
        "columns": ("é", "id"),
        "row_count": 6,
        "raw": True,
        "labels": ("é",),
    }
    keys = {replace(ORDER, **{name: value}).key() for name, value in others.items()}

    assert others.keys() == {part.name for part in fields(ORDER)}
    assert len(keys | {ORDER.key()}) == len(others) + 1
    assert replace(ORDER).key() == ORDER.key()


def test_a_sink_knows_what_it_was_given(tmp_path):
    reports = []
    with FileSink(tmp_path / "file", reports.append) as sink:
        sink.write(b"abc")
        sink.add_rows(2)
        sink.write(memoryview(b"def"))
        assert sink.tell() == 6
        whole = sink.whole()

    assert reports == [Progress(2, 3)]
    assert whole == Progress(2, 6, hashlib.sha256(b"abcdef").hexdigest())
    assert (tmp_path / "file").read_bytes() == b"abcdef"


def test_rows_beyond_a_sheet_go_to_the_next_one_under_a_header(tmp_path):
    book, _, whole = workbook(tmp_path, cells(*map(str, range(5))), sheet_rows=3)

    assert [sheet.title for sheet in book] == ["deals", "deals 2", "deals 3"]
    assert [[row[0] for row in sheet.values] for sheet in book] == [
        ["value", 0, 1],
        ["value", 2, 3],
        ["value", 4],
    ]
    assert whole.rows == 5


def test_a_table_without_rows_is_a_sheet_with_a_header(tmp_path):
    book, _, _ = workbook(tmp_path, cells())
    assert [[list(row) for row in sheet.values] for sheet in book] == [[["value"]]]


def test_the_same_rows_make_the_same_workbook(tmp_path):
    (tmp_path / "other").mkdir()
    assert workbook(tmp_path, cells("1"))[1] == workbook(tmp_path / "other", cells("1"))[1]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12.50", 12.5),
        ("-5", -5),
        ("0.1", 0.1),
        ("123456789012345", 123456789012345),
        ("0.40000000000000002220446049250313080847263336181640625", 0.4),
        ("12345678901234567890.12", "12345678901234567890.12"),
        ("1234567890123456.7", "1234567890123456.7"),
        ("1e400", "1e400"),
        ("NaN", "NaN"),
        ("12;13", "12;13"),
        ("=1+1", "=1+1"),
    ],
)
def test_a_number_is_a_number_if_a_cell_holds_all_of_it(tmp_path, text, value):
    book, _, _ = workbook(tmp_path, cells(text))
    cell = book["deals"]["A2"]

    assert (cell.value, cell.data_type) == (value, "s" if isinstance(value, str) else "n")
    if cell.data_type == "n":
        assert Decimal(text) in {Decimal(str(cell.value)), Decimal(cell.value)}


def test_texts_stay_texts_and_truth_values_truth_values(tmp_path):
    book, _, _ = workbook(tmp_path, cells("12.50", "true", kind=Kind.TEXT))
    assert [row[0] for row in book["deals"].values] == ["value", "12.50", "true"]
    (tmp_path / "b").mkdir()
    book, _, _ = workbook(tmp_path / "b", cells("true", "false", "maybe", kind=Kind.BOOLEAN))
    assert [row[0] for row in book["deals"].values] == ["value", True, False, "maybe"]


@pytest.mark.parametrize("character", ["x", "é", "😀"])
def test_a_text_longer_than_a_cell_is_shortened_and_counted(tmp_path, character):
    book, _, whole = workbook(
        tmp_path, cells(character * 40_000, character * 16_000, kind=Kind.TEXT)
    )
    long, short = (row[0] for row in list(book["deals"].values)[1:])

    assert len(long.encode("utf-16-le")) // 2 in {32_766, 32_767}
    assert set(long) == {character}
    assert short == character * 16_000
    assert whole.shortened_cells == 1
