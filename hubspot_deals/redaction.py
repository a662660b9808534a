"""Takes secrets out of texts before they are written anywhere: logs, tracebacks, Dagster's events.

Nothing here is a licence to log a secret. It is the net under everything that formats a text we
did not write: drivers that quote an address, libraries that print what they were given.
"""

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

HIDDEN: Final = "[hidden]"
_SHORTEST: Final = 8
"""A shorter text is too common a word to be taken out wherever it stands."""

_VALUE: Final = r"""["']?\s?[=:]\s?)(?:'[^']*'|"[^"]*"|[^\s,;&'"]+)"""
_FORMS: Final = tuple(
    (hint, re.compile(pattern, re.ASCII | re.IGNORECASE))
    for hint, pattern in (
        # Access tokens of HubSpot, our API keys, secrets of webhooks, JSON web tokens.
        ("pat-", r"(\b)pat-[a-z0-9]{2,8}-[a-z0-9_-]{6,}"),
        # Of a key of ours its public part stays, by which it is revoked.
        ("hsd_", r"(hsd_[0-9a-f]{8}_)[a-z0-9_-]{6,}"),
        ("whsec_", r"(\b)whsec_[a-z0-9+/=_-]{8,}"),
        # None begins inside another, or a text of beginnings would be read as often as it has some.
        ("eyj", r"((?<![a-z0-9_-]))eyJ[a-z0-9_-]{5,}\.[a-z0-9_-]+\.[a-z0-9_-]*"),
        # Keys of the key ring: 32 bytes in base64.
        ("=", r"((?<![a-z0-9+/]))[a-z0-9+/]{43}=(?![a-z0-9+/=])"),
        # A digit tells a token from the next word of a sentence.
        ("bearer", r"(\bbearer\s+)(?=\S*\d)[a-z0-9._~+/=-]{6,}"),
        ("basic", r"(\bauthorization\W{1,5}basic\s+)[a-z0-9._~+/=-]{6,}"),
        # What stands between a URL's user and its host, bounded for the same reason.
        ("@", r"""(://[^\s/:@"']{0,100}:)[^\s"']{1,255}(?=@)"""),
        ("pass", r"""((?:password|passwd)""" + _VALUE),
        ("token", r"""((?:access|refresh|id)_?token""" + _VALUE),
        ("secret", r"""(client_?secret""" + _VALUE),
        ("key", r"""(api_?key""" + _VALUE),
    )
)
"""What tells that the form may be there, and the form behind a group that is kept."""

_known: Final[set[str]] = set()
_known_here: ContextVar[frozenset[str]] = ContextVar("known_here", default=frozenset())


def redact(text: str) -> str:
    """Return the text with every secret replaced that is known or has the form of one."""
    text = _replace(text, tuple(_known))  # a copy: other threads may add to it
    lowered = text.lower()
    for hint, form in _FORMS:
        if hint in lowered:
            text = form.sub(rf"\1{HIDDEN}", text)
    # Last, so that what a caller calls its token cannot break the form of another secret up.
    return _replace(text, _known_here.get())


def _replace(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return text


def hide(*secrets: SecretStr) -> None:
    """Have these values taken out of whatever this process writes from now on."""
    for secret in secrets:
        _known.update(_spellings(secret.get_secret_value()))


def hide_here(secret: SecretStr) -> None:
    """Have a value taken out of what the current request or task writes, and its children."""
    _known_here.set(_known_here.get() | set(_spellings(secret.get_secret_value())))


def hide_settings(database_url: SecretStr, encryption_keys: SecretStr | None = None) -> None:
    """Have a database's password and the keys of a key ring taken out."""
    try:
        password = urlsplit(database_url.get_secret_value()).password
    except ValueError:
        password = None
    if password:
        hide(SecretStr(password), SecretStr(unquote(password)))
    if encryption_keys is not None:
        for entry in encryption_keys.get_secret_value().split(","):
            hide(SecretStr(entry.partition(":")[2].strip()))


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret as it is, as it stands in JSON and in a URL."""
    if len(secret) >= _SHORTEST:
        yield from {secret, json.dumps(secret)[1:-1], quote(secret, safe="")}


def install() -> None:
    """Have every log record and every last traceback of this process redacted, whoever writes it.

    Safe to call again.
    """
    factory = logging.getLogRecordFactory()
    if isinstance(factory, _RecordFactory):
        return
    logging.setLogRecordFactory(_RecordFactory(factory))
    sys.excepthook = _print_last_words
    threading.excepthook = _print_threads_last_words


class _RecordFactory:
    """Makes log records that carry no secret, for any handler and formatter.

    What a caller puts in `extra` comes afterwards: only formatters of ours print it, redacted.
    """

    def __init__(self, factory: Any) -> None:
        self._factory = factory

    def __call__(self, *arguments: Any, **options: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._factory(*arguments, **options)
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - logging would print message and arguments as they are
            text, record.args = f"{record.msg} (its arguments do not fit)", ()
            record.msg = redact(text)
        else:
            if (clean := redact(text)) != text:
                record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[1] is not None:
            # Formatters use the text where there is one.
            record.exc_text = format_error(record.exc_info[1])
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return record


def format_error(error: BaseException) -> str:
    """Return the traceback of an error, without secrets and without a line break at its end."""
    return redact("".join(traceback.format_exception(error)).rstrip("\n"))


def redact_json(document: str) -> str:
    """Return a JSON document with its texts redacted; the same one when there is no secret in it.

    Text by text: what replaces a secret must not reach beyond the end of its text.
    """
    if redact(document) == document:
        return document
    return json.dumps(_redact_all(json.loads(document)))


def _redact_all(value: Any) -> Any:
    match value:
        case str():
            return redact(value)
        case list():
            return [_redact_all(item) for item in value]
        case dict():
            return {name: _redact_all(item) for name, item in value.items()}
        case _:
            return value


def has_secret(error: BaseException) -> bool:
    """Tell whether the traceback of an error holds a secret."""
    text = "".join(traceback.format_exception(error))
    return redact(text) != text


def redact_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same values with texts redacted."""
    return {
        name: redact(value) if isinstance(value, str) else value for name, value in values.items()
    }


def _print_last_words(
    kind: type[BaseException], error: BaseException, _: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    sys.stderr.write(format_error(error) + "\n")


def _print_threads_last_words(facts: threading.ExceptHookArgs) -> None:
    name = facts.thread.name if facts.thread else "unknown"
    if facts.exc_value is not None:
        sys.stderr.write(f"Exception in thread {name}:\n{format_error(facts.exc_value)}\n")
