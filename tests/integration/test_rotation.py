"""The key ring is rotated while scans are accepted, carried out and removed."""

import asyncio
import base64
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import click.testing
import psycopg
import pytest
from pydantic import SecretStr

from hubspot_deals.cli.main import cli
from hubspot_deals.errors import CredentialError
from hubspot_deals.warehouse import rotation, webhooks
from hubspot_deals.warehouse.credentials import KeyRing, SealedToken
from hubspot_deals.warehouse.syncs.connections import bound_to, get_token
from hubspot_deals.warehouse.webhooks import NewWebhook
from tests.conftest import TEST_KEYS


def entry(name, byte):
    return f"{name}:{base64.b64encode(bytes([byte]) * 32).decode()}"


K1 = TEST_KEYS.get_secret_value()
K2, K3 = entry("k2", 2), entry("k3", 3)


def ring(*entries):
    return KeyRing.parse(SecretStr(",".join(entries)))


def seal(connection, scan_id, keys, token=None):
    sealed = keys.seal(SecretStr(token or f"token-of-{scan_id}"), bound_to=scan_id)
    connection.execute(
        "INSERT INTO hubspot_deals.scans (scan_id, organization_id, config, request_hash)"
        " VALUES (%s, 'org-1', '{}', '-') ON CONFLICT DO NOTHING",
        (scan_id,),
    )
    connection.execute(
        "INSERT INTO hubspot_deals.credentials VALUES (%s, %s, %s, %s, %s)",
        (scan_id, sealed.key_id, sealed.nonce, sealed.ciphertext, sealed.account),
    )


def unseal(connection, scan_id, keys):
    row = connection.execute(
        "SELECT key_id, nonce, ciphertext FROM hubspot_deals.credentials WHERE scan_id = %s",
        (scan_id,),
    ).fetchone()
    return keys.open(SealedToken(*row), bound_to=scan_id).get_secret_value()


def rotate(database_url, keys):
    """Rotate where nothing but tokens of scans is stored, and return what became of these."""
    done, *others = rotation.rotate(SecretStr(database_url), keys)
    assert not any(other.resealed or other.left or other.damaged for other in others)
    return done


def store_connection(connection, connection_id, keys):
    sealed = keys.seal(SecretStr(f"token-of-{connection_id}"), bound_to=bound_to(connection_id))
    connection.execute(
        "INSERT INTO hubspot_deals.connections (connection_id, organization_id, settings)"
        " VALUES (%s, 'org-1', '{}')",
        (connection_id,),
    )
    connection.execute(
        "INSERT INTO hubspot_deals.connection_credentials VALUES (%s, %s, %s, %s, %s)",
        (connection_id, sealed.key_id, sealed.nonce, sealed.ciphertext, sealed.account),
    )


def on_connection(database_url, work):
    async def carry_out():
        async with await psycopg.AsyncConnection.connect(
            database_url, autocommit=True
        ) as connection:
            return await work(connection)

    return asyncio.run(carry_out())


def test_whatever_is_sealed_is_rotated(database):
    sealed = database.execute(
        "SELECT table_name FROM information_schema.columns"
        " WHERE table_schema = 'hubspot_deals' AND column_name = 'ciphertext'"
    )
    assert {name for (name,) in sealed} == {table.name for table in rotation.SEALED_TABLES}


def test_tokens_of_connections_are_sealed_anew(database, database_url):
    for number in range(120):
        store_connection(database, f"one_{number}", ring(K1))

    report = {done.table: done for done in rotation.rotate(SecretStr(database_url), ring(K2, K1))}

    done = report["connection_credentials"]
    assert (done.resealed, done.left, done.damaged) == (120, {}, [])
    for number in range(120):
        token = get_token(database, f"one_{number}", ring(K2))
        assert token.get_secret_value() == f"token-of-one_{number}"
    (account,) = database.execute(
        "SELECT account FROM hubspot_deals.connection_credentials WHERE connection_id = 'one_7'"
    ).fetchone()
    assert account == ring(K2).seal(SecretStr("token-of-one_7"), bound_to="-").account


def test_secrets_of_webhooks_are_sealed_anew_and_sign_as_before(database, database_url):
    new = NewWebhook(
        organization_id="org-1",
        url="https://example.com/",
        receiver="example.com:443",
        events=["*"],
        description=None,
        enabled=True,
    )

    async def store(connection):
        webhook, first = await webhooks.create_webhook(connection, new, ring(K1))
        _, second = await webhooks.rotate_secret(
            connection, webhook.webhook_id, ring(K1), overlap_hours=1
        )
        return webhook.webhook_id, [second, first]

    webhook_id, plain = on_connection(database_url, store)

    report = {done.table: done for done in rotation.rotate(SecretStr(database_url), ring(K2, K1))}

    done = report["webhook_secrets"]
    assert (done.resealed, done.left, done.damaged) == (2, {}, [])
    sealed = on_connection(
        database_url, lambda connection: webhooks.find_signing_secrets(connection, [webhook_id])
    )
    assert [secret.open(ring(K2)) for secret in sealed] == plain
    with pytest.raises(CredentialError):
        sealed[0].open(ring(K1))


def test_a_token_that_is_moved_to_another_connection_is_told_and_left(database, database_url):
    for name in ("one", "other"):
        store_connection(database, name, ring(K1))
    database.execute(
        "UPDATE hubspot_deals.connection_credentials c SET nonce = o.nonce,"
        " ciphertext = o.ciphertext FROM hubspot_deals.connection_credentials o"
        " WHERE c.connection_id = 'other' AND o.connection_id = 'one'"
    )
    report = {done.table: done for done in rotation.rotate(SecretStr(database_url), ring(K2, K1))}
    done = report["connection_credentials"]
    assert (done.resealed, done.left, done.damaged) == (1, {"k1": 1}, ["other"])


def test_everything_is_sealed_anew_and_opens_without_the_old_key(database, database_url):
    for number in range(250):
        seal(database, f"scan-{number}", ring(K1), token=f"token-{number % 2}")

    done = rotate(database_url, ring(K2, K1))

    assert (done.table, done.resealed, done.left, done.damaged) == ("credentials", 250, {}, [])
    assert {unseal(database, f"scan-{n}", ring(K2)) for n in range(250)} == {"token-0", "token-1"}
    # An account is told by the key that is the first one now, as for scans that are yet to come.
    accounts = database.execute("SELECT DISTINCT account FROM hubspot_deals.credentials").fetchall()
    expected = {ring(K2).seal(SecretStr(f"token-{n}"), bound_to="-").account for n in (0, 1)}
    assert {account for (account,) in accounts} == expected
    assert rotation.rotate(SecretStr(database_url), ring(K2, K1))[0].resealed == 0


def test_what_no_key_opens_is_left_as_it_is_and_told(database, database_url):
    seal(database, "scan-1", ring(K1))
    seal(database, "scan-2", ring(K3))
    seal(database, "scan-3", ring(K1))
    database.execute(
        "UPDATE hubspot_deals.credentials SET ciphertext = 'spoiled' WHERE scan_id = 'scan-3'"
    )

    done = rotate(database_url, ring(K2, K1))

    assert (done.resealed, done.left, done.damaged) == (1, {"k1": 1, "k3": 1}, ["scan-3"])
    assert unseal(database, "scan-2", ring(K3)) == "token-of-scan-2"


def test_ciphertexts_that_are_swapped_do_not_decrypt_before_nor_after(database, database_url):
    for name in ("scan-1", "scan-2"):
        seal(database, name, ring(K1))
    swap = (
        "UPDATE hubspot_deals.credentials c SET key_id = o.key_id, nonce = o.nonce,"
        " ciphertext = o.ciphertext FROM hubspot_deals.credentials o WHERE o.scan_id <> c.scan_id"
    )
    database.execute(swap)
    for name in ("scan-1", "scan-2"):
        with pytest.raises(CredentialError, match="changed or moved"):
            unseal(database, name, ring(K1))
    assert rotation.rotate(SecretStr(database_url), ring(K2, K1))[0].resealed == 0

    database.execute(swap)
    assert rotation.rotate(SecretStr(database_url), ring(K2, K1))[0].resealed == 2
    database.execute(swap)
    with pytest.raises(CredentialError, match="changed or moved"):
        unseal(database, "scan-1", ring(K2, K1))


def test_a_row_that_somebody_holds_is_come_back_to(database, database_url):
    seal(database, "scan-1", ring(K1))
    seal(database, "scan-2", ring(K1))
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT FROM hubspot_deals.credentials WHERE scan_id = 'scan-1' FOR UPDATE")
        threading.Timer(0.6, holder.rollback).start()
        done = rotate(database_url, ring(K2, K1))
        assert (done.resealed, done.left) == (2, {})


def test_under_load_nothing_ever_fails_to_decrypt(database, database_url):
    """Two generations of processes seal and open while two rotations run at once."""
    before, after = ring(K1, K2), ring(K2, K1)
    stop, opened = threading.Event(), itertools.count()
    names = [f"scan-{number}" for number in range(300)]
    for name in names:
        seal(database, name, before)

    def work(keys, worker):
        with psycopg.connect(database_url, autocommit=True) as connection:
            for turn in itertools.takewhile(lambda _: not stop.is_set(), itertools.count()):
                if turn % 10 == 0:
                    mine = f"new-{worker}-{turn}"
                    seal(connection, mine, keys)
                    names.append(mine)
                name = names[(turn * 7 + worker) % len(names)]
                assert unseal(connection, name, keys) == f"token-of-{name}"
                next(opened)

    workers = ThreadPoolExecutor()
    working = [
        workers.submit(work, keys, number)
        for number, keys in enumerate((before, before, after, after))
    ]
    time.sleep(0.3)
    rotating = [workers.submit(rotation.rotate, SecretStr(database_url), after) for _ in range(2)]
    reports = [report for done in rotating for report in done.result()]
    time.sleep(0.3)
    stop.set()
    for done in working:
        done.result()  # raises what a worker met

    assert next(opened) > 300
    assert sum(report.resealed for report in reports) >= 300
    # The processes with the old order are gone now: this one is the last.
    last = rotate(database_url, after)
    assert (last.left, last.damaged) == ({}, [])
    assert {unseal(database, name, ring(K2)) for name in names} == {
        f"token-of-{name}" for name in names
    }


def test_scans_run_while_keys_are_rotated_to_and_fro(accept, run_job, settings):
    stop = threading.Event()

    def rotate_to_and_fro():
        turns = itertools.cycle([ring(K2, K1), ring(K1, K2)])
        return sum(
            rotation.rotate(settings.database_url, next(turns))[0].resealed
            for _ in itertools.takewhile(lambda _: not stop.is_set(), itertools.count())
        )

    for number in range(5):
        accept(f"scan-{number}")
    with ThreadPoolExecutor() as threads:
        rotating = threads.submit(rotate_to_and_fro)
        both = SecretStr(f"{K1},{K2}")
        ended = [run_job(f"scan-{n}", encryption_keys=both).success for n in range(5)]
        stop.set()
        assert rotating.result() > 20
    assert ended == [True] * 5


def run(monkeypatch, database_url, keys, *arguments):
    monkeypatch.setenv("HUBSPOT_DEALS_DATABASE_URL", database_url)
    monkeypatch.setenv("HUBSPOT_DEALS_ENCRYPTION_KEYS", keys)
    return click.testing.CliRunner().invoke(cli, ["keys", "rotate", *arguments])


def test_the_command_says_which_keys_may_be_dropped(database, database_url, monkeypatch):
    seal(database, "scan-1", ring(K1))
    seal(database, "scan-2", ring(K3))

    first = run(monkeypatch, database_url, f"{K2},{K1}")
    assert first.exit_code == 1
    assert first.output.splitlines() == [
        "credentials: 1 sealed anew with 'k2'",
        "connection_credentials: 0 sealed anew with 'k2'",
        "webhook_secrets: 0 sealed anew with 'k2'",
        "key 'k3' is still needed by 1 rows, which is not in the key ring: add it",
        "key 'k1' is not needed any more: drop it from HUBSPOT_DEALS_ENCRYPTION_KEYS everywhere",
    ]
    second = run(monkeypatch, database_url, f"{K2},{K3}", "--json")
    assert (second.exit_code, '"resealed": 1' in second.output) == (0, True)


def test_the_command_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setenv("HUBSPOT_DEALS_DATA_DIR", str(tmp_path))
    ended = click.testing.CliRunner().invoke(cli, ["keys", "rotate"])
    assert ended.exit_code == 2
    assert "HUBSPOT_DEALS_ENCRYPTION_KEYS" in ended.output
