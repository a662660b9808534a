"""The commands of the tutorial and of the integration guide, run in their order as they stand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from pyarrow import parquet

from tests.e2e.conftest import SANDBOX_DEALS
from tests.e2e.test_spec_examples import BASE_URL, CHECKOUT, Runner, run_page, runnable

TUTORIAL = CHECKOUT / "docs" / "tutorial.md"
RUNBOOK = CHECKOUT / "docs" / "runbook.md"
GUIDE = CHECKOUT / "docs" / "integration.md"


@pytest.fixture
def terminal(stack, tmp_path):
    """A second terminal in the project's folder, beside the stack of the first."""
    programs = Path(sys.executable).parent

    def run(text):
        # Files that a command writes belong to the test, not to the project's folder.
        text = text.replace(".venv/bin/", f"{programs}/").replace(BASE_URL, stack.urls["api"])
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            cwd=tmp_path,
            env={
                **os.environ,  # noqa: TID251 - to start programs with
                "HUBSPOT_DEALS_DATA_DIR": str(stack.data_dir),
                "PYTHONPATH": str(CHECKOUT),
                "no_proxy": "*",
            },
        )
        assert result.returncode == 0, f"{text}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    return run


def test_every_command_of_the_tutorial_runs(terminal, tmp_path):
    (up, *others) = [block.text.strip() for block in runnable(TUTORIAL)]
    # The stack of the tests was started by what this does.
    assert up == "make up"
    assert "up: $(STAMP)" in (CHECKOUT / "Makefile").read_text()
    # Each block is typed into the same terminal.
    said, exported = {}, ""
    for block in others:
        exported += "".join(f"{line}\n" for line in block.splitlines() if "export " in line)
        said[block] = terminal(exported + block)
    assert len(said) == 9
    (page,) = [text for block, text in said.items() if block.startswith("curl")]
    assert len(json.loads(page)["data"]["records"]) == 2
    written = (tmp_path / "deals.csv").read_text(encoding="utf-8")
    assert written.count("\n") >= SANDBOX_DEALS
    (sql,) = [text for block, text in said.items() if " sql " in block]
    assert "dealstage_label" in sql
    (diff,) = [text for block, text in said.items() if " diff " in block]
    assert f"{SANDBOX_DEALS:,}" in diff
    (left,) = [text for block, text in said.items() if "scan list" in block]
    assert "tuesday" in left
    assert "monday" not in left.partition("\n")[2]


def test_every_example_of_the_integration_guide_runs(stack, tmp_path):
    printed = run_page(GUIDE, Runner(stack, tmp_path))

    languages = [block.language for block in printed]
    assert {kind: languages.count(kind) for kind in set(languages)} == {
        "bash": 3,
        "python": 2,
        "powershell": 5,
    }
    said = list(printed.values())
    (last_page,) = [text for text in said if '"pagination"' in text and "nightly-curl" in text]
    total = json.loads(last_page)["data"]["pagination"]["total"]
    assert total == SANDBOX_DEALS
    assert any(text.startswith(f"{total} deals, as of ") for text in said)
    (summary,) = [text for text in said if text.startswith("{'unchanged'") or "'unchanged'" in text]
    assert f"'unchanged': {total}" in summary
    written = (tmp_path / "deals.csv").read_text(encoding="utf-8")
    assert written.count("\n") >= total
    assert parquet.read_table(tmp_path / "deals.parquet").num_rows == total


def test_every_question_of_the_runbook_to_the_database_can_be_asked(stack):
    text = " ".join(RUNBOOK.read_text(encoding="utf-8").split())
    questions = re.findall(r"`((?:SELECT|ANALYZE) [^`]+;)`", text)
    asked = [question for question in questions if "PID" not in question]
    assert (len(questions), len(asked)) == (7, 6)
    with psycopg.connect(stack.urls["database"], autocommit=True) as connection:
        for question in asked:
            connection.execute(question)
