"""Writes the OpenAPI document: `python -m api.openapi [FILE]`, to `openapi.json` by default."""

import sys
from pathlib import Path
from typing import Any

import orjson

from api.main import build_app


def dump_openapi(document: dict[str, Any]) -> bytes:
    """Serialize so that equal documents are equal files."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(document, option=options)


def main(arguments: list[str]) -> None:
    """Write the document of the application as it is now."""
    target = Path(arguments[0] if arguments else "openapi.json")
    target.write_bytes(dump_openapi(build_app().openapi()))


if __name__ == "__main__":
    main(sys.argv[1:])
