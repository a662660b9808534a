"""One HubSpot account as ordinary blocking calls: the door of the source for everything else.

Requests run on an event loop in a thread of their own, so that pages are read ahead while the
caller loads earlier ones, and an interrupt in the caller's thread ends both. Another thread can
end them too: `HubSpotAccount.abort`.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic import SecretStr

from hubspot_deals.errors import HubSpotRequestError, HubSpotScopeError
from hubspot_deals.redaction import hide
from hubspot_deals.source.client import ConnectionOptions, HubSpotClient, RequestCounts
from hubspot_deals.source.deals import DealPage, DealReader
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.governor import Pace
from hubspot_deals.source.outlet import PageOutlet
from hubspot_deals.source.owners import fetch_owners
from hubspot_deals.source.pipelines import fetch_pipelines
from hubspot_deals.source.plan import Checkpoint, DealRange, Span
from hubspot_deals.source.properties import fetch_definitions
from hubspot_deals.source.reading import read_plan
from hubspot_deals.source.recount import KnownDeals, Recount, count_now, explain_count
from hubspot_deals.source.retries import zone_of

if TYPE_CHECKING:
    from hubspot_deals.source.search import Extent

_T = TypeVar("_T")
_READ_AHEAD_DEALS: Final = 1_600
"""Deals asked for or held in memory while the loader is busy. With a chunk of 4,000 deals that is
being loaded, one that is being gathered, and a page in the hands of the reader, at most 10,000
deals are read again after a kill."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What HubSpot did not give, and what the scan is without it."""

    consequence: str
    error: HubSpotScopeError | HubSpotRequestError


@dataclass(slots=True)
class DealStream:
    """The pages of one reading, with what the reader has learned so far."""

    pages: Iterator[DealPage]
    reader: DealReader


class HubSpotAccount(AbstractContextManager["HubSpotAccount"]):
    """A HubSpot account seen through one access token. Enter it before asking it anything."""

    def __init__(
        self, token: SecretStr, options: ConnectionOptions, pace: Pace | None = None
    ) -> None:
        """`pace` is shared with every other worker that may use this token or account."""
        hide(token)
        self._client = HubSpotClient(token, options, pace)
        self._version = options.api_version
        self._endpoints = Endpoints.of_version(options.api_version)
        self._stack = ExitStack()
        self.portal_id: int | None = None
        self.refusals: list[Refusal] = []
        self._portal: BlockingPortal | None = None
        self._lock = Lock()
        self._extents: dict[Span | None, Extent] = {}
        self._under_way: set[Future[Any]] = set()
        self._abort_error: Exception | None = None

    def __enter__(self) -> Self:
        self._portal = self._stack.enter_context(start_blocking_portal())
        self._stack.enter_context(self._portal.wrap_async_context_manager(self._client))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def counts(self) -> RequestCounts:
        """Requests sent so far."""
        return self._client.counts

    @property
    def burst_limit(self) -> int | None:
        """Requests in ten seconds that HubSpot's headers allow; None before they did."""
        return self._client.governor.burst_limit

    @property
    def notes(self) -> list[str]:
        """What could not be read, and what that means for the scan."""
        return [f"{refusal.consequence} {refusal.error}" for refusal in self.refusals]

    @property
    def throttled_seconds(self) -> float:
        """Seconds that requests waited for HubSpot's budgets."""
        return self._client.governor.throttled_seconds

    def abort(self, error: Exception) -> None:
        """Let every call that is under way or comes later raise this error, at once.

        For any thread. The first error counts.
        """
        with self._lock:
            self._abort_error = self._abort_error or error
            under_way = list(self._under_way)
        for future in under_way:
            future.cancel()

    def check_access(self) -> None:
        """Find out in two or three requests whether this token can read deals at all.

        Raises HubSpotAuthenticationError or HubSpotScopeError, which names the missing scope.
        """
        self._call(self._find_deals)
        details = self._optional("The account's details are not known.", self._fetch_details)
        self.portal_id = details.get("portalId") if details else None
        if self.portal_id is not None:
            self._client.governor.name_account(f"portal {self.portal_id}")
        self._client.time_zone = zone_of(details.get("timeZone")) if details else None

    def fetch_definitions(self, *, required: bool = False) -> list[dict[str, Any]]:
        """Return the deal property definitions as HubSpot sends them.

        Without them standard properties are read all the same, so they are only `required` by a
        scan that asks for all properties.
        """
        fetch = partial(fetch_definitions, self._client, self._endpoints)
        if required:
            return self._call(fetch)
        return self._optional("deal_properties is empty.", fetch) or []

    def fetch_pipelines(self) -> list[dict[str, Any]]:
        """Return the deal pipelines with their stages, as HubSpot sends them."""
        fetch = partial(fetch_pipelines, self._client, self._endpoints)
        return self._optional("pipelines and pipeline_stages are empty.", fetch) or []

    def fetch_owners(self) -> list[dict[str, Any]]:
        """Return all owners as HubSpot sends them."""
        fetch = partial(fetch_owners, self._client, self._endpoints)
        return self._optional("users holds only the owner ids found on deals.", fetch) or []

    def count_deals(self, span: Span | None) -> int | None:
        """Return HubSpot's own count of live deals in a range; None where it gives none."""
        extent = self.measure_deals(span)
        return None if extent is None else extent.total

    def measure_deals(self, span: Span | None) -> "Extent | None":
        """Return HubSpot's count of live deals in a range, and the newest; None if it is mute."""
        return self._call(lambda: self._reader().measure(span))

    def count_now(self, span: Span | None) -> tuple[int | None, str | None]:
        """Return HubSpot's count of this moment, or the reason why there is none."""
        return self._call(lambda: count_now(self._reader(), span))

    def explain_count(self, span: Span | None, counted: int, known: KnownDeals) -> Recount:
        """Find out, within a minute, why a count is not that of the stored deals."""
        return self._call(lambda: explain_count(self._reader(), span, counted, known))

    def _reader(self, properties: Sequence[str] = ()) -> DealReader:
        return DealReader(self._client, self._endpoints, properties, extents=self._extents)

    def ask(self, request: Callable[[HubSpotClient, Endpoints], Coroutine[Any, Any, _T]]) -> _T:
        """Carry out the requests of another module of the source; raises HubSpotDealsError."""
        return self._call(lambda: request(self._client, self._endpoints))

    def now(self) -> datetime:
        """Return the time by HubSpot's clock, as far as its answers have told it."""
        return self._client.now()

    @contextmanager
    def open_deals(
        self,
        plan: Sequence[DealRange],
        properties: Sequence[str],
        *,
        start: Checkpoint | None = None,
        earlier: Iterable[tuple[str, str | None]] = (),
    ) -> Iterator[DealStream]:
        """Read the deals of a plan, ahead of the consumer by a bounded number of deals.

        `earlier` are id and owner of the deals that an earlier run has read before `start`.
        """
        reader = self._reader(properties)
        for deal_id, owner_id in earlier:
            reader.remember(int(deal_id), owner_id)
        outlet = PageOutlet(reader, _READ_AHEAD_DEALS)
        reading = self._begin(_read_into, outlet, reader, plan, start or Checkpoint())
        try:
            yield DealStream(self._take_from(outlet), reader)
        finally:
            self._end(reading)

    def _take_from(self, outlet: PageOutlet) -> Iterator[DealPage]:
        while (item := self._call(outlet.get)) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    async def _find_deals(self) -> None:
        """Read one deal; a server that does not know the path is asked by its other spellings."""
        first_error: HubSpotRequestError | None = None
        for endpoints in Endpoints.spellings(self._version):
            try:
                await self._client.get(endpoints.deals, {"limit": "1"})
            except HubSpotRequestError as error:
                if error.status != 404:  # noqa: PLR2004
                    raise
                first_error = first_error or error
            else:
                self._endpoints = endpoints
                return
        if first_error is not None:
            raise first_error

    async def _fetch_details(self) -> dict[str, Any]:
        return await self._client.get(self._endpoints.account)

    def _optional(self, without: str, request: Callable[[], Coroutine[Any, Any, _T]]) -> _T | None:
        """Ask for what only explains deals: no reason to go without deals when it is refused."""
        try:
            return self._call(request)
        except (HubSpotScopeError, HubSpotRequestError) as error:
            self.refusals.append(Refusal(without, error))
            return None

    def _call(self, request: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Carry a request out, or raise what the account was aborted with meanwhile."""
        future = self._begin(request)
        try:
            return future.result()
        except CancelledError:
            if self._abort_error is not None:
                raise self._abort_error from None
            raise
        finally:
            self._end(future)

    def _begin(self, function: Callable[..., Awaitable[_T]], *arguments: object) -> Future[_T]:
        if self._abort_error is not None:
            raise self._abort_error
        future: Future[_T] = self._require_portal().start_task_soon(function, *arguments)
        with self._lock:
            self._under_way.add(future)
        if self._abort_error is not None:  # meanwhile, when this future was not yet known
            self._end(future)
            raise self._abort_error
        return future

    def _end(self, future: Future[Any]) -> None:
        future.cancel()
        with self._lock:
            self._under_way.discard(future)

    def _require_portal(self) -> BlockingPortal:
        if self._portal is None:
            msg = "HubSpotAccount must be entered before it is asked anything"
            raise RuntimeError(msg)
        return self._portal


async def _read_into(
    outlet: PageOutlet, reader: DealReader, plan: Sequence[DealRange], start: Checkpoint
) -> None:
    try:
        await read_plan(reader, outlet, plan, start)
    except Exception as error:  # noqa: BLE001 - handed to the consumer, which raises it
        outlet.end(error)
    else:
        outlet.end()
