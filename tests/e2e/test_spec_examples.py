"""The runnable examples of the documentation, run as they stand (base URL aside) in their order.

Our own page always; the API's requirements document too where it lies beside the checkout.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

CHECKOUT = Path(__file__).parents[2]
OWN_PAGE = CHECKOUT / "docs" / "rest-api.md"
REQUIREMENTS = CHECKOUT.parent / "shared" / "spec" / "hubspot-deals-api.md"
BASE_URL = "http://localhost:5000"
LATER = re.compile(r"/(cancel|pause|resume|remove)\b|/maintenance/")
"""Endpoints that this version does not have."""


@dataclass(frozen=True)
class Block:
    language: str
    heading: str
    line: int
    text: str

    @property
    def name(self):
        return f"line {self.line} ({self.heading})"


def blocks_of(page):
    """The fenced blocks of a page. A fence with a language inside a block starts the next one."""
    blocks, heading, language, lines, first = [], "", None, [], 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```"):
            if language is not None:
                blocks.append(Block(language, heading, first, "\n".join(lines) + "\n"))
            is_closing = language is not None and line == "```"
            language, lines, first = None if is_closing else line[3:], [], number + 1
        elif language is None:
            heading = line.lstrip("# ") if line.startswith("#") else heading
        else:
            lines.append(line)
    return blocks


def runnable(page):
    return [
        block
        for block in blocks_of(page)
        if block.language in {"bash", "python", "powershell"} and not LATER.search(block.text)
    ]


class Runner:
    """Runs blocks against the stack, waiting for a scan that one has just started."""

    def __init__(self, stack, folder):
        self._stack = stack
        self._folder = folder
        self._api = stack.urls["api"]

    def run(self, block):
        """Run one block and return what it printed."""
        text = block.text.replace(BASE_URL, self._api)
        if block.language == "powershell":
            return self._run_powershell(block, text)
        program = ["bash", "-euo", "pipefail"] if block.language == "bash" else [sys.executable]
        script = self._folder / f"{block.line}.{block.language}"
        script.write_text(text)
        return self._run([*program, str(script)], block)

    def wait(self, scan_id):
        """Wait until a scan has ended, as the reader of the documents is told to."""
        deadline = time.monotonic() + 120
        url = f"{self._api}/api/v1/scan/{scan_id}/status"
        while True:
            scan = httpx.get(url, trust_env=False).json()["data"]
            if scan["status"] not in {"pending", "running"}:
                assert scan["status"] == "completed", f"{scan}\n{self._stack.explain()}"
                return
            assert time.monotonic() < deadline, f"{scan}\n{self._stack.explain()}"
            time.sleep(0.2)

    def _run(self, command, block):
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            env={**os.environ, "no_proxy": "*"},  # noqa: TID251 - to start a program with
            cwd=self._folder,
        )
        assert result.returncode == 0, f"{block.name}: {result.stderr}\n{self._stack.explain()}"
        return result.stdout

    def _run_powershell(self, block, text):
        """With PowerShell the block itself; without it the requests that it makes."""
        if shutil.which("pwsh"):
            script = self._folder / f"{block.line}.ps1"
            script.write_text("$ErrorActionPreference = 'Continue'\n" + text)
            return self._run(["pwsh", "-NoProfile", "-File", str(script)], block)
        url = re.search(r'-Uri "([^"]+)"', text).group(1)
        if "-Method Post" in text:
            answer = httpx.post(url, json=hashtable_to_json(text), trust_env=False)
        else:
            answer = httpx.get(url, trust_env=False)
        body = answer.json()
        for path in re.findall(r"\$response\.([\w.]+)", text):
            value = body
            for part in path.split("."):
                assert part in value, f"{block.name}: {path}"
                value = value[part]
        return answer.text


def hashtable_to_json(text):
    """Read the literal between `$body =` and `| ConvertTo-Json` as PowerShell would."""
    literal = re.search(r"\$body = (@\{.*?\n\}) \|", text, re.DOTALL).group(1)
    literal = literal.replace("@{", "{").replace("@(", "[").replace(")", "]")
    literal = re.sub(r"\$(true|false)", r"\1", literal)
    literal = re.sub(r"^(\s*)(\w+) = ", r'\1"\2": ', literal, flags=re.MULTILINE)
    return json.loads(re.sub(r'([\]}"\w])\n(\s*")', r"\1,\n\2", literal))


def started_scan(block, printed):
    """The id that a block has asked to start, if it was accepted or taken already."""
    if "/scan/start" not in block.text or block.language == "python":
        return None
    found = re.search(r'"?scanId"?\s*[:=]\s*"([^"]+)"', block.text)
    body = json.loads(printed) if block.language == "bash" else {}
    assert body.get("success", True) or "already exists" in body["message"], printed
    return found.group(1)


def run_page(page, runner):
    printed = {}
    for block in runnable(page):
        printed[block] = runner.run(block)
        if (scan_id := started_scan(block, printed[block])) is not None:
            runner.wait(scan_id)
    return printed


@pytest.fixture
def runner(stack, tmp_path):
    return Runner(stack, tmp_path)


@pytest.fixture
def requirements():
    if not REQUIREMENTS.exists():
        pytest.skip("the API's requirements document does not lie beside this checkout")
    return REQUIREMENTS


def test_every_example_of_our_own_page_runs(runner):
    printed = run_page(OWN_PAGE, runner)

    assert len(printed) == 11
    for block, text in printed.items():
        if block.language == "bash":
            assert json.loads(text)["success"] is True, block.name
    (loop,) = [text for text in printed.values() if text.endswith(" deals\n")]
    assert int(loop.split()[0]) > 0


def test_every_example_of_the_requirements_runs(runner, requirements):
    printed = run_page(requirements, runner)

    languages = [block.language for block in printed]
    assert {kind: languages.count(kind) for kind in set(languages)} == {
        "bash": 12,
        "python": 5,
        "powershell": 3,
    }
    for block, text in printed.items():
        if block.language == "bash" and "/scan/start" not in block.text:
            body = json.loads(text)
            assert body.get("status") == "healthy" or body["success"] is True, block.name
    said = "".join(text for block, text in printed.items() if block.language == "python")
    assert "Total records retrieved: " in said
    assert "Scan completed! Extracted " in said
    # The second start of one id is the documented conflict; nothing else may go wrong.
    assert set(re.findall(r"Error:? (\d+)", said)) <= {"409"}


def test_the_documented_workflow_runs_from_a_new_scan_to_its_deals(runner, requirements):
    (workflow,) = [block for block in runnable(requirements) if "def start_scan" in block.text]
    fresh = workflow.text.replace("hubspot-deals-scan-2025-001", "workflow-of-its-own")

    said = runner.run(Block(workflow.language, workflow.heading, workflow.line, fresh))

    assert "Scan started: workflow-of-its-own" in said
    extracted = re.search(r"Extracted (\d+) records", said).group(1)
    assert int(extracted) > 0
    assert f"Retrieved {extracted} deals" in said


SAMPLES = {
    "/api/v1/scan/{scan_id}/status": "/api/v1/scan/{scan}/status",
    "/api/v1/scan/list": "/api/v1/scan/list",
    "/api/v1/results/{scan_id}/tables": "/api/v1/results/{scan}/tables",
    "/api/v1/results/{scan_id}/result": "/api/v1/results/{scan}/result?tableName=deals",
    "/api/v1/pipeline/info": "/api/v1/pipeline/info",
    "/api/v1/health": "/api/v1/health",
    "/api/v1/stats": "/api/v1/stats",
}
FREE_KEYS = {"config", "status_breakdown"}
"""What these hold depends on the scans there are."""


def sample_of(page, path):
    """The first sample answer below `**GET** `path``."""
    text = page.read_text(encoding="utf-8")
    below = text[text.index(f"**GET** `{path}`") :]
    return json.loads(re.search(r"```json\n(.*?)```", below, re.DOTALL).group(1))


def assert_has_the_fields_of(sample, answer, path="answer"):
    if isinstance(sample, dict):
        assert set(sample) <= set(answer), path
        for key in set(sample) - FREE_KEYS:
            assert_has_the_fields_of(sample[key], answer[key], f"{path}.{key}")
    elif isinstance(sample, list) and sample:
        assert_has_the_fields_of(sample[0], answer[0], f"{path}[0]")
    elif sample is not None and answer is not None:
        kind = (int, float) if isinstance(sample, float) else type(sample)
        assert isinstance(answer, kind), f"{path} is {type(answer).__name__}"


@pytest.mark.parametrize("path", SAMPLES)
def test_an_answer_has_every_field_of_the_documented_sample(stack, runner, requirements, path):
    scan_id = f"sample-{abs(hash(path))}"
    config = {
        "scanId": scan_id,
        "organizationId": "samples",
        "type": ["user"],
        "auth": {"accessToken": "pat-na1-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"},
    }
    api = stack.urls["api"]
    httpx.post(f"{api}/api/v1/scan/start", json={"config": config}, trust_env=False)
    runner.wait(scan_id)

    answer = httpx.get(api + SAMPLES[path].replace("{scan}", scan_id), trust_env=False)

    assert answer.status_code == 200
    assert_has_the_fields_of(sample_of(requirements, path), answer.json())
