"""A Cloudflare on loopback: as much of its API as the script uses, judged by the official SDK's own types.

What a request brings is checked against the SDK's parameter types, what goes out against its answer types; a
value that Cloudflare does not have is refused by both sides.
"""

import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pydantic
from cloudflare.types.dns import record_create_params, record_edit_params
from cloudflare.types.dns.cname_record import CNAMERecord
from cloudflare.types.zones import Zone
from cloudflare.types.zones.setting_edit_response import SettingEditResponse

TOKEN = "a" * 40
ZONE_ID = "0" * 31 + "1"
AT = "2026-11-01T00:00:00Z"
STRICT = pydantic.ConfigDict(extra="forbid")

_setting = pydantic.TypeAdapter[Any](SettingEditResponse)
_new_record = pydantic.TypeAdapter[Any](record_create_params.CNAMERecord)
_record_change = pydantic.TypeAdapter[Any](record_edit_params.CNAMERecord)


@dataclass
class Standin:
    """What is there, what is allowed, and what was asked."""

    settings: dict[str, str] = field(
        default_factory=lambda: {
            "websockets": "off",
            "ssl": "full",
            "min_tls_version": "1.0",
            "always_use_https": "off",
        }
    )
    records: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    rights: set[str] = field(default_factory=lambda: {"dns", "settings", "zone"})
    locked: set[str] = field(default_factory=set[str])
    status: str = "active"
    is_paused: bool = False
    failing: dict[str, int] = field(default_factory=dict[str, int])  # path's end -> status that is answered
    ipv4: list[str] = field(default_factory=list[str])
    ipv6: list[str] = field(default_factory=list[str])
    changes: list[str] = field(default_factory=list[str])  # what became another than it was
    requests: list[str] = field(default_factory=list[str])
    url: str = ""

    def answer(
        self, method: str, target: str, token: str, body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        """(status, whole answer) of one request."""
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        self.requests.append(f"{method} {path}")
        failing = next((status for end, status in self.failing.items() if path.endswith(end)), None)
        if failing is not None:
            return _refusal(failing, 10001, "made to fail")
        if path == "/ips":
            return _success({"etag": "x", "ipv4_cidrs": self.ipv4, "ipv6_cidrs": self.ipv6})
        if token != TOKEN:
            return _refusal(401, 1000, "Invalid API Token")
        if path == "/zones":
            return self._zones(query)
        if match := re.fullmatch(rf"/zones/{ZONE_ID}/settings/(\w+)", path):
            return self._setting(method, match[1], body)
        if match := re.fullmatch(rf"/zones/{ZONE_ID}/dns_records(?:/(\w+))?", path):
            return self._record(method, match[1], query, body)
        return _refusal(404, 7003, f"Could not route to {path}")

    def _zones(self, query: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        zone = {
            "id": ZONE_ID,
            "name": "example.com",
            "type": "full",
            "status": self.status,
            "paused": self.is_paused,
            "created_on": AT,
            "modified_on": AT,
            "activated_on": AT,
            "development_mode": 0,
            **{name: {} for name in ("account", "owner", "plan", "meta", "tenant", "tenant_unit")},
            "name_servers": ["ann.ns.cloudflare.com", "bob.ns.cloudflare.com"],
        }
        Zone.model_validate(zone)
        found = [zone] if query["name"] == ["example.com"] and "zone" in self.rights else []
        return _page(found, query)

    def _setting(self, method: str, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "settings" not in self.rights:
            return _refusal(403, 10000, "Authentication error")
        if name not in self.settings:
            return _refusal(400, 1003, f"unrecognized zone setting name: {name}")
        if method == "PATCH":
            try:
                _setting.validate_python({"id": name, "value": body["value"]})
            except pydantic.ValidationError:
                return _refusal(400, 1007, f"Invalid value for zone setting {name}")
            if self.settings[name] != body["value"]:
                if name in self.locked:
                    return _refusal(400, 1006, "The setting is read only")
                self.settings[name] = body["value"]
                self.changes.append(f"{name}={body['value']}")
        result = {
            "id": name,
            "value": self.settings[name],
            "editable": name not in self.locked,
            "modified_on": AT,
        }
        return _success(result)

    def _record(
        self, method: str, record_id: str | None, query: dict[str, list[str]], body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        if method == "GET":
            name = query["name.exact"][0]
            return _page([record for record in self.records if record["name"] == name], query)
        if "dns" not in self.rights:
            return _refusal(403, 10000, "Authentication error")
        judge = _new_record if method == "POST" else _record_change
        judge.validate_python({"zone_id": ZONE_ID, **body}, extra="forbid")
        if method == "POST":
            found = {"id": f"{len(self.records) + 1:032x}"}
            self.records.append(found)
        else:
            found = next(record for record in self.records if record["id"] == record_id)
        if {**found, **body} != found:
            found.update(body)
            self.changes.append(f"{body['name']} -> {body['content']} proxied={body['proxied']}")
        CNAMERecord.model_validate(found)
        return _success(_whole(found))


def _whole(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "proxiable": True,
        "created_on": AT,
        "modified_on": AT,
        "meta": {},
        "tags": [],
        "settings": {},
        **record,
    }


def _success(result: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"success": True, "errors": [], "messages": [], "result": result}


def _refusal(status: int, code: int, message: str) -> tuple[int, dict[str, Any]]:
    return status, {
        "success": False,
        "errors": [{"code": code, "message": message}],
        "messages": [],
        "result": None,
    }


def _page(items: list[dict[str, Any]], query: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
    """The SDK asks for pages until one is empty."""
    page = int(query.get("page", ["1"])[0])
    shown = [_whole(item) if "content" in item else item for item in items] if page == 1 else []
    info = {"page": page, "per_page": 20, "count": len(shown), "total_count": len(items), "total_pages": 1}
    return 200, {"success": True, "errors": [], "messages": [], "result": shown, "result_info": info}


@contextmanager
def serving(standin: Standin) -> Generator[str]:
    """Serve it on a free port of loopback; its base URL."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            status, answer = standin.answer(self.command, self.path, token, body)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815  # http.server's names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    standin.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield standin.url
    finally:
        server.shutdown()
        server.server_close()
