"""A connection of a sandbox's account, its runs, and what its tables hold beside the truth."""

import logging
import multiprocessing
import time
import uuid
from contextlib import contextmanager
from dataclasses import replace
from datetime import date

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from pydantic import HttpUrl, SecretStr

from hubspot_deals.settings import PipelineSettings
from hubspot_deals.source.fates import End
from hubspot_deals.sync import SyncOrder, run_sync
from hubspot_deals.sync_contract import SyncSettings
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.syncs.connections import bound_to
from tests.conftest import TEST_KEYS, TEST_TOKEN
from tests.unit.living_account import differences, wrong_ends
from tests.unit.memory_warehouse import PROPERTIES, Warehouse

LOG = logging.getLogger("syncs")
ORGANIZATION = "org-1"
CHOSEN = SyncSettings(
    start_date=date(2024, 1, 1), properties=PROPERTIES, refresh_hours=10**6, reconcile_hours=10**6
)


class SyncedAccount:
    """One connection of one sandbox, in a database."""

    def __init__(self, database_url, sandbox, *, chosen=CHOSEN, name="main", **changes):
        self.sandbox = sandbox
        self.name = name
        self.settings = PipelineSettings(
            database_url=SecretStr(database_url),
            encryption_keys=TEST_KEYS,
            hubspot_url=HttpUrl(sandbox.url),
            **{"searches_per_second": 1_000, "retry_seconds": 60, **changes},
        )
        self.database = psycopg.connect(database_url, autocommit=True, row_factory=dict_row)
        self.connect(chosen)

    def connect(self, chosen, token=TEST_TOKEN):
        self.database.execute(
            "INSERT INTO hubspot_deals.connections (connection_id, organization_id, settings)"
            " VALUES (%s, %s, %s) ON CONFLICT (connection_id)"
            " DO UPDATE SET settings = EXCLUDED.settings",
            (self.name, ORGANIZATION, Jsonb(chosen.to_json())),
        )
        self.give_token(token)

    def give_token(self, token):
        sealed = KeyRing.parse(TEST_KEYS).seal(token, bound_to=bound_to(self.name))
        self.database.execute(
            "INSERT INTO hubspot_deals.connection_credentials VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (connection_id) DO UPDATE SET key_id = EXCLUDED.key_id,"
            " nonce = EXCLUDED.nonce, ciphertext = EXCLUDED.ciphertext",
            (self.name, sealed.key_id, sealed.nonce, sealed.ciphertext),
        )

    def choose(self, **changes):
        self.connect(replace(CHOSEN, **changes))

    def sync(self, window=(None, None), **options):
        order = SyncOrder(self.name, uuid.uuid4().hex, *window)
        return run_sync(self.settings, order, log=LOG, **{"is_cancelled": lambda: False, **options})

    def rows(self, statement, *values):
        return self.database.execute(statement, values).fetchall()

    def row(self, statement, *values):
        [row] = self.rows(statement, *values)
        return row

    def table(self, name, order="1"):
        return self.rows(
            f"SELECT * FROM hubspot_deals_current.{name} WHERE connection_id = %s ORDER BY {order}",
            self.name,
        )

    @property
    def state(self):
        return self.row(
            "SELECT * FROM hubspot_deals.connections WHERE connection_id = %s", self.name
        )

    def wait_for_sessions(self):
        """Wait until the server has noticed a death: what was sent may still be committed."""
        at_work = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND starts_with(application_name, 'hubspot_deals_sync')"
        )
        while self.rows(at_work):
            time.sleep(0.02)

    @property
    def last_run(self):
        return self.row(
            "SELECT * FROM hubspot_deals.sync_runs WHERE connection_id = %s"
            " ORDER BY run_no DESC LIMIT 1",
            self.name,
        )

    @property
    def last_change(self):
        return self.row(
            "SELECT coalesce(max(seq), 0) AS n FROM hubspot_deals_current.deal_changes"
        )["n"]

    def copy(self):
        """The tables as the warehouse in plain Python has them."""
        warehouse = Warehouse()
        warehouse.deals = {
            row["id"]: row["properties"]
            for row in self.rows(
                "SELECT id, properties FROM hubspot_deals_current.deals_current"
                " WHERE connection_id = %s",
                self.name,
            )
        }
        warehouse.tombstones = {
            row["deal_id"]: (End(row["reason"]), row["survivor"])
            for row in self.rows(
                "SELECT deal_id, reason, survivor FROM hubspot_deals_current.deal_tombstones"
                " WHERE connection_id = %s AND restored_at IS NULL",
                self.name,
            )
        }
        return warehouse

    def faults(self, *, ignored=frozenset(), **options):
        """What the tables have that is not so, apart from deals that may be on their way."""
        copy = self.copy()
        wrong = differences(copy, self.sandbox, ignored=ignored, **options)
        wrong += [f"{end} is wrong" for end in wrong_ends(copy, self.sandbox, ignored=ignored)]
        wrong += [f"{one} is live and gone" for one in copy.deals.keys() & copy.tombstones.keys()]
        return wrong

    def replay(self, deals, after=0):
        """Apply the changes after a number to deals by id; each has to fit what is there."""
        for row in self.rows(
            "SELECT * FROM hubspot_deals_current.deal_changes"
            " WHERE connection_id = %s AND seq > %s ORDER BY seq",
            self.name,
            after,
        ):
            after, one = row["seq"], row["deal_id"]
            match row["kind"]:
                case "created" | "restored":
                    assert one not in deals, row
                    deals[one] = {name: new for name, (_, new) in row["changes"].items()}
                    if row["kind"] == "restored":
                        deals[one] = None
                case "updated":
                    if deals[one] is None:
                        continue
                    for name, (old, new) in row["changes"].items():
                        assert deals[one].get(name) == old, row
                        deals[one][name] = new
                case "archived" | "merged" | "deleted":
                    del deals[one]
        return after

    def close(self):
        self.database.close()


def sync_in_child(settings, order):
    """What a worker does, for a process that is killed."""
    run_sync(settings, order, log=LOG, is_cancelled=lambda: False)


def start_child(account):
    """Start a sync in a process of its own, which a server forks that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.syncs.harness"])
    order = SyncOrder(account.name, uuid.uuid4().hex)
    child = context.Process(target=sync_in_child, args=(account.settings, order), daemon=True)
    child.start()
    return child


def kill_often(account, rng, times, longest):
    """Kill so many syncs with SIGKILL at random moments of their work; return how many."""
    killed = 0
    for _ in range(10 * times):
        before = account.state["run_no"]
        child = start_child(account)
        while account.state["run_no"] == before and child.is_alive():
            time.sleep(0.01)
        child.join(rng.uniform(0, longest))
        child.kill()
        child.join()
        account.wait_for_sessions()
        begun = account.rows(
            "SELECT outcome FROM hubspot_deals.sync_runs WHERE connection_id = %s AND run_no = %s",
            account.name,
            account.state["run_no"],
        )
        if not begun:
            # It had taken the connection up, and not yet written down that it had begun.
            continue
        if begun[0]["outcome"] is None:
            killed += 1
        else:
            # It was done before its end came.
            longest *= 0.7
        if killed == times:
            return killed
    msg = f"{killed} of {times} syncs were killed at work"
    raise AssertionError(msg)


@contextmanager
def synced(database_url, sandbox, **options):
    account = SyncedAccount(database_url, sandbox, **options)
    try:
        yield account
    finally:
        account.close()


def check_replay(account, deals):
    """The log of changes leads from one state of the copy to the other."""
    now = account.copy().deals
    assert deals.keys() == now.keys()
    for one, properties in deals.items():
        if properties is not None:
            assert {k: v for k, v in now[one].items() if v is not None} == {
                k: v for k, v in properties.items() if v is not None
            }
