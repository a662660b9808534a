"""Plots as pictures inside a Markdown text, as Dagster's UI shows them. No library is needed."""

import base64
from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 720
_ROW: Final = 16
_LEFT: Final = 170
_RIGHT: Final = 90
_COLORS: Final = ("#1f6f4a", "#b5482f", "#2f5fb5")
_MOST_GROUPS: Final = 40


def plot_bars(title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Return Markdown with a picture of grouped horizontal bars, one group for each label.

    Of more than forty groups the last are shown.
    """
    labels = labels[-_MOST_GROUPS:]
    shown = {name: list(values)[-_MOST_GROUPS:] for name, values in series.items()}
    svg = _svg(title, labels, shown)
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _svg(title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    largest = max((value for values in series.values() for value in values), default=0) or 1
    group = _ROW * len(series) + 8
    height = 56 + group * len(labels)
    parts = [_text(12, 20, title, 'font-weight="bold"')]
    for number, name in enumerate(series):
        parts.append(_bar(12 + 150 * number, 30, 10, number))
        parts.append(_text(28 + 150 * number, 39, name))
    for row, label in enumerate(labels):
        top = 52 + row * group
        parts.append(_text(_LEFT - 8, top + group / 2, label, 'text-anchor="end"'))
        for number, values in enumerate(series.values()):
            value, y = values[row], top + number * _ROW
            length = value / largest * (WIDTH - _LEFT - _RIGHT)
            parts.append(_bar(_LEFT, y, length, number))
            parts.append(_text(_LEFT + length + 6, y + 10, f"{value:,.6g}"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        ' font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>'
    )


def _bar(x: float, y: float, length: float, number: int) -> str:
    color = _COLORS[number % len(_COLORS)]
    return f'<rect x="{x}" y="{y}" width="{length:.1f}" height="12" fill="{color}"/>'


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'
