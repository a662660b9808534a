"""Reads conditional and range headers (RFC 9110), as files that never change need them."""

import re
from typing import Final

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class RangeNotSatisfiableError(Exception):
    """A range starts behind the end of the file."""


def read_range(header: str | None) -> tuple[int | None, int | None] | None:
    """Return first and last byte as asked for; None without a single range, which is ignored."""
    found = _RANGE.fullmatch((header or "").replace(" ", ""))
    if found is None or found[1] == found[2] == "":
        return None
    first, last = (int(text) if text else None for text in found.groups())
    if first is not None and last is not None and last < first:
        return None
    return first, last


def fit_range(asked: tuple[int | None, int | None], size: int) -> tuple[int, int]:
    """Return the start and the end (excluded) in a file of this size.

    Raises RangeNotSatisfiableError.
    """
    first, last = asked
    if first is None:
        first, last = max(size - (last or 0), 0), None
    end = size if last is None else min(last + 1, size)
    if first >= end:
        raise RangeNotSatisfiableError
    return first, end


def names_tag(header: str | None, tag: str, *, weak: bool = False) -> bool:
    """Tell whether a list of entity tags has this one, or is `*`; weak ones count only if asked."""
    tags = [part.strip() for part in (header or "").split(",")]
    return tag in tags or "*" in tags or (weak and f"W/{tag}" in tags)
