"""The runnable examples of the documentation, run as they stand (base URL aside) in their order.

Our own pages always; the API's requirements document too where it lies beside the checkout.
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
from pyarrow import parquet

CHECKOUT = Path(__file__).parents[2]
OWN_PAGE = CHECKOUT / "docs" / "rest-api.md"
SYNCS_PAGE = CHECKOUT / "docs" / "syncs.md"
REQUIREMENTS = CHECKOUT.parent / "shared" / "spec" / "hubspot-deals-api.md"
BASE_URL = "http://localhost:5000"
TOKEN = "pat-na1-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
PLACE = re.compile(r"/(?:scan|results)/([\w-]+)(?=/(\w+))|/diff/([\w-]+)")
"""A scan's id in a path, and what is asked of it; or the id of a scan that is compared."""
UNENDED = {"pending", "running", "paused", "resuming"}


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
        block for block in blocks_of(page) if block.language in {"bash", "python", "powershell"}
    ]


class Runner:
    """Runs blocks against the stack, each on scans in a state that its example is for."""

    base_url = BASE_URL

    def __init__(self, stack, folder):
        self._stack = stack
        self._folder = folder
        self._api = stack.urls["api"]

    def places(self, text):
        """The scans that a block is about, each with what is asked of it."""
        return [
            (scan_id or other, asked or "diff") for scan_id, asked, other in PLACE.findall(text)
        ]

    def run(self, block):
        """Run one block and return what it printed."""
        for scan_id, asked in self.places(block.text):
            self.prepare(scan_id, asked)
        text = block.text.replace(self.base_url, self._api)
        if block.language == "powershell":
            return self._run_powershell(block, text)
        program = ["bash", "-euo", "pipefail"] if block.language == "bash" else [sys.executable]
        script = self._folder / f"{block.line}.{block.language}"
        script.write_text(text)
        return self._run([*program, str(script)], block)

    def prepare(self, scan_id, asked):
        """Let a scan be there: not ended for what steers it, ended for the rest."""
        status = self._status_of(scan_id)
        if asked in {"pause", "resume", "cancel"}:
            if status not in UNENDED:
                self._start_anew(scan_id)
            return
        if status is None or (status == "cancelled" and asked != "remove"):
            self._start_anew(scan_id)
        self._until(lambda: self._status_of(scan_id) not in UNENDED)
        allowed = {"completed", "cancelled"} if asked == "remove" else {"completed"}
        assert self._status_of(scan_id) in allowed, self._stack.explain()

    def ask(self, method, path, **body):
        """Send a request and return its answer."""
        return httpx.request(method, f"{self._api}{path}", trust_env=False, timeout=30, **body)

    def _status_of(self, scan_id):
        answer = self.ask("GET", f"/api/v1/scan/{scan_id}/status")
        return answer.json()["data"]["status"] if answer.status_code == 200 else None

    def _start_anew(self, scan_id):
        """Remove the scan, if there is one, and start it as soon as its id is free."""
        self.ask("DELETE", f"/api/v1/scan/{scan_id}/remove")
        config = {"scanId": scan_id, "organizationId": "org-12345", "type": ["user"]}
        body = {"config": config | {"auth": {"accessToken": TOKEN}}}
        start = "/api/v1/scan/start"
        self._until(lambda: self.ask("POST", start, json=body).status_code == 202)

    def _until(self, condition):
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, self._stack.explain()
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
            answer = httpx.post(url, json=hashtable_to_json(text), trust_env=False, timeout=60)
        elif "-OutFile" in text:
            for url, name in re.findall(r'-Uri "([^"]+)" -OutFile "([^"]+)"', text):
                answer = httpx.get(url, trust_env=False, timeout=60).raise_for_status()
                (self._folder / name).write_bytes(answer.content)
            return ""
        else:
            answer = httpx.get(url, trust_env=False, timeout=60)
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
    literal = re.sub(r'^(\s*)"?(\w+)"? = ', r'\1"\2": ', literal, flags=re.MULTILINE)
    return json.loads(re.sub(r'([\]}"\w])\n(\s*")', r"\1,\n\2", literal))


def run_page(page, runner):
    return {block: runner.run(block) for block in runnable(page)}


@pytest.fixture
def runner(stack, tmp_path):
    return Runner(stack, tmp_path)


@pytest.fixture
def requirements():
    if not REQUIREMENTS.exists():
        pytest.skip("the API's requirements document does not lie beside this checkout")
    return REQUIREMENTS


def test_every_example_of_our_own_page_runs(runner, tmp_path):
    printed = run_page(OWN_PAGE, runner)

    assert len(printed) == 31
    for block, text in printed.items():
        if block.language == "bash" and " -o" not in block.text.lower():
            assert json.loads(text)["success"] is True, block.name
    (saved,) = tmp_path.glob("*.csv")
    assert saved.read_text(encoding="utf-8").startswith('"id","dealname",')
    (saved,) = tmp_path.glob("*.parquet")
    assert parquet.read_table(saved).column_names == ["id", "dealname", "amount"]
    by_offset, by_cursor = [text for text in printed.values() if text.endswith(" deals\n")]
    assert by_offset == by_cursor
    assert int(by_offset.split()[0]) > 0


def test_every_example_of_connections_runs(runner):
    printed = run_page(SYNCS_PAGE, runner)

    assert len(printed) == 11
    for block, text in printed.items():
        if block.language == "bash":
            assert json.loads(text)["success"] is True, block.name
    assert [text for text in printed.values() if text.endswith("that is all\n")]


def test_every_example_of_the_requirements_runs(runner, requirements):
    printed = run_page(requirements, runner)

    languages = [block.language for block in printed]
    assert {kind: languages.count(kind) for kind in set(languages)} == {
        "bash": 18,
        "python": 5,
        "powershell": 3,
    }
    for block, text in printed.items():
        if block.language == "bash":
            body = json.loads(text)
            is_second_start = "/scan/start" in block.text and "already exists" in text
            assert body["success"] is not is_second_start, block.name
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


SAMPLES = [
    ("GET", "/api/v1/scan/{scan_id}/status"),
    ("POST", "/api/v1/scan/{scan_id}/cancel"),
    ("POST", "/api/v1/scan/{scan_id}/pause"),
    ("DELETE", "/api/v1/scan/{scan_id}/remove"),
    ("GET", "/api/v1/scan/list"),
    ("GET", "/api/v1/results/{scan_id}/tables"),
    ("GET", "/api/v1/results/{scan_id}/result"),
    ("GET", "/api/v1/pipeline/info"),
    ("POST", "/api/v1/maintenance/cleanup"),
    ("POST", "/api/v1/maintenance/detect-crashed"),
    ("GET", "/api/v1/health"),
    ("GET", "/api/v1/stats"),
]
FREE_KEYS = {"config", "status_breakdown", "crashedJobIds"}
"""What these hold depends on the scans there are."""


def sample_of(page, method, path):
    """The first sample answer below `**METHOD** `path``."""
    text = page.read_text(encoding="utf-8")
    below = text[text.index(f"**{method}** `{path}`") :]
    answer = below[below.index("#### Response") :]
    return json.loads(re.search(r"```json\n(.*?)```", answer, re.DOTALL).group(1))


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


@pytest.mark.parametrize(("method", "path"), SAMPLES)
def test_an_answer_has_every_field_of_the_documented_sample(runner, requirements, method, path):
    asked = path.rpartition("/")[2]
    scan_id = "sample" if method == "GET" else f"sample-to-{asked}"
    if "/scan/" in path or "/results/" in path:
        runner.prepare(scan_id, asked)
    query = "?tableName=deals" if path.endswith("/result") else ""

    answer = runner.ask(method, path.replace("{scan_id}", scan_id) + query)

    assert answer.status_code == 200
    assert_has_the_fields_of(sample_of(requirements, method, path), answer.json())
