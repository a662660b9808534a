import pytest

from api.downloads.ranges import RangeNotSatisfiableError, fit_range, names_tag, read_range


@pytest.mark.parametrize(
    ("header", "size", "part"),
    [
        ("bytes=0-", 10, (0, 10)),
        ("bytes=3-", 10, (3, 10)),
        ("bytes=3-3", 10, (3, 4)),
        ("bytes=3-99", 10, (3, 10)),
        ("bytes=-4", 10, (6, 10)),
        ("bytes=-99", 10, (0, 10)),
        ("bytes = 1 - 2", 10, (1, 3)),
    ],
)
def test_a_range_is_fitted_into_the_file(header, size, part):
    assert fit_range(read_range(header), size) == part


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_a_range_behind_the_end_cannot_be_satisfied(header):
    with pytest.raises(RangeNotSatisfiableError):
        fit_range(read_range(header), 10)


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes=-", "bytes=5-3", "bytes=0-1,3-4", "rows=0-1", "bytes=a-", "bytes=٣-٤", "0-1"],
)
def test_what_is_not_one_range_of_bytes_is_ignored(header):
    assert read_range(header) is None


@pytest.mark.parametrize("header", ['"a"', '"b", "a"', "*", ' "a" '])
def test_a_list_of_tags_names_the_file(header):
    assert names_tag(header, '"a"')


def test_a_weak_tag_counts_only_where_it_may():
    assert not names_tag('W/"a"', '"a"')
    assert names_tag('W/"a"', '"a"', weak=True)
    assert not names_tag(None, '"a"', weak=True)
    assert not names_tag("a", '"a"')
