"""Careless servers, and the list of all secrets that a running stack is given."""

import importlib
import inspect
import json
import pkgutil
import re
import threading
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from urllib.parse import urlsplit

from pydantic import BaseModel

import api
import hubspot_deals
from hubspot_sandbox.testing import SandboxProcess
from tests.conftest import FAST

SECONDS = 90
NAMES = re.compile(
    r"(^|_)(secret|token|password|encryption_keys|api_key|database_url)$|storage_url$"
)


def secret_fields():
    """Return `Model.field` of all settings and bodies that are secret by their type or name."""
    found = set()
    for package in (api, hubspot_deals):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                found |= set(_fields_of(importlib.import_module(module.name)))
    return found


def _fields_of(module: ModuleType):
    for name, kind in inspect.getmembers(module, inspect.isclass):
        if issubclass(kind, BaseModel) and kind.__module__ == module.__name__ and "[" not in name:
            for field, facts in kind.model_fields.items():
                if "Secret" in repr(facts.annotation) or NAMES.search(field):
                    yield f"{name}.{field}"


class Receiver(BaseHTTPRequestHandler):
    """Takes webhooks, and says their secret and their address to everybody."""

    told: list
    paths: list

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.paths.append(self.path)
        secrets = " ".join([*self.told, *(text.partition("_")[2] for text in self.told)])
        content = f"{self.path} {self.headers} {secrets}".encode()[-990:]
        self.send_response(500 if len(self.paths) % 2 else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Keep quiet."""


@contextmanager
def telling_receiver():
    kind = type("Chosen", (Receiver,), {"told": [], "paths": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", kind
        server.shutdown()


class EchoingHubSpot(BaseHTTPRequestHandler):
    """Stands before the sandbox, and is as careless with some tokens as a server can be."""

    protocol_version = "HTTP/1.1"
    sandbox = ""

    def do_GET(self):
        length = int(self.headers.get("Content-Length") or 0)
        payload = self.rfile.read(length)
        sent = self.headers.get("Authorization", "")
        if "refused" in sent or "echoed" in sent:
            status = 401 if "refused" in sent else 400
            text = f"The token {sent} ({sent.partition(' ')[2]}) of {self.path} is not good"
            self.answer(status, json.dumps({"status": "error", "message": text}).encode())
        elif "broken" in sent and "/objects/deals" in self.path:
            self.answer(200, f"<html>{dict(self.headers)}</html>".encode())
        else:
            self.pass_on(payload)

    do_POST = do_GET  # noqa: N815 - as http.server calls it

    def pass_on(self, payload):
        address = urlsplit(self.sandbox)
        connection = HTTPConnection(address.hostname, address.port, timeout=SECONDS)
        headers = {name: value for name, value in self.headers.items() if name != "Host"}
        connection.request(self.command, self.path, payload, headers)
        answer = connection.getresponse()
        self.answer(answer.status, answer.read(), dict(answer.getheaders()))
        connection.close()

    def answer(self, status, content, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection", "date"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Keep quiet."""


@contextmanager
def echoing_hubspot():
    with SandboxProcess(deals=1_500, **FAST) as sandbox:
        kind = type("Chosen", (EchoingHubSpot,), {"sandbox": sandbox.url})
        with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
