"""The server's side of the opening handshake (RFC 6455 §4.2), for a request that is already parsed.

The package `websockets` would parse the same headers once more, which took a sixth of the cost of a
connection (decision 5). The tests compare the two. Extensions are never accepted.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import Coroutine, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from portfolio_realtime.config import listed
from portfolio_realtime.websocket_server.access.identity import Unverifiable
from portfolio_realtime.wire.http_problems import HttpProblem
from portfolio_realtime.wire.messages import Disconnect, Subscribe

PATH: Final = re.compile(r"/ws(?:/portfolio/([^/]+))?/?")
QUERY_FIELDS_MAX: Final = 8
IDENTIFY_S_MAX: Final = 4.0
SUBPROTOCOL: Final = "bearer"
VERSION: Final = "13"
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes
SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n%b\r\n"
)
CHOSEN: Final = b"Sec-WebSocket-Protocol: %b\r\n" % SUBPROTOCOL.encode()


REFUSAL_HEADERS: Final = {
    HttpProblem.METHOD_NOT_ALLOWED: {"Allow": "GET"},
    HttpProblem.UPGRADE_REQUIRED: {"Upgrade": "websocket", "Sec-WebSocket-Version": VERSION},
}
REFUSED: Final = (
    b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Cache-Control: no-store\r\nConnection: close\r\n%b\r\n%b"
)
BEFORE_UPGRADE: Final = {
    Disconnect.UNAUTHORIZED: HttpProblem.UNAUTHORIZED,
    Disconnect.FORBIDDEN: HttpProblem.FORBIDDEN,
    Disconnect.CONNECTION_LIMIT: HttpProblem.CONNECTION_LIMIT,
    Disconnect.UNVERIFIABLE: HttpProblem.UNVERIFIABLE,
    Disconnect.NOT_IN_DOLLARS: HttpProblem.NOT_IN_DOLLARS,
}
"""The HTTP answer instead of a close code while the WebSocket is not open; NO_ROOM for all other codes."""


def refusal(method: str, http_version: str, headers: Mapping[str, str]) -> HttpProblem | None:
    """Why this request must be refused, or None. Header names are in lower case."""
    if method != "GET":
        return HttpProblem.METHOD_NOT_ALLOWED
    if http_version != "1.1":  # 505 would count as an error of the server
        return HttpProblem.BAD_REQUEST
    is_upgrade = "upgrade" in listed(headers.get("connection", "").lower())
    is_websocket = headers.get("upgrade", "").strip().lower() == "websocket"
    if not (is_upgrade and is_websocket and headers.get("sec-websocket-version") == VERSION):
        return HttpProblem.UPGRADE_REQUIRED
    return None if KEY.fullmatch(headers.get("sec-websocket-key", "")) else HttpProblem.BAD_REQUEST


def acceptance(headers: Mapping[str, str]) -> bytes:
    """The answer that accepts a request, as bytes."""
    digest = hashlib.sha1(headers["sec-websocket-key"].encode() + GUID, usedforsecurity=False).digest()
    offered = headers.get("sec-websocket-protocol")
    is_offered = offered is not None and SUBPROTOCOL in listed(offered)
    return SWITCHING % (base64.b64encode(digest), CHOSEN if is_offered else b"")


def rejection(problem: HttpProblem) -> bytes:
    """The answer that refuses a request, as bytes. The connection ends with it."""
    headers = problem.headers | REFUSAL_HEADERS.get(problem, {})
    body = msgspec.json.encode(problem.body)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    status = problem.status
    return REFUSED % (status.value, status.phrase.encode(), len(body), lines, body)


async def in_time(work: Coroutine[Any, Any, None]) -> None:
    """Await the check of credentials in the URL. Raises Unverifiable after IDENTIFY_S_MAX."""
    try:
        async with asyncio.timeout(IDENTIFY_S_MAX):
            await work
    except TimeoutError:
        raise Unverifiable("slow") from None


def query_of(text: str) -> dict[str, str]:
    """The fields of a query. Raises ValueError for too many."""
    return dict(parse_qsl(text, max_num_fields=QUERY_FIELDS_MAX)) if text else {}


def requested_account(account_id: str, query: Mapping[str, str]) -> Subscribe:
    """The subscription that path and query request. Raises msgspec.ValidationError, a ValueError."""
    wanted: dict[str, Any] = {"type": "subscribe", **query, "account_id": account_id}
    return msgspec.convert(wanted, Subscribe, strict=False)
