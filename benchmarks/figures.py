"""The one table that every benchmark adds its lines to."""

from collections.abc import Sequence
from dataclasses import dataclass

import click


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: what was measured, beside its reference and what is wanted of it.

    `ratio` is ours over the reference measured in the same run; `is_met` is None where nothing is
    wanted.
    """

    what: str
    value: str = ""
    reference: str = ""
    ratio: float | None = None
    wanted: str = ""
    is_met: bool | None = None


def at_most(what: str, ratio: float, limit: float, value: str = "", reference: str = "") -> Figure:
    """A ratio that has a ceiling."""
    return Figure(what, value, reference, ratio, f"at most {limit:g}", ratio <= limit)


def at_least(what: str, ratio: float, limit: float, value: str = "", reference: str = "") -> Figure:
    """A ratio that has a floor."""
    return Figure(what, value, reference, ratio, f"at least {limit:g}", ratio >= limit)


def print_figures(title: str, figures: Sequence[Figure]) -> None:
    """Print the lines of one benchmark as a Markdown table, which documents can hold as it is."""
    click.echo(f"\n### {title}\n")
    click.echo("| what | measured | reference | ratio | wanted | |")
    click.echo("|---|---|---|---|---|---|")
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        verdict = {None: "", True: "met", False: "**missed**"}[figure.is_met]
        click.echo(
            f"| {figure.what} | {figure.value} | {figure.reference} | {ratio} "
            f"| {figure.wanted} | {verdict} |"
        )
