"""A REST API as far as the command line needs one, and a way to run commands against it."""

from dataclasses import dataclass, field
from typing import Any

import httpx
from click.testing import CliRunner, Result

from hubspot_deals.cli.main import cli
from hubspot_deals.cli.settings import CommandLine


@dataclass
class FakeService:
    """The REST API's endpoints, as far as the command line uses them."""

    statuses: list[str] = field(default_factory=lambda: ["completed"])
    rows: int = 3
    rerun_at: int | None = None
    refusal: httpx.Response | None = None
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.refusal is not None:
            return self.refusal
        path = request.url.path.removeprefix("/api/v1")
        routes = {
            "/scan/start": self._start,
            "/scan/s1/status": self._status,
            "/scan/list": self._list,
            "/results/s1/tables": self._tables,
            "/results/s1/result": self._rows,
        }
        if path not in routes:
            return httpx.Response(404, json={"success": False, "message": "No scan found"})
        if self.rerun_at is not None and request.url.params.get("offset") == str(self.rerun_at):
            return httpx.Response(409, json={"success": False, "message": "replaced"})
        answer = routes[path](request)
        return httpx.Response(202 if path == "/scan/start" else 200, json=answer)

    def _start(self, _: httpx.Request) -> Any:
        return {"success": True, "message": "accepted"}

    def _status(self, _: httpx.Request) -> Any:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return {
            "success": True,
            "data": {
                "scanId": "s1",
                "organizationId": "o",
                "status": status,
                "recordsExtracted": 1234,
                "errorMessage": "no scope" if status == "failed" else None,
                "checkpointInfo": {"progress": 45.5},
            },
        }

    def _list(self, _: httpx.Request) -> Any:
        scan = {"scanId": "s1", "organizationId": "o", "status": "failed", "recordsExtracted": 7}
        return {"success": True, "data": {"scans": [scan], "pagination": {"total": 1}}}

    def _tables(self, _: httpx.Request) -> Any:
        tables = [{"name": "deals", "rowCount": self.rows, "extractedCount": self.rows}]
        return {"success": True, "data": {"scanId": "s1", "tables": tables, "totalTables": 1}}

    def _rows(self, request: httpx.Request) -> Any:
        limit, offset = (int(request.url.params[name]) for name in ("limit", "offset"))
        positions = range(offset, min(offset + limit, self.rows))
        records = [{"id": str(n), "amount": None if n else "1.50"} for n in positions]
        return {
            "success": True,
            "data": {
                "tableName": request.url.params["tableName"],
                "records": records,
                "columns": ["id", "amount"],
                "snapshot": 4,
                "pagination": {
                    "total": self.rows,
                    "limit": limit,
                    "offset": offset,
                    "hasMore": offset + len(records) < self.rows,
                    "returned": len(records),
                },
            },
        }


def run(service: Any, *arguments: str, **invocation: Any) -> Result:
    transport = httpx.MockTransport(service)
    return CliRunner().invoke(cli, arguments, obj=CommandLine(transport), **invocation)
