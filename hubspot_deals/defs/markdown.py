"""Tables for Dagster's UI."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any


def as_markdown(rows: Sequence[Mapping[str, Any]], *, if_empty: str) -> str:
    """Return rows of the same columns as a Markdown table."""
    if not rows:
        return if_empty
    lines = ["|".join(rows[0]), "|".join("---" for _ in rows[0])]
    lines += ["|".join(_cell(value) for value in row.values()) for row in rows]
    return "\n".join(f"|{line}|" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, Decimal):
        # Arrow's decimals have 18 digits behind the point, whatever the number.
        return f"{value.normalize():f}"
    return "" if value is None else " ".join(str(value).split()).replace("|", "\\|")
