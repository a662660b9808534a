"""Writes the OpenAPI document to `openapi.json`: `python -m api.openapi`."""

from pathlib import Path
from typing import Any

import orjson

from api.main import build_app


def dump_openapi(document: dict[str, Any]) -> bytes:
    """Serialize so that equal documents are equal files."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(document, option=options)


if __name__ == "__main__":
    Path("openapi.json").write_bytes(dump_openapi(build_app().openapi()))
