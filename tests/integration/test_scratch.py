"""Working folders are gone with whoever made them, also after a kill."""

import subprocess
import sys
import tempfile

import pytest

from hubspot_deals.warehouse.scratch import working_folder

HOLD = """
import sys
from hubspot_deals.warehouse.scratch import working_folder
with working_folder() as folder:
    (folder / "deals.csv").write_text("a deal")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def parent(tmp_path, monkeypatch):
    """Where folders are made, by this process and by those that it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_folder_is_there_as_long_as_it_is_used(parent):
    with working_folder() as first, working_folder() as second:
        (first / "deals.csv").write_text("a deal")
        assert first != second
        assert (first / "deals.csv").exists()
    assert list(parent.iterdir()) == []


def test_what_a_killed_process_has_left_goes_with_the_next_one(parent):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    left = parent / holder.stdout.readline().strip().rpartition("/")[2]
    with working_folder():
        assert (left / "deals.csv").exists()
    holder.kill()
    holder.communicate()
    assert (left / "deals.csv").exists()
    with working_folder() as mine:
        assert list(parent.iterdir()) == [mine]
