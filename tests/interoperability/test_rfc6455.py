"""RFC 6455 case by case: what a client may send, what it must not, and what the server says to it.

Each case is bytes on a real socket. After whatever the server must survive, it still answers a ping.
"""

import asyncio
import itertools
import json
from dataclasses import dataclass

import pytest
from benchmarks.raw_websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    CUT,
    HEADERS,
    PING,
    PONG,
    TEXT,
    Frame,
    RawClient,
    close_payload,
    frame,
    upgrade_request,
)

from portfolio_realtime.wire.messages import MESSAGE_BYTES_MAX, Disconnect
from tests.interoperability.conftest import ACCOUNT_ID, Running
from tests.support.websocket_servers import bearer

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = f"/ws/portfolio/{ACCOUNT_ID}"
HEARTBEAT = '{"type":"heartbeat","timestamp":"κόσμε 🚀"}'.encode()
ACK = '{"type":"heartbeat_ack","timestamp":"κόσμε 🚀"}'.encode()
PROTOCOL_ERROR, INVALID_DATA, TOO_BIG = 1002, 1007, 1009
ASCII = b'{"type":"heartbeat","timestamp":1}'


@dataclass(frozen=True)
class Case:
    """Bytes, and what comes back: messages and pongs in order, then perhaps a close code."""

    name: str
    sent: bytes
    answers: tuple[tuple[int, bytes], ...] = ()
    code: int | None = None  # None: the connection lives on


def _pieces(payload: bytes, size: int) -> bytes:
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    last = len(parts) - 1
    return b"".join(
        frame(CONTINUATION if index else TEXT, part, fin=index == last) for index, part in enumerate(parts)
    )


def _lives(name: str, sent: bytes, *answers: tuple[int, bytes]) -> Case:
    return Case(name, sent, answers)


def _ends(name: str, sent: bytes, code: int) -> Case:
    return Case(name, sent, (), code)


ACKED = (TEXT, ACK)
MESSAGES = [
    _lives("a text message", frame(TEXT, HEARTBEAT), ACKED),
    _lives("two in one segment", frame(TEXT, HEARTBEAT) * 2, ACKED, ACKED),
    _lives("in two fragments", _pieces(HEARTBEAT, 30), ACKED),
    _lives("in fragments of one byte, code points split", _pieces(HEARTBEAT, 1), ACKED),
    _lives(
        "with empty fragments",
        frame(TEXT, fin=False)
        + frame(CONTINUATION, fin=False)
        + frame(CONTINUATION, HEARTBEAT, fin=False)
        + frame(CONTINUATION),
        ACKED,
    ),
    _lives(
        "a ping between two fragments is answered",
        frame(TEXT, HEARTBEAT[:9], fin=False) + frame(PING, b"now") + frame(CONTINUATION, HEARTBEAT[9:]),
        (PONG, b"now"),
        ACKED,
    ),
    _lives(
        "pings between many fragments are answered in their order, before the message",
        frame(TEXT, HEARTBEAT[:9], fin=False)
        + frame(PING, b"1")
        + frame(CONTINUATION, HEARTBEAT[9:20], fin=False)
        + frame(PING, b"2")
        + frame(CONTINUATION, HEARTBEAT[20:]),
        (PONG, b"1"),
        (PONG, b"2"),
        ACKED,
    ),
    _lives(
        "the largest message",
        frame(TEXT, ASCII.ljust(MESSAGE_BYTES_MAX)),
        (TEXT, b'{"type":"heartbeat_ack","timestamp":1}'),
    ),
    _lives("a mask of its own each", frame(TEXT, HEARTBEAT), ACKED),
]
CONTROL = [
    _lives("a ping without payload", frame(PING), (PONG, b"")),
    _lives("a ping with 125 bytes", frame(PING, b"x" * 125), (PONG, b"x" * 125)),
    _lives("a ping with bytes that are no text", frame(PING, b"\x00\xff\xfe"), (PONG, b"\x00\xff\xfe")),
    _lives("ten pings", frame(PING, b"p") * 10, *((PONG, b"p"),) * 10),
    _lives("a pong that nobody asked for", frame(PONG, b"hello")),
    _ends("a ping with 126 bytes", frame(PING, b"x" * 126), PROTOCOL_ERROR),
    _ends("a pong with 126 bytes", frame(PONG, b"x" * 126), PROTOCOL_ERROR),
    _ends("a fragmented ping", frame(PING, b"x", fin=False), PROTOCOL_ERROR),
    _ends("a fragmented pong", frame(PONG, b"x", fin=False), PROTOCOL_ERROR),
    _ends("a fragmented close", frame(CLOSE, close_payload(1000), fin=False), PROTOCOL_ERROR),
]
RESERVED = [
    *(
        _ends(
            f"reserved bits {bits:03b} in a {name}",
            frame(opcode, HEARTBEAT[:20], reserved=bits),
            PROTOCOL_ERROR,
        )
        for bits, (name, opcode) in itertools.product((1, 2, 3, 4, 5, 6, 7), (("text", TEXT), ("ping", PING)))
    ),
    *(
        _ends(f"reserved opcode {opcode}", frame(opcode, b"x"), PROTOCOL_ERROR)
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    ),
]
FRAGMENTS = [
    _ends("a continuation of nothing", frame(CONTINUATION, b"x"), PROTOCOL_ERROR),
    _ends("a continuation of nothing, not the last", frame(CONTINUATION, b"x", fin=False), PROTOCOL_ERROR),
    _ends(
        "a text inside a fragmented text", frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), PROTOCOL_ERROR
    ),
    _ends(
        "a binary inside a fragmented text",
        frame(TEXT, b"{", fin=False) + frame(BINARY, b"}"),
        PROTOCOL_ERROR,
    ),
    Case(
        "a continuation after the last fragment",
        _pieces(HEARTBEAT, 30) + frame(CONTINUATION, b"x"),
        (ACKED,),
        PROTOCOL_ERROR,
    ),
]
SIZES = [
    _ends("a message that is too big", frame(TEXT, b" " * (MESSAGE_BYTES_MAX + 1)), TOO_BIG),
    _ends("fragments that are too big together", _pieces(b" " * (MESSAGE_BYTES_MAX + 1), 1000), TOO_BIG),
    _ends("a length of 2^62, announced", frame(TEXT, b"x", length=1 << 62), TOO_BIG),
    _ends("a length of 2^31, announced", frame(TEXT, b"x", length=1 << 31), TOO_BIG),
]
UTF8 = [
    _ends(f"bytes that are no UTF-8: {wrong.hex()}", frame(TEXT, b'{"type":"' + wrong + b'"}'), INVALID_DATA)
    for wrong in (
        b"\xff",
        b"\xc0\xaf",  # overlong
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",  # a surrogate
        b"\xf4\x90\x80\x80",  # beyond U+10FFFF
        b"\xce\xba\xe1\xbd",  # cut off
    )
] + [
    _ends("no UTF-8, in fragments", _pieces(b'{"type":"\xce\xba\xff"}', 10), INVALID_DATA),
    _ends("no UTF-8 in the reason of a close", frame(CLOSE, close_payload(1000, b"\xff\xfe")), INVALID_DATA),
]
MASKS = [
    _ends("a text that is not masked", frame(TEXT, HEARTBEAT, is_masked=False), PROTOCOL_ERROR),
    _ends("a ping that is not masked", frame(PING, b"x", is_masked=False), PROTOCOL_ERROR),
]
CLOSES = [
    *(
        _ends(f"close {code} is answered with the same", frame(CLOSE, close_payload(code, b"bye")), code)
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999)
    ),
    *(
        _ends(f"close {code} is refused", frame(CLOSE, close_payload(code)), PROTOCOL_ERROR)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    ),
    _ends("a close without a code", frame(CLOSE), 1005),
    _ends("a close with half a code", frame(CLOSE, b"\x03"), PROTOCOL_ERROR),
    _ends("a close with the longest reason", frame(CLOSE, close_payload(1000, b"x" * 123)), 1000),
    _ends("a close with too long a reason", frame(CLOSE, close_payload(1000, b"x" * 124)), PROTOCOL_ERROR),
    _ends(
        "a close in the midst of a fragmented message is an error",
        frame(TEXT, b"{", fin=False) + frame(CLOSE, close_payload(1000)),
        PROTOCOL_ERROR,
    ),
    Case(
        "what came before a close is answered",
        frame(PING, b"x") + frame(TEXT, HEARTBEAT) + frame(CLOSE, close_payload(1000)),
        (ACKED, (PONG, b"x")),
        1000,
    ),
    _ends("nothing is heard after a close", frame(CLOSE, close_payload(1000)) + frame(TEXT, HEARTBEAT), 1000),
]
OURS = [
    _ends("a binary message", frame(BINARY, b"\x00"), Disconnect.BAD_MESSAGE.code),
    _ends("an empty binary message", frame(BINARY), Disconnect.BAD_MESSAGE.code),
]


def _said(text: bytes) -> tuple[bytes, tuple[int, bytes]]:
    """A heartbeat that carries this text, and its answer, which carries it back."""
    return (
        b'{"type":"heartbeat","timestamp":"%b"}' % text,
        (TEXT, b'{"type":"heartbeat_ack","timestamp":"%b"}' % text),
    )


def _utf8(group: str, *texts: bytes) -> list[Case]:
    said = [(text, *_said(text)) for text in texts]
    return [
        case
        for text, sent, answer in said
        for case in (
            _lives(f"{group}: {text.hex()}", frame(TEXT, sent), answer),
            _lives(f"{group}: {text.hex()}, byte by byte", _pieces(sent, 1), answer),
        )
    ]


def _no_utf8(group: str, *texts: bytes) -> list[Case]:
    return [
        _ends(f"{group}: {text.hex()}", frame(TEXT, b'{"type":"%b"}' % text), INVALID_DATA) for text in texts
    ]


ACK_1 = (TEXT, b'{"type":"heartbeat_ack","timestamp":1}')
BROKEN = (TEXT, b'{"type":"error","code":"bad_message","message":"no such message; see the protocol"}')
# What Autobahn's testsuite asks beyond the cases above, by the numbers of its groups; where it wants the
# message back we answer a heartbeat, and what is longer than a message may be is refused.
AUTOBAHN = [
    _lives("1.1.1 an empty text", frame(TEXT), BROKEN),
    *(
        _lives(f"1.1.2 to 1.1.5 a text of {size} bytes", frame(TEXT, ASCII.ljust(size)), ACK_1)
        for size in (125, 126, 127, 128)
    ),
    *(
        _ends(f"1.1.6 to 1.1.8 a text of {size} bytes", frame(TEXT, b" " * size), TOO_BIG)
        for size in (65_535, 65_536)
    ),
    _lives("2.9 a pong, then a ping", frame(PONG, b"x") + frame(PING, b"y"), (PONG, b"y")),
    *(
        Case(
            f"3.{bits + 1} a text, one with reserved bits {bits:03b}, a ping",
            frame(TEXT, HEARTBEAT) + frame(TEXT, HEARTBEAT, reserved=bits) + frame(PING),
            (ACKED,),
            PROTOCOL_ERROR,
        )
        for bits in range(1, 8)
    ),
    *(
        Case(
            f"4.1 and 4.2 a text, opcode {opcode} with a payload, a ping",
            frame(TEXT, HEARTBEAT) + frame(opcode, b"reserved") + frame(PING),
            (ACKED,),
            PROTOCOL_ERROR,
        )
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    ),
    _ends("5.1 a ping in two fragments", frame(PING, b"1", fin=False) + frame(CONTINUATION), PROTOCOL_ERROR),
    _ends("5.2 a pong in two fragments", frame(PONG, b"1", fin=False) + frame(CONTINUATION), PROTOCOL_ERROR),
    _ends("5.9 a continuation of nothing, then a text", frame(CONTINUATION) + frame(TEXT), PROTOCOL_ERROR),
    _ends("5.18 two beginnings", frame(TEXT, b"1", fin=False) + frame(TEXT, b"2", fin=False), PROTOCOL_ERROR),
    *_utf8("6.2 and 6.5", "Hello-µ@ßöäüàá-UTF-8!!".encode(), "κόσμε".encode()),
    *_no_utf8("6.3 in the middle", "κόσμε".encode() + b"\xed\xa0\x80edited"),
    *_no_utf8("6.6 cut off", b"\xce", b"\xe1\xbd", b"\xce\xba\xe1", b"\xf0\x90\x80"),
    *_utf8("6.7 the first of each length", b"\x20", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"),
    *_no_utf8("6.8 the first of five and six bytes", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"),
    *_utf8("6.9 the last of each length", b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"),
    *_no_utf8("6.10 beyond", b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"),
    *_utf8("6.11 around the surrogates", b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd"),
    *_no_utf8("6.11 beyond U+10FFFF", b"\xf4\x90\x80\x80"),
    *_no_utf8("6.12 only continuations", b"\x80", b"\xbf", b"\x80\xbf" * 3),
    *_no_utf8("6.13 lonely beginnings", b"\xc0 \xdf ", b"\xe0 \xef ", b"\xf0 \xf7 ", b"\xfc \xfd "),
    *_no_utf8("6.14 the last byte is missing", b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf"),
    *_no_utf8("6.15 missing bytes, one after the other", b"\xc0\xe0\x80\xf0\x80\x80\xdf\xef\xbf"),
    *_no_utf8("6.16 impossible bytes", b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"),
    *_no_utf8("6.17 to 6.19 overlong", b"\xc0\xaf", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf"),
    *_no_utf8("6.19 overlong nothing", b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80"),
    *_no_utf8("6.20 single surrogates", b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xb0\x80", b"\xed\xbf\xbf"),
    *_no_utf8("6.21 paired surrogates", b"\xed\xa0\x80\xed\xb0\x80", b"\xed\xaf\xbf\xed\xbf\xbf"),
    *_utf8("6.22 no characters", b"\xef\xbf\xbe", b"\xf0\x9f\xbf\xbe", b"\xf3\xbf\xbf\xbf"),
    *_utf8("6.23 specials", b"\xef\xbf\xb9", b"\xef\xbf\xbb", b"\xef\xbf\xbd"),
    _ends("7.1.3 two closes", frame(CLOSE, close_payload(1000)) * 2, 1000),
    _ends("7.1.4 a text after a close", frame(CLOSE, close_payload(1000)) + frame(TEXT, HEARTBEAT), 1000),
    _ends(
        "7.1.6 much, then a close", frame(TEXT, b" " * 65_536) + frame(CLOSE, close_payload(1000)), TOO_BIG
    ),
    _lives("10.1.1 a long text in fragments of 1300", _pieces(ASCII.ljust(MESSAGE_BYTES_MAX), 1300), ACK_1),
]
CASES = [*MESSAGES, *CONTROL, *RESERVED, *FRAGMENTS, *SIZES, *UTF8, *MASKS, *CLOSES, *OURS, *AUTOBAHN]


async def opened(client: RawClient) -> None:
    """Upgrade, and read the first value."""
    assert await client.upgrade(PATH, bearer()) == 101
    first = await client.read()
    assert first is not None
    assert json.loads(first.payload)["type"] == "portfolio"


def check_server_frame(got: Frame) -> None:
    """What must hold of every frame of a server (§5.1, §5.2)."""
    assert not got.is_masked
    assert got.reserved == 0
    assert got.is_last
    if got.opcode >= CLOSE:
        assert len(got.payload) <= 125


async def expect(client: RawClient, case: Case) -> None:
    """The case's answers in their order; then its end, or a ping that is answered."""
    answers: list[tuple[int, bytes]] = []
    for _ in case.answers:
        got = await client.read()
        assert got is not None
        check_server_frame(got)
        answers.append((got.opcode, got.payload))
    assert tuple(answers) == case.answers
    if case.code is None:
        await client.send(frame(PING, b"still there?"))
        got = await client.read()
        assert got == Frame(PONG, b"still there?")
        return
    got = await client.read()
    assert got is not None, "cut off without a close frame"
    check_server_frame(got)
    assert (got.opcode, got.close_code) == (CLOSE, case.code)
    assert (
        await client.read() is None
    )  # a close frame is the last one (§5.5.1), and the server closes (§7.1.1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_frames(running: Running, case: Case) -> None:
    """All at once, as one segment."""
    async with RawClient(running.served.port) as client:
        await opened(client)
        await client.send(case.sent)
        await expect(client, case)


@pytest.mark.parametrize("case", [*MESSAGES[2:6], *CONTROL[1:2], *CLOSES[:1]], ids=lambda case: case.name)
async def test_frames_byte_by_byte(running: Running, case: Case) -> None:
    """Where the network cuts does not matter."""
    async with RawClient(running.served.port) as client:
        await opened(client)
        for byte in case.sent:
            await client.send(bytes((byte,)))
            await asyncio.sleep(0)
        await expect(client, case)


async def test_lengths_may_be_longer_than_they_need(running: Running) -> None:
    """§5.2 asks the sender for the shortest form; we do not insist, and read all three alike."""
    async with RawClient(running.served.port) as client:
        await opened(client)
        for length_bytes in (0, 2, 8):
            await client.send(
                frame(PING, b"x") if length_bytes == 0 else frame(TEXT, HEARTBEAT, length_bytes=length_bytes)
            )
            got = await client.read()
            assert got is not None
            assert (got.opcode, got.payload) == ((PONG, b"x") if length_bytes == 0 else ACKED)


async def test_who_closes_its_half_is_closed(running: Running) -> None:
    """The end of the stream without a close frame is an end."""
    async with RawClient(running.served.port) as client:
        await opened(client)
        client.end_sending()
        assert await client.close_code() in (CUT, 1006, 1011)


WRONG_UPGRADES: dict[str, tuple[dict[str, str | None], int]] = {
    "no key": ({"Sec-WebSocket-Key": None}, 400),
    "a key that is too short": ({"Sec-WebSocket-Key": "c2hvcnQ="}, 400),
    "a key that is no base64": ({"Sec-WebSocket-Key": "!" * 24}, 400),
    "no version": ({"Sec-WebSocket-Version": None}, 426),
    "version 8": ({"Sec-WebSocket-Version": "8"}, 426),
    "a version that is no number": ({"Sec-WebSocket-Version": "thirteen"}, 426),
}


@pytest.mark.parametrize("name", WRONG_UPGRADES)
async def test_a_wrong_upgrade_request_is_refused(running: Running, name: str) -> None:
    """§4.2.1; and the answer to a wrong version names the right one (§4.2.2)."""
    changes, status = WRONG_UPGRADES[name]
    headers = {"Host": "127.0.0.1", **HEADERS, **bearer(), **changes}
    present = {header: value for header, value in headers.items() if value is not None}
    async with RawClient(running.served.port) as client:
        await client.send(upgrade_request(PATH, present))
        got, answered = await client.response()
    assert got == status
    if status == 426:
        assert answered["sec-websocket-version"] == "13"


async def test_header_names_and_the_word_websocket_know_no_case(running: Running) -> None:
    """§4.2.1: compared case-insensitively; Connection may name more than the upgrade."""
    headers = {name.lower(): value for name, value in HEADERS.items()}
    headers |= {"upgrade": "WebSocket", "connection": "keep-alive, UPGRADE", "host": "127.0.0.1", **bearer()}
    async with RawClient(running.served.port) as client:
        await client.send(upgrade_request(PATH, headers))
        status, answered = await client.response()
    assert status == 101
    assert answered["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # §1.3
    assert answered["upgrade"].lower() == "websocket"


@pytest.mark.parametrize(
    "offer", ["permessage-deflate", "permessage-deflate; client_max_window_bits", "x-foo, bar"]
)
async def test_extensions_are_declined_by_silence(running: Running, offer: str) -> None:
    """§9.1: what the answer does not name is not in use; a compressed frame is then an error."""
    async with RawClient(running.served.port) as client:
        headers = {"Host": "127.0.0.1", **HEADERS, **bearer(), "Sec-WebSocket-Extensions": offer}
        await client.send(upgrade_request(PATH, headers))
        status, answered = await client.response()
        assert status == 101
        assert "sec-websocket-extensions" not in answered
        await client.send(frame(TEXT, b"\xaa\x56\x2a\xa9\x2c\x48\x55\xb2\x52\x00\x00", reserved=4))
        assert await client.close_code() == PROTOCOL_ERROR


async def test_a_subprotocol_that_we_do_not_speak_is_not_answered(running: Running) -> None:
    """§4.2.2: the client then knows that it is not in use."""
    async with RawClient(running.served.port) as client:
        headers = {"Host": "127.0.0.1", **HEADERS, **bearer(), "Sec-WebSocket-Protocol": "chat, superchat"}
        await client.send(upgrade_request(PATH, headers))
        status, answered = await client.response()
    assert status == 101
    assert "sec-websocket-protocol" not in answered
