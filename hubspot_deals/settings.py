"""The pipeline's settings, read from the environment as `HUBSPOT_DEALS_…`, or from files.

`docs/configuration.md` and `.env.example` list every one; a test compares them with this class.
"""

from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import Field, HttpUrl, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from hubspot_deals.errors import ConfigurationError

PREFIX: Final = "HUBSPOT_DEALS_"
API_VERSION_PATTERN: Final = r"^(v3|20\d\d-(03|09))$"
_Settings = TypeVar("_Settings", bound=BaseSettings)


class SecretsFolder(BaseSettings):
    """Where container platforms lay secrets, one to a file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True)

    secrets_dir: Path = Field(
        default=Path("/run/secrets"),
        description="Folder of files named like settings, such as `hubspot_deals_database_url`.",
    )


class Settings(BaseSettings):
    """Settings of the environment; one that is not there, or empty, may be a file's content."""

    # A copied .env.example leaves secrets empty, which must not hide their files.
    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment before the folder of secrets, which need not exist."""
        del dotenv_settings, file_secret_settings
        folder = SecretsFolder().secrets_dir
        files = SecretsSettingsSource(settings_cls, folder if folder.is_dir() else None)
        return init_settings, env_settings, files


class HubSpotSettings(Settings):
    """How HubSpot is reached, and how much of it may be used."""

    hubspot_url: HttpUrl = Field(
        default=HttpUrl("https://api.hubapi.com"), description="Base URL of the HubSpot API."
    )
    hubspot_api_version: str = Field(
        default="2026-03",
        pattern=API_VERSION_PATTERN,
        description="HubSpot API version: a date version such as `2026-03`, or `v3`.",
    )
    searches_per_second: float = Field(
        default=5.0,
        gt=0,
        le=1_000,
        description="HubSpot's search limit of one account, per second.",
    )
    hubspot_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Part of HubSpot's request budgets that scans use at most, together.",
    )
    request_timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        le=600,
        description="Longest silence of one HubSpot request, in seconds.",
    )
    retry_seconds: float = Field(
        default=300.0,
        gt=0,
        le=86_400,
        description="Longest time one HubSpot request is retried, in seconds.",
    )


class PipelineSettings(HubSpotSettings):
    """What the code location and its run workers need."""

    database_url: SecretStr = Field(description="PostgreSQL for scans and rows, as a libpq URL.")
    encryption_keys: SecretStr = Field(
        description="Key ring for stored access tokens: `ID:BASE64` of 32 bytes, comma separated; "
        "the first one encrypts, all decrypt."
    )
    chunk_rows: int = Field(
        default=4_000, ge=100, le=10_000, description="Most deals in one committed chunk."
    )
    chunk_seconds: float = Field(
        default=2.0, gt=0, le=10, description="Longest time one chunk is read for, in seconds."
    )
    retention_days: int = Field(
        default=0,
        ge=0,
        le=36_500,
        description="Days after which the results of ended scans are removed; 0 keeps them.",
    )
    audit_days: int = Field(
        default=365,
        ge=0,
        le=36_500,
        description="Days after which entries of the audit log are deleted; 0 keeps them.",
    )
    credential_hours: int = Field(
        default=24,
        ge=0,
        le=8_760,
        description="Hours after a scan's end for which its access token is kept, for reruns by "
        "hand.",
    )
    log_format: Literal["plain", "json"] = Field(
        default="plain", description="Form of the log lines of API and runs: `plain` or `json`."
    )
    traces_endpoint: str = Field(
        default="",
        description="OTLP/HTTP address that traces are sent to (extra `otel`); empty: no traces.",
    )


def load_settings(settings: type[_Settings]) -> _Settings:
    """Read settings; raises ConfigurationError that names every missing or wrong variable."""
    try:
        return settings()
    except (SettingsError, OSError) as error:
        # Not chained: a file that is no text would be quoted.
        msg = f"Settings cannot be read: {error}. See docs/configuration.md."
        raise ConfigurationError(msg) from None
    except ValidationError as error:
        faults = "; ".join(
            f"{PREFIX}{'.'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        msg = f"Settings cannot be used: {faults}. See docs/configuration.md."
        raise ConfigurationError(msg) from None
