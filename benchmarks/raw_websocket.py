"""A WebSocket client made of bytes: it can send what no library would, and says what comes back."""

import asyncio
import contextlib
import struct
from dataclasses import dataclass
from typing import Final, Self

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="  # the sample of RFC 6455 §1.3
MASK: Final = b"\x37\xfa\x21\x3d"  # the sample of §5.7
CUT: Final = -1  # instead of a close code: the connection ended without a close frame
ANSWER_S_MAX: Final = 20.0
HEADERS: Final = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


@dataclass(frozen=True)
class Frame:
    """A frame of the server."""

    opcode: int
    payload: bytes
    is_last: bool = True
    reserved: int = 0
    is_masked: bool = False

    @property
    def close_code(self) -> int:
        """Of a close frame; 1005 when it has none."""
        return int.from_bytes(self.payload[:2]) if len(self.payload) >= 2 else 1005


def masked(payload: bytes, mask: bytes = MASK) -> bytes:
    """The payload as it travels (RFC 6455 §5.3)."""
    length = len(payload)
    key = (mask * (length // len(mask) + 1))[:length]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(
        length
    )  # as one long number: a tenth of the time


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    is_masked: bool = True,
    length: int | None = None,
    length_bytes: int | None = None,
) -> bytes:
    """A frame, right or wrong: `length` lies about the payload, `length_bytes` (0, 2, 8) chooses the form."""
    told = len(payload) if length is None else length
    form = length_bytes if length_bytes is not None else 0 if told < 126 else 2 if told < 1 << 16 else 8
    flag = 0x80 if is_masked else 0
    head = bytes((0x80 * fin | reserved << 4 | opcode,))
    if form == 0:
        head += bytes((flag | told,))
    elif form == 2:
        head += struct.pack("!BH", flag | 126, told)
    else:
        head += struct.pack("!BQ", flag | 127, told)
    return head + (MASK + masked(payload) if is_masked else payload)


def close_payload(code: int, reason: bytes = b"") -> bytes:
    """What a close frame carries."""
    return struct.pack("!H", code) + reason


def upgrade_request(
    path: str, headers: dict[str, str], *, method: str = "GET", version: str = "HTTP/1.1"
) -> bytes:
    """An upgrade request with exactly these headers."""
    lines = [f"{method} {path} {version}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class RawClient:
    """One connection; an async context manager."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def send(self, data: bytes) -> None:
        """Send bytes; a server that has gone is found out by reading."""
        with contextlib.suppress(OSError):
            self._writer.write(data)
            await self._writer.drain()

    def end_sending(self) -> None:
        """Close our half of the connection."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    async def upgrade(self, path: str, headers: dict[str, str] | None = None) -> int:
        """Ask for a WebSocket; the status of the answer."""
        given = {"Host": f"127.0.0.1:{self._port}", **HEADERS, **(headers or {})}
        await self.send(upgrade_request(path, given))
        return (await self.response())[0]

    async def response(self) -> tuple[int, dict[str, str]]:
        """The status and headers of an HTTP answer; status CUT when the connection ends without one."""
        async with asyncio.timeout(ANSWER_S_MAX):
            try:
                head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            except (asyncio.IncompleteReadError, OSError):
                return CUT, {}
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split(" ")[1]), headers

    async def read_body(self, length: int) -> bytes:
        """The body of an HTTP answer. Raises IncompleteReadError, TimeoutError."""
        async with asyncio.timeout(ANSWER_S_MAX):
            return await self._reader.readexactly(length)

    async def read(self) -> Frame | None:
        """The next frame, or None when the connection has ended."""
        async with asyncio.timeout(ANSWER_S_MAX):
            try:
                first, second = await self._reader.readexactly(2)
                length = second & 0x7F
                if length >= 126:
                    length = int.from_bytes(await self._reader.readexactly(2 if length == 126 else 8))
                payload = await self._reader.readexactly(length)
            except (asyncio.IncompleteReadError, OSError):
                return None
        return Frame(first & 15, payload, bool(first & 0x80), first >> 4 & 7, bool(second & 0x80))

    async def close_code(self) -> int:
        """Read to the end: the code of the close frame, or CUT."""
        code = CUT
        while (got := await self.read()) is not None:
            if got.opcode == CLOSE:
                code = got.close_code
        return code
