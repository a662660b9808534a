"""A warehouse in plain Python that is kept current by the source, as the assets do it with SQL."""

from functools import partial

from pyroaring import BitMap64

from hubspot_deals.source.batches import MERGED_PROPERTY, merged_ids, read_batches
from hubspot_deals.source.changes import open_changes
from hubspot_deals.source.fates import End, archived_fate, find_fates
from hubspot_deals.source.identities import find_difference, list_ids, read_archived
from hubspot_deals.source.plan import ListRange

STORED = (
    "dealname",
    "amount",
    "dealstage",
    "pipeline",
    "closedate",
    "createdate",
    "hs_lastmodifieddate",
    "hs_object_id",
    "hubspot_owner_id",
    MERGED_PROPERTY,
)
CALCULATED = ("health_score", "num_associated_contacts")
PROPERTIES = (*STORED, *CALCULATED)


class Warehouse:
    """Live deals by id, and how the others have ended: `(end, survivor)`."""

    def __init__(self):
        self.deals, self.tombstones = {}, {}
        self.cursor = self.archived_after = None
        self.removed = BitMap64()
        self.unlocated, self.suspects = 0, []
        self.restored = 0

    def load(self, account):
        """Begin with a full scan: the cursor is where it began."""
        self.cursor = account.now()
        with account.open_deals([ListRange()], PROPERTIES) as stream:
            for page in stream.pages:
                for deal in page.deals:
                    self.put(deal)

    def sync(self, account, *, most_requests=None, archived_pages=2):
        self.removed = BitMap64()
        with open_changes(account, self.cursor, PROPERTIES) as stream:
            for page in stream.pages:
                for deal in page.deals:
                    self.put(deal)
        self.cursor = stream.cursor
        passed = account.ask(
            partial(
                read_archived,
                properties=PROPERTIES,
                after=self.archived_after,
                most_pages=archived_pages,
            )
        )
        self.archived_after = passed.following
        for deal in passed.deals:
            self.bury(archived_fate(deal))
        found = account.ask(
            partial(
                find_difference,
                known=self.known,
                removed=self.removed,
                suspects=self.suspects,
                most_requests=most_requests,
            )
        )
        self.unlocated, self.suspects = found.unlocated, found.suspects
        self.look_up(account, found.missing | found.extra)
        return stream.is_proved

    def reconcile(self, account):
        """Compare all ids with the list, and read the whole bin."""
        self.look_up(account, self.known ^ list_ids(account))
        for deal in account.ask(partial(read_archived, properties=PROPERTIES)).deals:
            self.bury(archived_fate(deal))

    def refresh(self, account, ids):
        """Read what may have changed without a sign of it."""
        read = account.ask(partial(read_batches, ids=ids, properties=PROPERTIES))
        for deal in read.own():
            self.put(deal)

    def look_up(self, account, ids):
        ids = [str(number) for number in ids]
        for fate in account.ask(partial(find_fates, ids=ids, properties=PROPERTIES)):
            if fate.end is End.LIVE:
                self.put(fate.deal)
            else:
                self.bury(fate)

    @property
    def known(self):
        return BitMap64(map(int, self.deals))

    def put(self, deal):
        deal_id = str(deal["id"])
        self.deals[deal_id] = deal["properties"]
        self.restored += self.tombstones.pop(deal_id, None) is not None
        for loser in merged_ids(deal):
            self.remove(loser)
            self.tombstones[loser] = (End.MERGED, deal_id)

    def bury(self, fate):
        self.remove(fate.deal_id)
        # A purged deal keeps the reason that it was archived.
        if fate.end is not End.DELETED or fate.deal_id not in self.tombstones:
            self.tombstones[fate.deal_id] = (fate.end, fate.survivor)

    def remove(self, deal_id):
        if self.deals.pop(deal_id, None) is not None:
            self.removed.add(int(deal_id))

    def survivor(self, deal_id):
        """Follow merges to their end."""
        while (entry := self.tombstones.get(deal_id)) and entry[0] is End.MERGED:
            deal_id = entry[1]
        return deal_id
