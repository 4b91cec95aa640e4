"""A minimal WebSocket client. It must be cheap, because it runs on the same machine as the server it loads.

It reads what our server sends (whole text frames, pings, a close frame) and treats anything else as an error
of the server. `tests/interoperability` tests the server with other clients.
"""

import asyncio
import struct
from typing import Final, Protocol, cast

HANDSHAKE_BYTES_MAX: Final = 8192
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
STALLED_RECEIVE_BYTES: Final = 4096  # the kernel's receive buffer of a client that stops reading

# The sample key of RFC 6455 §1.3, whose answer is known. Nothing here needs a nonce.
_KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
_ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
_MASK: Final = bytes(4)  # zeros, so that masking does not change the payload
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_FIN: Final = 0x80

ABNORMAL: Final = 1006  # the connection ended without a close frame
PROTOCOL_ERROR: Final = 1002


class FrameOwner(Protocol):
    """The owner of a `Wire`, called when something happens on it."""

    def opened(self) -> None:
        """The handshake is done."""
        ...

    def text(self, payload: bytes) -> None:
        """A text message arrived."""
        ...

    def ended(self, code: int) -> None:
        """The connection ended: a close code, the HTTP status of a refused upgrade, or ABNORMAL."""
        ...


def request(host: str, path: str) -> bytes:
    """The HTTP request that upgrades to WebSocket (RFC 6455 §4.1)."""
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {_KEY}",
        "Sec-WebSocket-Version: 13",
    )
    return "\r\n".join((*lines, "", "")).encode()


def client_frame(opcode: int, payload: bytes) -> bytes:
    """An unfragmented, masked client frame (RFC 6455 §5.2). The payload has at most 65,535 bytes."""
    length = len(payload)
    head = (
        bytes((_FIN | opcode, 0x80 | length))
        if length < 126
        else struct.pack("!BBH", _FIN | opcode, 0x80 | 126, length)
    )
    return head + _MASK + payload


def text_frame(payload: bytes) -> bytes:
    """A client's text frame."""
    return client_frame(_TEXT, payload)


class Wire(asyncio.Protocol):
    """One connection: it sends the upgrade request and the first frame, then passes messages to its owner."""

    __slots__ = ("_code", "_first", "_is_open", "_owner", "_request", "_transport", "_unread")

    def __init__(self, owner: FrameOwner, request: bytes, first: bytes) -> None:
        self._owner = owner
        self._request = request
        self._first = first  # a frame
        self._transport: asyncio.Transport | None = None
        self._is_open = False
        self._unread = b""
        self._code = ABNORMAL

    def stall(self) -> None:
        """Stop reading."""
        if self._transport is not None:
            self._transport.pause_reading()

    def abort(self) -> None:
        """Abort the connection, without a close frame."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the upgrade request."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Read the answer to the upgrade request, then frames."""
        self._unread = self._unread + data if self._unread else data
        if self._is_open or self._has_opened():
            self._read_frames()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner that the connection ended."""
        self._transport = None
        self._owner.ended(self._code)

    def _has_opened(self) -> bool:
        head, end, rest = self._unread.partition(b"\r\n\r\n")
        if not end:
            if len(head) > HANDSHAKE_BYTES_MAX:
                self.abort()
            return False
        if not head.startswith(b"HTTP/1.1 101") or _ACCEPT not in head:
            status = head[9:12]
            self._code = int(status) if status.isdigit() else ABNORMAL
            self.abort()
            return False
        self._unread, self._is_open = rest, True
        assert self._transport is not None
        self._transport.write(self._first)
        self._owner.opened()
        return True

    def _read_frames(self) -> None:
        unread, at = self._unread, 0
        while len(unread) - at >= 2:
            length, start = unread[at + 1], at + 2
            if length == 126:
                start += 2
                length = int.from_bytes(unread[at + 2 : start])
            elif length == 127:
                start += 8
                length = int.from_bytes(unread[at + 2 : start])
            if length > MESSAGE_BYTES_MAX:
                self._fail()
                return
            if len(unread) < start + length:
                break
            self._frame(unread[at], unread[start : start + length])
            at = start + length
        self._unread = unread[at:]

    def _frame(self, head: int, payload: bytes) -> None:
        if head == _FIN | _TEXT:
            self._owner.text(payload)
        elif head == _FIN | _PING:
            self._write(client_frame(_PONG, payload))
        elif head == _FIN | _CLOSE:
            self._code = int.from_bytes(payload[:2]) if len(payload) >= 2 else 1005
            self._write(client_frame(_CLOSE, payload[:2]))
            if self._transport is not None:
                self._transport.close()
        elif head != _FIN | _PONG:
            self._fail()

    def _write(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def _fail(self) -> None:
        self._code = PROTOCOL_ERROR
        self.abort()
