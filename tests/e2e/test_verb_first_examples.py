"""The examples of the verb-first pages, run in their order: our own, and the requirements'."""

import json
import re
from dataclasses import replace

import openpyxl
import pytest

from tests.e2e.test_spec_examples import CHECKOUT, TOKEN, Runner, run_page, runnable

OWN_PAGE = CHECKOUT / "docs" / "verb-first-api.md"
REQUIREMENTS = CHECKOUT.parent / "shared" / "spec" / "scan-service-api.md"
PLACE = re.compile(r"/scan/(status|result|download|cancel|remove)/([\w-]+)")
PLACEHOLDERS = {
    'calendar"]': 'deals"]',
    'calendar")': 'deals")',
    "[auth_key_1]": "accessToken",
    "[auth_value_1]": TOKEN,
    "[auth_key_2]": "unused",
    "[auth_value_2]": "unused",
}
"""What the requirements leave open, and the one source that is there."""


class VerbFirstRunner(Runner):
    def places(self, text):
        """Also of a path that is put together from a variable."""
        named = re.search(r'^scan_id = "([^"]+)"', text, re.MULTILINE)
        text = text.replace("{scan_id}", named.group(1)) if named else text
        return [(scan_id, asked) for asked, scan_id in PLACE.findall(text)]


class RequirementsRunner(VerbFirstRunner):
    base_url = "https://api.your-domain.com"


@pytest.fixture
def requirements():
    if not REQUIREMENTS.exists():
        pytest.skip("the API's requirements document does not lie beside this checkout")
    return REQUIREMENTS


def filled_in(block):
    text = block.text
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    return replace(block, text=text)


def test_every_example_of_our_own_page_runs(stack, tmp_path):
    printed = run_page(OWN_PAGE, VerbFirstRunner(stack, tmp_path))

    assert len(printed) == 12
    for block, text in printed.items():
        if block.language == "bash" and " -o" not in block.text:
            assert json.loads(text).get("status") != "error", block.name
    (loop,) = [text for text in printed.values() if text.endswith(" deals\n")]
    deals = int(loop.split()[0])
    assert deals > 0
    assert len(json.loads((tmp_path / "deals.json").read_bytes())) == deals
    assert (tmp_path / "deals.csv").read_text(encoding="utf-8").startswith('"id","dealname",')
    book = openpyxl.load_workbook(tmp_path / "deals.xlsx", read_only=True)
    assert book.worksheets[0].max_row == deals + 1


def test_every_example_of_the_requirements_runs_once_its_placeholders_are_filled_in(
    stack, tmp_path, requirements
):
    runner = RequirementsRunner(stack, tmp_path)
    printed = {block: runner.run(filled_in(block)) for block in runnable(requirements)}

    languages = [block.language for block in printed]
    assert {kind: languages.count(kind) for kind in set(languages)} == {
        "bash": 6,
        "python": 4,
        "powershell": 3,
    }
    said = {block.heading: text for block, text in printed.items() if block.language == "bash"}
    shown = {title: json.loads(text) for title, text in said.items() if text.strip()}
    assert [body["status"] for body in shown.values()] == [
        "started",
        "completed",
        "completed",
        "cancelled",
        "removed",
    ]
    python = [text for block, text in printed.items() if block.language == "python"]
    assert "'status': 'started'" in python[0]
    assert python[1] == "Status: completed\n"
    assert re.fullmatch(r"Total events retrieved: \d+\n", python[2])
    assert "Failed" not in python[3]
    names = {file.name for file in tmp_path.iterdir()} - {f"{b.line}.{b.language}" for b in printed}
    assert names == {
        *(f"calendar_results.{ending}" for ending in ("csv", "xlsx", "json")),
        "results.xlsx",
        "results.csv",
    }


def test_the_calendars_of_the_requirements_are_the_documented_400(stack, tmp_path, requirements):
    runner = RequirementsRunner(stack, tmp_path)
    starts = [block for block in runnable(requirements) if "/scan/start" in block.text]

    assert len(starts) == 3
    for block in starts:
        said = runner.run(replace(block, text=re.sub(r"\[(auth_\w+)\]", r"\1", block.text)))
        assert "is not available yet" in said, block.name
        assert "VALIDATION_ERROR" in said
