"""The REST facade's settings, read from the environment as `HUBSPOT_DEALS_…`, or from files.

`docs/configuration.md` and `.env.example` list every one; a test compares them with this class.
"""

import re
from pathlib import Path
from typing import Annotated, Final, Literal

import limits
from pydantic import AfterValidator, BeforeValidator, Field, HttpUrl, SecretStr

from hubspot_deals.settings import Settings

_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?")


def _check_limit(text: str) -> str:
    if len(limits.parse_many(text)) != 1 or limits.parse(text).amount < 1:
        msg = "must be one limit, such as 100/hour"
        raise ValueError(msg)
    return text


def _check_origins(text: str) -> str:
    for origin in filter(None, text.split(",")):
        if not _ORIGIN.fullmatch(origin):
            msg = "must be origins such as https://app.example.com, with commas between them"
            raise ValueError(msg)
    return text


RateLimit = Annotated[str, AfterValidator(_check_limit)]
"""Requests of one caller in a window: a number, `/`, and `second`, `minute`, `hour` or `day`."""


class ApiSettings(Settings):
    """What the REST facade needs."""

    database_url: SecretStr = Field(description="PostgreSQL for scans and rows, as a libpq URL.")
    encryption_keys: SecretStr = Field(
        description="Key ring for stored access tokens: `ID:BASE64` of 32 bytes, comma separated; "
        "the first one encrypts, all decrypt."
    )
    dagster_url: HttpUrl = Field(
        default=HttpUrl("http://127.0.0.1:3000"), description="Base URL of the Dagster webserver."
    )
    hubspot_url: HttpUrl = Field(
        default=HttpUrl("https://api.hubapi.com"), description="Base URL of the HubSpot API."
    )
    database_pool_size: int = Field(
        default=10, ge=1, le=100, description="Most database connections of one API process."
    )
    max_body_bytes: int = Field(
        default=1_048_576, ge=1_024, description="Largest request body that is read, in bytes."
    )
    body_seconds: float = Field(
        default=30.0, gt=0, le=600, description="Longest time until a request body has arrived."
    )
    rate_limits: Literal["on", "off"] = Field(
        default="on", description="Whether requests of one caller are limited."
    )
    rate_limit_scans: RateLimit = Field(
        default="100/hour",
        description="Requests that change something: start, pause, resume, cancel, remove.",
    )
    rate_limit_results: RateLimit = Field(
        default="1000/hour", description="Requests that read: status, list, results."
    )
    rate_limit_maintenance: RateLimit = Field(
        default="10/hour", description="Clean-ups and searches for crashed scans."
    )
    rate_limit_health: RateLimit = Field(default="60/minute", description="Health and statistics.")
    cors_origins: Annotated[str, AfterValidator(_check_origins)] = Field(
        default="",
        description="Origins whose pages may call the API from a browser, with commas between.",
    )
    auto_resumes: int = Field(
        default=5,
        ge=0,
        le=100,
        description="How often in a row a crashed scan is resumed by itself; progress starts the "
        "count anew; 0 turns it off.",
    )
    download_dir: Path = Field(
        default=Path("/var/tmp"),  # noqa: S108 - a folder is made in it, readable for us only
        description="Folder in which files for downloads are written and kept for a while.",
    )
    download_bytes: int = Field(
        default=20_000_000_000, ge=1_000_000, description="Most bytes of those files together."
    )
    download_minutes: int = Field(
        default=60, ge=1, le=1_440, description="How long a file is kept that nobody asks for."
    )
    download_processes: int = Field(
        default=5, ge=1, le=50, description="How many files are written at once; others wait."
    )
    environment: Literal["development", "production"] = Field(
        default="development", description="In `production` callers always need a credential."
    )
    auth_mode: Literal["open", "required"] = Field(
        default="required",
        description="`required`: callers need an API key or a JWT. `open`: they do not, but only "
        "requests from this machine, without a proxy in between, are served.",
    )
    jwt_secret: SecretStr = Field(
        default=SecretStr(""), description="Secret of HS256 tokens, 32 random bytes or more."
    )
    jwt_key_set: str = Field(
        default="", description="Instead: https address or path of the issuer's public keys (JWKS)."
    )
    jwt_issuer: str = Field(default="", description="What `iss` of a token has to be.")
    jwt_audience: str = Field(default="", description="What `aud` of a token has to be or hold.")
    jwt_organizations_claim: str = Field(
        default="organizations", min_length=1, description="Claim with the organizations, or `*`."
    )
    jwt_level_claim: str = Field(
        default="level", min_length=1, description="Claim with `read`, `run` or `admin`."
    )
    # An environment variable is a text, which a literal number would refuse.
    health_unhealthy_status: Annotated[Literal[500, 503], BeforeValidator(int)] = Field(
        default=503, description="HTTP status of the health check while the service is unhealthy."
    )
    webhook_concurrency: int = Field(
        default=64,
        ge=0,
        le=1_000,
        description="Webhook deliveries that one API process makes at once; 0 leaves them to "
        "others.",
    )
    webhook_log_days: int = Field(
        default=30, ge=1, le=3_650, description="Days that the log of ended deliveries is kept."
    )
    webhook_allowed_networks: str = Field(
        default="",
        description="Networks that webhooks may be sent to although they are not public: CIDRs, "
        "comma separated.",
    )
    webhook_ports: str = Field(
        default="443,8443",
        description="Ports of public addresses that webhooks may be sent to, comma separated.",
    )
    webhook_allow_http: bool = Field(
        default=False, description="Whether webhooks may have `http` URLs, for local use."
    )
    log_format: Literal["plain", "json"] = Field(
        default="plain", description="Form of the log lines of API and runs: `plain` or `json`."
    )
    traces_endpoint: str = Field(
        default="",
        description="OTLP/HTTP address that traces are sent to (extra `otel`); empty: no traces.",
    )
