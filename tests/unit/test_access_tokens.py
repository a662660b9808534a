"""Which JWTs are accepted: one form, and none of the ways to forge it."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
import warnings

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pydantic import SecretStr

from api.access import key_set
from api.access.key_set import KeySet
from api.access.tokens import TokenReader, build_token_reader
from api.errors import KeySetUnavailableError, UnauthenticatedError
from api.settings import ApiSettings
from hubspot_deals.contract import AccessLevel
from hubspot_deals.errors import ConfigurationError

SECRET = "r8Yw2-Zq5LxN0vKp7TfHs3JdB6mGcE1uA9oRiQ4"
SECRET_BYTES = SECRET.encode()
ISSUER, AUDIENCE = "https://issuer.example", "hubspot-deals"
RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
SHORT_RSA = rsa.generate_private_key(public_exponent=65_537, key_size=1_024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PEM = RSA.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


KINDS = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)


def settings(**values):
    return ApiSettings(
        database_url=SecretStr("-"),
        encryption_keys=SecretStr("-"),
        **{"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE} | values,
    )


def claims(**changes):
    now = int(time.time())
    known = {
        "sub": "service-1",
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + 300,
        "organizations": ["org-1"],
        "level": "run",
    } | changes
    return {name: value for name, value in known.items() if value is not None}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(header, payload, key=SECRET_BYTES, digest=hashlib.sha256):
    """A token of any header, signed with HMAC: what no library would make."""
    texts = [
        value if isinstance(value, bytes) else json.dumps(value).encode()
        for value in (header, payload)
    ]
    signed = ".".join(map(b64, texts))
    return f"{signed}.{b64(hmac.new(key, signed.encode(), digest).digest())}"


def shared(header=None, **changes):
    return by_hand({"alg": "HS256", "typ": "JWT"} | (header or {}), claims(**changes))


def public_jwk(private, kid, **more):
    algorithm = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }[next(kind for kind in KINDS if isinstance(private, kind))]
    return algorithm.to_jwk(private.public_key(), as_dict=True) | {"kid": kid} | more


KEY_SET = {
    "keys": [
        public_jwk(RSA, "rsa", alg="RS256", use="sig"),
        public_jwk(EC, "ec"),
        public_jwk(ED, "ed"),
        public_jwk(OTHER_RSA, "encryption", use="enc"),
        public_jwk(SHORT_RSA, "short"),
        {"kty": "oct", "kid": "shared", "k": b64(SECRET.encode()), "alg": "HS256"},
        {"kty": "unheard-of", "kid": "odd"},
        "no key at all",
    ]
}


@pytest.fixture
def reader():
    return build_token_reader(settings(jwt_secret=SecretStr(SECRET)))


@pytest.fixture
def key_reader(tmp_path):
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(KEY_SET))
    return build_token_reader(settings(jwt_key_set=str(file)))


def read(reader: TokenReader, token):
    return asyncio.run(reader.read(token))


def signed(key, algorithm, kid, header=None, **changes):
    with warnings.catch_warnings():
        # One key is too short on purpose.
        warnings.simplefilter("ignore")
        return jwt.encode(claims(**changes), key, algorithm, headers={"kid": kid} | (header or {}))


def test_a_token_says_who_calls_for_whom_and_what_that_caller_may_do(reader):
    actor = read(reader, shared())

    assert (actor.name, actor.level) == ("jwt:service-1", AccessLevel.RUN)
    assert actor.organizations == frozenset({"org-1"})
    assert read(reader, shared(organizations="*")).organizations is None
    assert read(reader, shared(organizations="org-2")).organizations == frozenset({"org-2"})
    assert read(reader, shared(aud=["other", AUDIENCE])).name == "jwt:service-1"
    # Clocks differ by some seconds.
    assert read(reader, shared(exp=int(time.time()) - 10)).name == "jwt:service-1"


def test_the_claims_can_have_other_names():
    names = {"jwt_organizations_claim": "https://acme/orgs", "jwt_level_claim": "role"}
    reader = build_token_reader(settings(jwt_secret=SecretStr(SECRET), **names))

    actor = read(reader, shared(**{"https://acme/orgs": ["a", "b"], "role": "admin"}))

    assert (actor.organizations, actor.level) == (frozenset({"a", "b"}), AccessLevel.ADMIN)


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(RSA, "RS256", "rsa"), (EC, "ES256", "ec"), (ED, "EdDSA", "ed")]
)
def test_a_token_of_a_published_key_is_accepted(key_reader, key, algorithm, kid):
    assert read(key_reader, signed(key, algorithm, kid)).name == "jwt:service-1"


NOW = int(time.time())
FORGED = {
    "alg none": by_hand({"alg": "none", "typ": "JWT"}, claims()),
    "alg none without signature": f"{shared({'alg': 'none'}).rpartition('.')[0]}.",
    "alg nOnE": by_hand({"alg": "nOnE"}, claims()),
    "no alg": by_hand({"typ": "JWT"}, claims()),
    "alg is a list": by_hand({"alg": ["HS256"]}, claims()),
    "empty signature": f"{shared().rpartition('.')[0]}.",
    "no signature": shared().rpartition(".")[0],
    "changed payload": ".".join(
        [
            shared().split(".")[0],
            b64(json.dumps(claims(level="admin")).encode()),
            shared().split(".")[2],
        ]
    ),
    "cut signature": shared()[:-6],
    "another secret": by_hand({"alg": "HS256"}, claims(), key=SECRET.lower().encode()),
    "empty secret": by_hand({"alg": "HS256"}, claims(), key=b""),
    "another hash": by_hand({"alg": "HS512"}, claims(), digest=hashlib.sha512),
    "HS256 said, SHA-512 done": by_hand({"alg": "HS256"}, claims(), digest=hashlib.sha512),
    "an RSA signature": jwt.encode(claims(), RSA, "RS256"),
    "expired": shared(exp=NOW - 3_600),
    "never expires": shared(exp=None),
    "expires at a text": shared(exp="tomorrow"),
    "expires at infinity": by_hand(
        {"alg": "HS256"}, json.dumps(claims()).replace(str(claims()["exp"]), "1e999").encode()
    ),
    "not yet": shared(nbf=NOW + 3_600),
    "issued in the future": shared(iat=NOW + 3_600),
    "another audience": shared(aud="another-service"),
    "no audience": shared(aud=None),
    "audience is a prefix": shared(aud=AUDIENCE[:-1]),
    "another issuer": shared(iss="https://issuer.example.evil"),
    "no issuer": shared(iss=None),
    "issuer is a list": shared(iss=[ISSUER, "https://evil.example"]),
    "no subject": shared(sub=None),
    "subject with a line break": shared(sub="service\nkey:12345678"),
    "subject too long": shared(sub="s" * 201),
    "no organizations": shared(organizations=None),
    "empty organizations": shared(organizations=[]),
    "all among organizations": shared(organizations=["org-1", "*"]),
    "organizations are numbers": shared(organizations=[1]),
    "organizations are an object": shared(organizations={"org-1": True}),
    "no level": shared(level=None),
    "unknown level": shared(level="root"),
    "level in capitals": shared(level="ADMIN"),
    "critical extension": shared({"crit": ["exp"]}),
    "unencoded payload": shared({"crit": ["b64"], "b64": False}),
    "its own key": shared({"jwk": {"kty": "oct", "k": b64(b"0" * 32)}}),
    "its own key's address": shared({"jku": "https://evil.example/keys"}),
    "its own certificate": shared({"x5u": "https://evil.example/cert"}),
    "compressed": shared({"zip": "DEF"}),
    "another type": shared({"typ": "dpop+jwt"}),
    "kid is a path": by_hand({"alg": "HS256", "kid": "/dev/null"}, claims(), key=b""),
    "kid is SQL": by_hand({"alg": "HS256", "kid": "' UNION SELECT 'x"}, claims(), key=b"x"),
    "kid is a number": by_hand({"alg": "HS256", "kid": 7}, claims()),
    "payload is a list": by_hand({"alg": "HS256"}, [claims()]),
    "payload is no JSON": by_hand({"alg": "HS256"}, b"\xff\xfe"),
    "header is a list": by_hand(["HS256"], claims()),
    "deep header": by_hand(b'{"alg":"HS256","a":' + b"[" * 5_000 + b"]" * 5_000 + b"}", claims()),
    "huge": "A" * 1_000_000,
    "five parts": f"{shared()}.{shared()}",
    "dots": "....",
    "nothing": "",
    "not ASCII": shared().replace(".", "·"),
    "encrypted": "..".join([b64(b'{"alg":"dir","enc":"A128GCM"}'), "AAAA.AAAA.AAAA"]),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_refused_without_saying_why(reader, name):
    with pytest.raises(UnauthenticatedError) as refusal:
        read(reader, FORGED[name])
    assert str(refusal.value) == str(UnauthenticatedError.of_invalid())
    assert refusal.value.__cause__ is None


OF_KEYS = {
    "the public key as a secret": by_hand({"alg": "HS256", "kid": "rsa"}, claims(), key=PEM),
    "the shared secret in the set": by_hand({"alg": "HS256", "kid": "shared"}, claims()),
    "a secret": shared(),
    "another RSA algorithm": signed(RSA, "RS512", "rsa"),
    "padding that the key is not for": signed(RSA, "PS256", "rsa"),
    "another key's name": signed(EC, "ES256", "rsa"),
    "another key": signed(OTHER_RSA, "RS256", "rsa"),
    "an unknown key": signed(RSA, "RS256", "unheard-of"),
    "no key's name": jwt.encode(claims(), RSA, "RS256"),
    "a key for encryption": signed(OTHER_RSA, "RS256", "encryption"),
    "a key that is too short": signed(SHORT_RSA, "RS256", "short"),
    "its own key": signed(OTHER_RSA, "RS256", "rsa", {"jwk": public_jwk(OTHER_RSA, "rsa")}),
    "its own certificates": signed(OTHER_RSA, "RS256", "rsa", {"x5c": ["MIIB"]}),
    "a signature of zeros": signed(EC, "ES256", "ec").rpartition(".")[0] + "." + b64(bytes(64)),
    "alg none": by_hand({"alg": "none", "kid": "rsa"}, claims()),
    "another audience": signed(RSA, "RS256", "rsa", aud="another-service"),
}


@pytest.mark.parametrize("name", OF_KEYS)
def test_a_token_that_no_published_key_signed_is_refused(key_reader, name):
    with pytest.raises(UnauthenticatedError):
        read(key_reader, OF_KEYS[name])


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"jwt_secret": "short"}, "JWT_SECRET is too weak"),
        ({"jwt_secret": "secret" * 20}, "JWT_SECRET is too weak"),
        ({"jwt_secret": SECRET, "jwt_issuer": ""}, "JWT_ISSUER"),
        ({"jwt_secret": SECRET, "jwt_audience": ""}, "JWT_AUDIENCE"),
        ({"jwt_secret": SECRET, "jwt_key_set": "/keys.json"}, "either"),
        ({"jwt_key_set": "http://issuer.example/keys"}, "JWT_KEY_SET"),
        ({"jwt_key_set": "https://user:word@issuer.example/keys"}, "JWT_KEY_SET"),
        ({"jwt_key_set": "file:///etc/keys"}, "JWT_KEY_SET"),
        ({"jwt_key_set": "https://[issuer/keys"}, "JWT_KEY_SET"),
    ],
)
def test_settings_that_would_not_be_safe_are_refused_without_quoting_a_secret(values, named):
    secret = SecretStr(values.get("jwt_secret", ""))
    with pytest.raises(ConfigurationError, match=named) as refusal:
        build_token_reader(settings(**values | {"jwt_secret": secret}))
    assert values.get("jwt_secret", SECRET) not in str(refusal.value)


def test_without_secret_and_keys_no_token_is_read():
    assert build_token_reader(settings(jwt_issuer="", jwt_audience="")) is None


class Issuer:
    """Serves a key set, and counts how often."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), 0

    def __call__(self, _):
        self.requests += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def keys_of(issuer):
    return KeySet("https://issuer.example/keys", httpx.MockTransport(issuer))


def test_keys_are_fetched_once_for_many_tokens():
    issuer = Issuer(httpx.Response(200, json=KEY_SET))
    keys = keys_of(issuer)

    async def ask():
        found = await asyncio.gather(*(keys.find("rsa") for _ in range(50)))
        return {key.key_id for key in found}, await keys.find("made-up"), await keys.find("other")

    assert asyncio.run(ask()) == ({"rsa"}, None, None)
    assert issuer.requests == 1


def test_a_new_key_is_found_and_old_ones_are_used_while_the_issuer_is_away(monkeypatch):
    clock = [1_000.0]
    monkeypatch.setattr(key_set.time, "monotonic", lambda: clock[0])
    later = {"keys": [public_jwk(RSA, "new"), public_jwk(EC, "ec")]}
    issuer = Issuer(
        httpx.Response(200, json=KEY_SET), httpx.Response(200, json=later), httpx.Response(500)
    )
    keys = keys_of(issuer)

    async def find(kid):
        key = await keys.find(kid)
        return key and key.key_id

    async def ask():
        assert await find("new") is None
        clock[0] += 31
        assert await find("new") == "new"
        # What the issuer has withdrawn is withdrawn.
        assert await find("rsa") is None
        clock[0] += 3_000
        assert await find("new") == "new"
        clock[0] += 700
        with pytest.raises(KeySetUnavailableError):
            await find("new")

    asyncio.run(ask())


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(302, headers={"Location": "https://evil.example/keys"}),
        httpx.Response(200, content=b" " * 300_000 + json.dumps(KEY_SET).encode()),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, json=[KEY_SET]),
        httpx.Response(404, json=KEY_SET),
    ],
)
def test_what_is_no_key_set_brings_no_keys(answer):
    with pytest.raises(KeySetUnavailableError):
        asyncio.run(keys_of(Issuer(answer)).find("rsa"))


def test_a_missing_file_brings_no_keys(tmp_path):
    with pytest.raises(KeySetUnavailableError):
        asyncio.run(KeySet(str(tmp_path / "none")).find("rsa"))
