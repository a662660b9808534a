"""Traces: a request and its run are one, and without an address nothing is there."""

import gzip
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import SecretStr

from api.main import create_app
from api.testing import serve
from hubspot_deals import tracing
from hubspot_deals.contract import TRACE_PARENT_TAG
from hubspot_deals.defs.sensors import _build_request
from hubspot_deals.warehouse.launches import claim_waiting_scans

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TOKEN = "CANARY-token-0123456789"


class Collector(BaseHTTPRequestHandler):
    received: list

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        self.received.append(content)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Keep quiet."""


@contextmanager
def collector():
    kind = type("Chosen", (Collector,), {"received": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", kind.received
        server.shutdown()


def every_span(received):
    return [
        span
        for content in received
        for resource in ExportTraceServiceRequest.FromString(content).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def spans(received):
    return {span.name: span for span in every_span(received)}


@pytest.fixture(autouse=True)
def off_again():
    yield
    tracing.close()


def start(client, **headers):
    config = {"scanId": "scan-1", "organizationId": "org-1", "type": ["user"]}
    config["auth"] = {"accessToken": TOKEN}
    assert client.post("/api/v1/scan/start", json={"config": config}, headers=headers).is_success


def test_a_request_and_its_run_are_one_trace(api_settings, gateway, run_job):
    with collector() as (url, received):
        with serve(
            create_app(api_settings.model_copy(update={"traces_endpoint": url}), gateway=gateway)
        ) as client:
            start(client, traceparent=CALLER)
            client.get("/api/v1/scan/no-such-scan/status")
        tags = gateway.runs[0].origin
        assert run_job("scan-1", tags=dict(tags), traces_endpoint=url).success

    found = spans(received)
    assert set(found) == {"POST /scan/start", "GET /scan/{scan_id}/status", "scan run"}
    asked, run = found["POST /scan/start"], found["scan run"]
    trace_id, caller = (bytes.fromhex(part) for part in CALLER.split("-")[1:3])
    assert (asked.trace_id, asked.parent_span_id) == (trace_id, caller)
    assert (run.trace_id, run.parent_span_id) == (trace_id, asked.span_id)
    assert {one.key: one.value.string_value for one in run.attributes}["scan_id"] == "scan-1"
    assert found["GET /scan/{scan_id}/status"].trace_id != trace_id
    assert not [content for content in received if b"CANARY" in content]


def test_a_run_that_fails_is_marked_without_the_text_of_its_error(accept, run_job):
    accept(token=SecretStr(TOKEN))
    with collector() as (url, received):
        assert not run_job(
            hubspot_url="http://127.0.0.1:9", retry_seconds=0.1, traces_endpoint=url
        ).success

    run = spans(received)["scan run"]
    assert (run.status.code, run.status.message) == (2, "Failure")
    assert list(run.events) == []


def test_a_collector_that_is_down_costs_no_run(accept, run_job):
    accept()
    assert run_job(traces_endpoint="http://127.0.0.1:9/v1/traces").success


def test_a_launch_by_the_sensor_is_part_of_the_trace_too(api_settings, gateway, settings, change):
    gateway.is_down = True
    with collector() as (url, _):
        chosen = api_settings.model_copy(update={"traces_endpoint": url})
        with serve(create_app(chosen, gateway=gateway)) as client:
            start(client, **{"traceparent": CALLER, "X-Request-ID": "asked-by-me"})
    change("UPDATE hubspot_deals.scans SET launch_claimed_until = NULL")
    (waiting,) = claim_waiting_scans(settings.database_url, limit=5)

    tags = _build_request(waiting).tags
    assert tags["hubspot_deals/request_id"] == "asked-by-me"
    assert tags[TRACE_PARENT_TAG].split("-")[1] == CALLER.split("-")[1]


def test_without_an_address_nothing_is_imported_and_nothing_recorded():
    program = (
        "import sys; from hubspot_deals import tracing\n"
        "tracing.configure('', 'x')\n"
        "with tracing.span('x') as span: assert span is None\n"
        "assert tracing.trace_parent() is None; tracing.close()\n"
        "import api.main\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.stdout.strip(), ended.stderr) == ("[]", "")
