"""The `hubspot-sandbox` command."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

from hubspot_sandbox.app import build_app
from hubspot_sandbox.clock import Clock
from hubspot_sandbox.config import ALL_SCOPES, TIERS, SandboxConfig
from hubspot_sandbox.server import serve

_DAY = click.DateTime(formats=["%Y-%m-%d"])


def read_latency(context: click.Context, option: click.Parameter, text: str) -> tuple[float, float]:
    """Milliseconds out of one number or LOW-HIGH."""
    low, dash, high = text.partition("-")
    try:
        bounds = float(low), float(high if dash else low)
    except ValueError:
        bounds = (1.0, 0.0)
    if not 0 <= bounds[0] <= bounds[1]:
        message = f"{text!r} is neither a number nor an ascending LOW-HIGH"
        raise click.BadParameter(message, ctx=context, param=option)
    return bounds


def read_tokens(texts: Sequence[str]) -> dict[str, frozenset[str]]:
    """Tokens with their scopes out of TOKEN or TOKEN=scope,scope."""
    tokens: dict[str, frozenset[str]] = {}
    for text in texts:
        token, equals, scopes = text.partition("=")
        tokens[token] = frozenset(filter(None, scopes.split(","))) if equals else ALL_SCOPES
    return tokens


@click.command(context_settings={"show_default": True})
@click.option("--deals", type=click.IntRange(0), default=1_000, help="Live deals.")
@click.option(
    "--archived-share",
    type=click.FloatRange(0, 1),
    default=0.1,
    help="Archived deals on top of the live ones, as a share of them.",
)
@click.option("--seed", type=int, default=7, help="Same seed and options, same deals.")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8090, help="0 picks a free one.")
@click.option(
    "--latency-ms",
    callback=read_latency,
    metavar="MS|LOW-HIGH",
    default="150-400",
    help="Latency of a list page; searches take a third to a half longer; 0 is none.",
)
@click.option("--tier", type=click.Choice(list(TIERS)), default="pro", help="Request budgets.")
@click.option("--burst", type=click.IntRange(1), help="Requests per ten seconds and token.")
@click.option("--daily", type=click.IntRange(1), help="Requests a day.")
@click.option("--search-per-second", type=click.IntRange(1), default=5, help="Searches a second.")
@click.option("--no-limits", is_flag=True, help="No budgets and none of their headers.")
@click.option("--search-lag-seconds", type=click.FloatRange(0), default=5.0, help="Index lag.")
@click.option("--properties", type=click.IntRange(0), default=0, help="Extra custom properties.")
@click.option("--owners", type=click.IntRange(0), default=12, help="Active owners.")
@click.option(
    "--token",
    "tokens",
    multiple=True,
    metavar="TOKEN[=SCOPE,…]",
    help="Accept only the given tokens; repeatable. Without it any well-formed one is good.",
)
@click.option("--portal-id", type=int, default=48_291_034, help="Id of the account.")
@click.option("--opaque-cursors", is_flag=True, help="List cursors that are no record ids.")
@click.option("--start-date", type=_DAY, default="2023-01-01", help="First createdate.")
@click.option("--end-date", type=_DAY, default="2025-12-31", help="Last createdate.")
@click.option(
    "--same-timestamp",
    type=click.IntRange(0),
    default=0,
    help="So many deals share one millisecond of creation and last change.",
)
@click.option("--clean-values", is_flag=True, help="No values of the wrong kind.")
def main(**options: Any) -> None:
    """A HubSpot CRM account on localhost."""
    tokens = read_tokens(options.pop("tokens"))
    limits = not options.pop("no_limits")
    for key in ("start_date", "end_date"):
        options[key] = options[key].date()
    if options["end_date"] < options["start_date"]:
        message = "--end-date is before --start-date"
        raise click.UsageError(message)
    asyncio.run(_run(SandboxConfig(tokens=tokens, limits=limits, **options)))


async def _run(config: SandboxConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def announce(port: int) -> None:
        sys.stdout.write(f"hubspot-sandbox ready at http://{config.host}:{port}\n")
        sys.stdout.flush()

    clock = Clock()
    await serve(
        build_app(config, clock),
        host=config.host,
        port=config.port,
        stop=stop,
        on_ready=announce,
        now=clock.seconds,
    )


if __name__ == "__main__":
    main()
