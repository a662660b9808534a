"""How many full pages a second the sandbox serves: list chain, keyset search, batch read.

Run it as `python benchmarks/sandbox_pages.py --deals 1000000`. The client keeps one connection
alive per worker and does not parse answers, so the number is the sandbox's, not the client's.
"""

import socket
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import click
import orjson
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from hubspot_sandbox.testing import GOOD_TOKEN, SandboxProcess

PROPERTIES = (
    "dealname,amount,closedate,createdate,hs_lastmodifieddate,hs_object_id,dealstage,pipeline,"
    "dealtype,description,hubspot_owner_id,hubspot_team_id,hs_is_closed,hs_is_closed_won,"
    "hs_deal_stage_probability,hs_priority,hs_forecast_probability,deal_currency_code,"
    "closed_lost_reason,days_to_close,hs_next_step,num_associated_contacts,num_notes,"
    "notes_last_contacted,notes_last_updated,hs_acv,hs_arr,hs_mrr,hs_tcv,hs_analytics_source"
)


class Client:
    """One keep-alive connection that reads answers whole without parsing them."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(8_000_000))
        self._head = f"Host: {parts.netloc}\r\nAuthorization: Bearer {GOOD_TOKEN}\r\n".encode()

    def ask(self, method: str, target: str, body: bytes = b"") -> tuple[memoryview, int]:
        """One exchange; the buffer and the number of bytes in it."""
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        line = f"{method} {target} HTTP/1.1\r\n".encode()
        self._socket.sendall(line + self._head + length + b"\r\n" + body)
        filled, wanted = 0, -1
        while wanted < 0 or filled < wanted:
            filled += self._socket.recv_into(self._buffer[filled:])
            if wanted < 0:
                head = bytes(self._buffer[: min(filled, 2_000)])
                end = head.find(b"\r\n\r\n")
                if end >= 0:
                    start = head.find(b"Content-Length: ") + 16
                    wanted = end + 4 + int(head[start : head.find(b"\r\n", start)])
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(head)
        return self._buffer, filled


def walk(url: str, first: int, stop: int, counts: list[tuple[int, int]]) -> None:
    """Follow the list cursor from one id to another."""
    client, pages, size = Client(url), 0, 0
    after = str(first)
    while after and int(after) < stop:
        target = f"/crm/v3/objects/deals?limit=100&after={after}&properties={PROPERTIES}"
        buffer, filled = client.ask("GET", target)
        pages, size = pages + 1, size + filled
        tail = bytes(buffer[max(0, filled - 3_000) : filled])
        place = tail.rfind(b'"after":"')
        after = tail[place + 9 : tail.find(b'"', place + 9)].decode() if place >= 0 else ""
    counts.append((pages, size))


def measure_list(url: str, cuts: list[int], label: str) -> None:
    """Walk all shards at once, each on its own connection."""
    counts: list[tuple[int, int]] = []
    started = time.perf_counter()
    pairs = pairwise(cuts)
    threads = [threading.Thread(target=walk, args=(url, *pair, counts)) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    pages, size = sum(count for count, _ in counts), sum(size for _, size in counts)
    click.echo(
        f"list {label}, {len(threads)} connection(s): {pages} pages, "
        f"{pages / seconds:,.0f} a second, {size / seconds / 1e6:,.0f} MB/s"
    )


def measure_posts(url: str, label: str, path: str, bodies: list[bytes]) -> None:
    """One POST after the other."""
    client = Client(url)
    started = time.perf_counter()
    slowest = 0.0
    for body in bodies:
        before = time.perf_counter()
        client.ask("POST", f"/crm/v3/objects/deals/{path}", body)
        slowest = max(slowest, time.perf_counter() - before)
    seconds = time.perf_counter() - started
    click.echo(
        f"{label}: {len(bodies)} requests, {1000 * seconds / len(bodies):.2f} ms each, "
        f"slowest {1000 * slowest:.1f} ms"
    )


def keyset_bodies(ids: list[int]) -> list[bytes]:
    """Keyset searches inside a year, 200 a page."""
    filters = [
        {
            "propertyName": "createdate",
            "operator": "BETWEEN",
            "value": "1704067200000",
            "highValue": "1735689599999",
        }
    ]
    return [
        orjson.dumps(
            {
                "filterGroups": [
                    {
                        "filters": [
                            *filters,
                            {
                                "propertyName": "hs_object_id",
                                "operator": "GT",
                                "value": str(number),
                            },
                        ]
                    }
                ],
                "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
                "limit": 200,
                "properties": PROPERTIES.split(","),
            }
        )
        for number in ids
    ]


@click.command()
@click.option("--deals", default=100_000, show_default=True)
@click.option("--shards", default=8, show_default=True)
def main(deals: int, shards: int) -> None:
    """Measure one sandbox."""
    started = time.perf_counter()
    with SandboxProcess(deals=deals) as sandbox:
        process = psutil.Process(sandbox.pid)
        memory = process.memory_info().rss / 1e6
        click.echo(
            f"start with {deals:,} deals: {time.perf_counter() - started:.2f} s, {memory:.0f} MB"
        )
        measure_list(sandbox.url, [0, 2**62], "cold")
        measure_list(sandbox.url, [0, 2**62], "warm")
        truth = sandbox.control.iter_deals(archived=False, properties=["hs_object_id"])
        ids = [int(deal["id"]) for deal in truth]
        cuts = [0, *(ids[len(ids) * place // shards] for place in range(1, shards)), 2**62]
        measure_list(sandbox.url, cuts, "sharded")
        places = ids[:: max(1, len(ids) // 300)]
        measure_posts(sandbox.url, "keyset search of 200", "search", keyset_bodies(places))
        scattered = [ids[place :: len(ids) // 100][:100] for place in range(300)]
        bodies = [
            orjson.dumps(
                {
                    "inputs": [{"id": str(number)} for number in batch],
                    "properties": PROPERTIES.split(","),
                }
            )
            for batch in scattered
        ]
        measure_posts(sandbox.url, "batch read of 100 scattered", "batch/read", bodies)
        click.echo(f"memory at the end: {process.memory_info().rss / 1e6:.0f} MB")
        cpu = process.cpu_times()
        click.echo(f"processor time: user {cpu.user:.1f} s, system {cpu.system:.1f} s")


if __name__ == "__main__":
    main()
