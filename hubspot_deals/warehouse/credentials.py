"""Encrypts access tokens for storage and decrypts them inside the run that uses them."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from hubspot_deals.errors import ConfigurationError, CredentialError

_KEY_BYTES = 32
_NONCE_BYTES = 12
_ACCOUNT_LETTERS = 16
_FORM = "a comma list of KEY_ID:BASE64 with 32 bytes each, the first one used to encrypt"


@dataclass(frozen=True, slots=True)
class SealedToken:
    """An encrypted access token and the name of the key that opens it."""

    key_id: str
    nonce: bytes
    ciphertext: bytes
    account: str | None = None
    """The same for each use of one token under one key; without the key, nobody can guess at it."""


class KeyRing:
    """The encryption keys of this installation; the first one encrypts, all of them decrypt."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)
        self._primary = next(iter(self._keys))

    @property
    def primary(self) -> str:
        """The id of the key that seals."""
        return self._primary

    @property
    def ids(self) -> frozenset[str]:
        """The ids of all keys that open."""
        return frozenset(self._keys)

    @classmethod
    def parse(cls, text: SecretStr) -> "KeyRing":
        """Read `ID:BASE64,ID:BASE64…`; raises ConfigurationError without quoting the text."""
        keys: dict[str, bytes] = {}
        for entry in text.get_secret_value().split(","):
            key_id, _, encoded = entry.strip().partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except ValueError:  # of a letter outside ASCII, or binascii.Error
                key = b""
            if not key_id or len(key) != _KEY_BYTES or key_id in keys:
                msg = f"HUBSPOT_DEALS_ENCRYPTION_KEYS must be {_FORM}"
                raise ConfigurationError(msg)
            keys[key_id] = key
        return cls(keys)

    def seal(self, token: SecretStr, *, bound_to: str) -> SealedToken:
        """Encrypt a token so that it decrypts only together with `bound_to`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        ciphertext = AESGCM(self._keys[self._primary]).encrypt(
            nonce, token.get_secret_value().encode(), bound_to.encode()
        )
        return SealedToken(self._primary, nonce, ciphertext, self._name_account(token))

    def _name_account(self, token: SecretStr) -> str:
        text = token.get_secret_value().encode()
        digest = hmac.digest(self._keys[self._primary], b"account:" + text, hashlib.sha256)
        return digest.hex()[:_ACCOUNT_LETTERS]

    def open(self, sealed: SealedToken, *, bound_to: str) -> SecretStr:
        """Decrypt a token; raises CredentialError when the key or the row is not the right one."""
        key = self._keys.get(sealed.key_id)
        if key is None:
            msg = f"The credential of {bound_to} needs encryption key {sealed.key_id!r}; add it."
            raise CredentialError(msg)
        try:
            plain = AESGCM(key).decrypt(sealed.nonce, sealed.ciphertext, bound_to.encode())
        except (InvalidTag, ValueError):  # ValueError: a nonce of the wrong length
            msg = f"The credential of {bound_to} does not decrypt: it was changed or moved."
            raise CredentialError(msg) from None
        return SecretStr(plain.decode())
