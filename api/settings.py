"""The REST facade's settings, read from the environment as `HUBSPOT_DEALS_…`.

`docs/configuration.md` and `.env.example` list every one; a test compares them with this class.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from hubspot_deals.settings import PREFIX


class ApiSettings(BaseSettings):
    """What the REST facade needs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)

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
    # An environment variable is a text, which a literal number would refuse.
    health_unhealthy_status: Annotated[Literal[500, 503], BeforeValidator(int)] = Field(
        default=503, description="HTTP status of the health check while the service is unhealthy."
    )
    log_format: Literal["plain", "json"] = Field(
        default="plain", description="Form of the log lines of API and runs: `plain` or `json`."
    )
    traces_endpoint: str = Field(
        default="",
        description="OTLP/HTTP address that traces are sent to (extra `otel`); empty: no traces.",
    )
