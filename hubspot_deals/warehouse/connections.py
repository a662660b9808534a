"""Opens connections to PostgreSQL, and says in one line why there is none."""

from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from hubspot_deals.errors import ConfigurationError
from hubspot_deals.settings import PREFIX

# A peer that vanished without a word is noticed within half a minute, not within two hours.
KEEPALIVES: Final[dict[str, Any]] = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

NO_TIMEOUTS: Final = (
    "-cstatement_timeout=0 -clock_timeout=0 -cidle_session_timeout=0"
    " -cidle_in_transaction_session_timeout=0"
)
"""Server options for work that takes as long as it takes, whatever the role is set to."""


def server_options(database_url: SecretStr, more: str) -> str:
    """Return the server options that the URL asks for, with more behind them.

    Raises ConfigurationError, which names the setting, not its value.
    """
    try:
        said = conninfo_to_dict(database_url.get_secret_value()).get("options") or ""
    except psycopg.ProgrammingError:
        msg = f"{PREFIX}DATABASE_URL is no libpq URL such as postgresql://user:password@host/name."
        # Not chained: libpq quotes the text that it cannot read, with the password in it.
        raise ConfigurationError(msg) from None
    return f"{said} {more}"


def open_connection(
    database_url: SecretStr, *, application_name: str | None = None
) -> psycopg.Connection[Any]:
    """Connect in autocommit; raises ConfigurationError, which names the setting, not its value."""
    options = server_options(database_url, NO_TIMEOUTS)
    try:
        return psycopg.connect(
            database_url.get_secret_value(),
            autocommit=True,
            options=options,
            application_name=application_name,
            connect_timeout=10,
            **KEEPALIVES,
        )
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split())
        msg = f"PostgreSQL at {PREFIX}DATABASE_URL does not answer: {reason}"
        raise ConfigurationError(msg) from error
