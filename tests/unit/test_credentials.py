"""Stored tokens open only with their key, in their row, unchanged."""

import base64
from dataclasses import replace

import pytest
from pydantic import SecretStr

from hubspot_deals.errors import ConfigurationError, CredentialError
from hubspot_deals.warehouse.credentials import KeyRing

TOKEN = SecretStr("canary-token-0123456789")


def encoded(byte, size=32):
    return base64.b64encode(bytes([byte]) * size).decode()


def ring(*entries):
    return KeyRing.parse(SecretStr(",".join(entries)))


OLD, NEW = f"old:{encoded(1)}", f"new:{encoded(2)}"


def test_a_token_comes_back_and_its_ciphertext_does_not_show_it():
    keys = ring(OLD)
    sealed = keys.seal(TOKEN, bound_to="scan-1")
    assert keys.open(sealed, bound_to="scan-1") == TOKEN
    assert b"canary" not in sealed.ciphertext
    assert keys.seal(TOKEN, bound_to="scan-1").ciphertext != sealed.ciphertext


def test_a_ciphertext_in_another_row_does_not_decrypt():
    keys = ring(OLD)
    sealed = keys.seal(TOKEN, bound_to="scan-1")
    with pytest.raises(CredentialError, match="scan-2"):
        keys.open(sealed, bound_to="scan-2")


@pytest.mark.parametrize(
    "change",
    [
        {"ciphertext": b""},
        {"ciphertext": b"short"},
        {"nonce": b""},
        {"nonce": b"1234567"},
        {"nonce": bytes(12)},
        {"nonce": bytes(500)},
        {"key_id": "new"},
    ],
)
def test_a_changed_credential_does_not_decrypt(change):
    keys = ring(OLD, NEW)
    sealed = replace(keys.seal(TOKEN, bound_to="scan-1"), **change)
    with pytest.raises(CredentialError, match="does not decrypt") as raised:
        keys.open(sealed, bound_to="scan-1")
    assert "canary" not in str(raised.value)


def test_every_bit_of_a_ciphertext_counts():
    keys = ring(OLD)
    sealed = keys.seal(TOKEN, bound_to="scan-1")
    for position in range(len(sealed.ciphertext)):
        spoiled = bytearray(sealed.ciphertext)
        spoiled[position] ^= 1
        with pytest.raises(CredentialError):
            keys.open(replace(sealed, ciphertext=bytes(spoiled)), bound_to="scan-1")


def test_a_missing_key_is_named():
    sealed = ring(OLD).seal(TOKEN, bound_to="scan-1")
    with pytest.raises(CredentialError, match="'old'"):
        ring(NEW).open(sealed, bound_to="scan-1")


def test_after_a_rotation_the_new_key_seals_and_both_open():
    before = ring(OLD).seal(TOKEN, bound_to="scan-1")
    rotated = ring(NEW, OLD)
    after = rotated.seal(TOKEN, bound_to="scan-1")
    assert (before.key_id, after.key_id) == ("old", "new")
    assert (
        rotated.open(before, bound_to="scan-1") == rotated.open(after, bound_to="scan-1") == TOKEN
    )


def test_an_account_is_told_by_its_token_and_only_under_the_key():
    keys = ring(OLD)
    sealed = keys.seal(TOKEN, bound_to="scan-1")
    assert keys.seal(TOKEN, bound_to="scan-2").account == sealed.account
    assert keys.seal(SecretStr("another"), bound_to="scan-1").account != sealed.account
    assert ring(NEW).seal(TOKEN, bound_to="scan-1").account != sealed.account


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "canary",
        "canary:",
        f":{encoded(3)}",
        f"canary:{encoded(3, 31)}",
        f"canary:{encoded(3, 33)}",
        f"canary:{encoded(3)},",
        f"canary:{encoded(3)},canary:{encoded(4)}",
        "canary:" + "!" * 44,
        "canary:" + "ä" * 44,
        f"canary:{encoded(3)[:-1]}",
    ],
)
def test_a_malformed_key_ring_is_refused_without_quoting_it(text):
    with pytest.raises(ConfigurationError, match="HUBSPOT_DEALS_ENCRYPTION_KEYS") as raised:
        KeyRing.parse(SecretStr(text))
    assert "canary" not in str(raised.value)
    assert encoded(3) not in str(raised.value)
