"""What tests of the command line have in common."""

from pathlib import Path

import pytest


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leaves commands without the settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("ACCESS_TOKEN", "API_KEY", "API_URL", "DATABASE_URL", "DATA_DIR"):
        monkeypatch.delenv(f"HUBSPOT_DEALS_{name}", raising=False)
