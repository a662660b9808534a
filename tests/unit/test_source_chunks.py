"""Pages become chunks by rows or by time; every deal and the last checkpoint survive the cut."""

import pytest

from hubspot_deals.source.chunks import ChunkCutter
from hubspot_deals.source.deals import DealPage
from hubspot_deals.source.plan import Checkpoint


def pages_of(*sizes):
    number = 0
    for index, size in enumerate(sizes):
        deals = [{"id": str(number + n), "properties": {"amount": "x"}} for n in range(size)]
        number += size
        yield DealPage(deals, Checkpoint(0, f"after {index}"))


def cut(*sizes, rows=300, seconds=1_000.0):
    cutter = ChunkCutter(rows, seconds, frozenset({"amount"}))
    return list(cutter.cut(pages_of(*sizes))), cutter


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((), []),
        ((0,), [(0, "after 0")]),
        ((100,) * 3, [(300, "after 2")]),
        ((100,) * 4, [(300, "after 2"), (100, "after 3")]),
        ((200, 200), [(200, "after 0"), (200, "after 1")]),
        ((400,), [(400, "after 0")]),
        ((100, 0, 0), [(100, "after 2")]),
        ((300, 0, 1), [(300, "after 1"), (1, "after 2")]),
    ],
)
def test_a_chunk_ends_before_it_would_hold_too_many_rows(sizes, expected):
    chunks, _ = cut(*sizes)
    assert [(chunk.rows, chunk.checkpoint.cursor) for chunk in chunks] == expected


def test_a_chunk_ends_when_its_time_is_over():
    chunks, _ = cut(100, 0, 100, seconds=1e-9)
    assert [chunk.rows for chunk in chunks] == [100, 0, 100]
    assert len(cut(100, 0, 100)[0]) == 1


@pytest.mark.parametrize("size", [1, 99, 100, 999, 1_000, 1_001])
def test_every_deal_is_in_one_batch_in_order(size):
    sizes = (size, 7, size, 0, 1)
    chunks, cutter = cut(*sizes, rows=10_000)
    ids = [
        deal_id
        for chunk in chunks
        for batch in chunk.batches
        for deal_id in batch["id"].to_pylist()
    ]
    assert ids == [str(number) for number in range(sum(sizes))]
    assert sum(chunk.rows for chunk in chunks) == sum(sizes)
    assert cutter.unfit == {"amount": sum(sizes)}
