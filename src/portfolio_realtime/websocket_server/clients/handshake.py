"""The server's side of the opening handshake (RFC 6455 §4.2), for a request that is parsed already.

Written out because the handshake of the package `websockets` parses the same headers once more and took a
sixth of what a connection costs (decision 5); the tests compare the two. No extension is ever agreed to.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from portfolio_realtime.config import listed

SUBPROTOCOL: Final = "bearer"
VERSION: Final = "13"
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes
SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n%b\r\n"
)
CHOSEN: Final = b"Sec-WebSocket-Protocol: %b\r\n" % SUBPROTOCOL.encode()


def refusal(method: str, http_version: str, headers: Mapping[str, str]) -> HTTPStatus | None:
    """What speaks against this request, or None; header names in lower case."""
    if method != "GET":
        return HTTPStatus.METHOD_NOT_ALLOWED
    if http_version != "1.1":  # 505 would fit, too, but would count as a fault of ours
        return HTTPStatus.BAD_REQUEST
    is_upgrade = "upgrade" in listed(headers.get("connection", "").lower())
    is_websocket = headers.get("upgrade", "").strip().lower() == "websocket"
    if not (is_upgrade and is_websocket and headers.get("sec-websocket-version") == VERSION):
        return HTTPStatus.UPGRADE_REQUIRED
    return None if KEY.fullmatch(headers.get("sec-websocket-key", "")) else HTTPStatus.BAD_REQUEST


def acceptance(headers: Mapping[str, str]) -> bytes:
    """The answer to a request that nothing speaks against."""
    digest = hashlib.sha1(headers["sec-websocket-key"].encode() + GUID, usedforsecurity=False).digest()
    is_offered = SUBPROTOCOL in listed(headers.get("sec-websocket-protocol", ""))
    return SWITCHING % (base64.b64encode(digest), CHOSEN if is_offered else b"")
