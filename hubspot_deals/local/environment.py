"""What the processes of the stack are told: the one place that builds their environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from hubspot_deals.errors import ConfigurationError
from hubspot_deals.launcher.storage_settings import dagster_storage_url
from hubspot_deals.local.ports import LOOPBACK
from hubspot_deals.settings import PREFIX

ENCRYPTION_KEYS: Final = f"{PREFIX}ENCRYPTION_KEYS"
_SCHEMES: Final = ("postgresql", "postgres")
_SECRET_PARAMETERS: Final = ("password", "sslpassword")
_OF_THE_COMMAND_LINE: Final = ("ACCESS_TOKEN", "API_KEY", "API_URL", "DATA_DIR")


@dataclass(frozen=True, slots=True)
class StackAddresses:
    """Where the parts of one stack meet."""

    database_url: str
    hubspot_url: str
    code_server_port: int
    sync_server_port: int
    dagster_port: int
    api_port: int

    @property
    def api_url(self) -> str:
        """The REST facade."""
        return f"http://{LOOPBACK}:{self.api_port}"

    @property
    def dagster_url(self) -> str:
        """Dagster's webserver."""
        return f"http://{LOOPBACK}:{self.dagster_port}"


def caller_environment() -> dict[str, str]:
    """Return a copy of this process's environment, to pass on to children."""
    # Settings are read with pydantic-settings; this is the whole environment, for other programs.
    return dict(os.environ)  # noqa: TID251


def child_environment(
    caller: Mapping[str, str],
    addresses: StackAddresses,
    dagster_home: Path,
    encryption_keys: str,
) -> dict[str, str]:
    """Return the environment of the pipeline's and the API's processes.

    Tuning that the caller has set is kept; what this stack decides replaces the caller's, and a
    Dagster instance or an access token of the caller stays out.
    """
    return plain_environment(caller) | {
        # Everything listens on loopback.
        f"{PREFIX}AUTH_MODE": "open",
        **{name: value for name, value in caller.items() if _is_tuning(name)},
        f"{PREFIX}DATABASE_URL": addresses.database_url,
        f"{PREFIX}DAGSTER_STORAGE_URL": dagster_storage_url(addresses.database_url),
        ENCRYPTION_KEYS: encryption_keys,
        f"{PREFIX}HUBSPOT_URL": addresses.hubspot_url,
        f"{PREFIX}DAGSTER_URL": addresses.dagster_url,
        f"{PREFIX}CODE_SERVER_HOST": LOOPBACK,
        f"{PREFIX}CODE_SERVER_PORT": str(addresses.code_server_port),
        f"{PREFIX}SYNC_SERVER_HOST": LOOPBACK,
        f"{PREFIX}SYNC_SERVER_PORT": str(addresses.sync_server_port),
        "DAGSTER_HOME": str(dagster_home),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
    }


def connection_environment(caller: Mapping[str, str]) -> dict[str, str]:
    """Return the token of the account that is to be kept current, for the migration alone.

    None without an organization: then it is the command line's.
    """
    token, organization = f"{PREFIX}ACCESS_TOKEN", f"{PREFIX}ORGANIZATION_ID"
    return {token: caller[token]} if caller.get(token) and caller.get(organization) else {}


def plain_environment(caller: Mapping[str, str]) -> dict[str, str]:
    """Return the caller's environment without any setting of this product or of Dagster.

    A proxy of the caller is kept for what is outside; the parts of a stack meet without it.
    """
    kept = {
        name: value for name, value in caller.items() if not name.startswith((PREFIX, "DAGSTER_"))
    }
    # A line reaches the log when it is written, not when a buffer is full.
    return kept | _without_proxy(caller) | {"PYTHONUNBUFFERED": "1"}


def libpq_url(text: str) -> str:
    """Return a database URL that libpq reads; raises ConfigurationError without quoting it."""
    msg = "--database-url must look like postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ConfigurationError(msg) from None
    scheme = parts.scheme.partition("+")[0]
    if scheme not in _SCHEMES or not parts.path.strip("/"):
        raise ConfigurationError(msg)
    return urlunsplit(parts._replace(scheme="postgresql"))


def without_password(url: str) -> str:
    """Return a URL as it may be printed."""
    parts = urlsplit(url)
    netloc = parts.netloc
    if parts.password is not None:
        netloc = f"{_user(parts)}:***@{netloc.rpartition('@')[2]}"
    shown = [
        f"{name}=***" if unquote(name) in _SECRET_PARAMETERS else parameter
        for parameter, name in _parameters(parts)
    ]
    return urlunsplit(parts._replace(netloc=netloc, query="&".join(shown)))


def split_password(url: str) -> tuple[str, str | None]:
    """Return a database URL without its password, and the password, None when it has none."""
    parts = urlsplit(url)
    password, netloc, kept = parts.password, parts.netloc, []
    if password is not None:
        netloc = f"{_user(parts)}@{netloc.rpartition('@')[2]}"
    for parameter, name in _parameters(parts):
        if unquote(name) == "password":
            # libpq's order: the query replaces what stands before the host.
            password = parameter.partition("=")[2]
        else:
            kept.append(parameter)
    address = urlunsplit(parts._replace(netloc=netloc, query="&".join(kept)))
    return address, None if password is None else unquote(password)


def _user(parts: SplitResult) -> str:
    return parts.username or ""


def _parameters(parts: SplitResult) -> list[tuple[str, str]]:
    """Return each parameter as it is written, with its name: libpq reads "+" as a plus."""
    written = parts.query.split("&") if parts.query else []
    return [(parameter, parameter.partition("=")[0]) for parameter in written]


def _without_proxy(caller: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep loopback free of proxies, in both spellings and alike.

    Programs differ in which spelling they prefer.
    """
    given = ",".join(filter(None, (caller.get("no_proxy"), caller.get("NO_PROXY")))).split(",")
    hosts = list(dict.fromkeys([*filter(None, map(str.strip, given)), LOOPBACK, "localhost"]))
    # The star is understood only where it stands alone.
    text = "*" if "*" in hosts else ",".join(hosts)
    return {"no_proxy": text, "NO_PROXY": text}


def _is_tuning(name: str) -> bool:
    return name.startswith(PREFIX) and name.removeprefix(PREFIX) not in _OF_THE_COMMAND_LINE
