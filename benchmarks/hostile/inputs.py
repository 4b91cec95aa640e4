"""Hostile input, made from a seed: four kinds, each between noise and almost right."""

import random
import string
from collections.abc import Callable
from typing import Any, Final

import msgspec

from benchmarks.raw_websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame

BYTES_MAX: Final = 300
FRAMES_MAX: Final = 6
DEPTH_MAX: Final = 40
BIG_MESSAGE_BYTES: Final = 5000  # more than a message may have
OPCODES: Final = (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)
WORDS: Final = (
    *("type", "auth", "subscribe", "unsubscribe", "heartbeat", "token", "account_id", "detail", "timestamp"),
    *(
        "max_frequency_hz",
        "positions",
        "value",
        "a",
        "ab",
        "",
        "*",
        "__proto__",
        "\x00",
        "💥",
        "../..",
        "{s00}",
    ),
)
NUMBERS: Final = (0, -1, 1, 2**53, 2**63, 2**64, -(2**63), 1e308, -1e308, 5e-324, 0.1, 10**400)

Draw = random.Random


def noise(draw: Draw) -> bytes:
    """Bytes of no meaning."""
    return draw.randbytes(draw.randint(0, BYTES_MAX))


def frames(draw: Draw) -> bytes:
    """Frames of any opcode, bits, mask and length, the length sometimes a lie."""
    return b"".join(_frame(draw) for _ in range(draw.randint(1, FRAMES_MAX)))


def _frame(draw: Draw) -> bytes:
    opcode = draw.choice(OPCODES) if draw.random() < 0.9 else draw.randrange(16)
    payload = _payload(draw, opcode)
    lie = (
        None if draw.random() < 0.95 else draw.choice((0, 1, 125, 126, 65536, 2**31, 2**62, 2**63, 2**64 - 1))
    )
    told = len(payload) if lie is None else lie
    form = 0 if told < 126 else 2 if told < 65536 else 8
    return frame(
        opcode,
        payload,
        fin=draw.random() < 0.75,
        reserved=0 if draw.random() < 0.95 else draw.randrange(8),
        is_masked=draw.random() < 0.97,
        length=lie,
        length_bytes=form if draw.random() < 0.95 else 8,
    )


def _payload(draw: Draw, opcode: int) -> bytes:
    if opcode == CLOSE and draw.random() < 0.8:
        return close_payload(draw.randrange(65536) if draw.random() < 0.5 else draw.randint(1000, 4999))
    if draw.random() < 0.5:
        return json_text(draw)
    if draw.random() < 0.02:
        return b" " * BIG_MESSAGE_BYTES
    return noise(draw)


def messages(draw: Draw) -> bytes:
    """Well-framed text messages: JSON that is nearly what the protocol says."""
    return b"".join(frame(TEXT, json_text(draw)) for _ in range(draw.randint(1, FRAMES_MAX)))


def json_text(draw: Draw) -> bytes:
    """One JSON text, sometimes broken."""
    value = _message(draw) if draw.random() < 0.7 else _value(draw, draw.randint(0, 4))
    text = bytearray(_encode(value))
    if draw.random() < 0.3 and text:
        for _ in range(draw.randint(1, 4)):
            text[draw.randrange(len(text))] = draw.randrange(256)
    if draw.random() < 0.05:
        depth = draw.randint(1, DEPTH_MAX) * 40
        text[:] = b"[" * depth if draw.random() < 0.5 else b'{"type":' * depth
    return bytes(text)


def _encode(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (OverflowError, msgspec.MsgspecError):  # 10**400
        return str(value).encode()


def _message(draw: Draw) -> dict[str, Any]:
    kinds: tuple[Callable[[], dict[str, Any]], ...] = (
        lambda: {"type": "heartbeat", "timestamp": _value(draw, 1)},
        lambda: {"type": "auth", "token": _value(draw, 1)},
        lambda: {"type": "subscribe", "account_id": _value(draw, 1), "detail": _value(draw, 1)},
        lambda: {"type": "subscribe", "account_id": "a", "max_frequency_hz": _value(draw, 1)},
        lambda: {"type": "subscribe", "account_id": _name(draw), "detail": "positions"},
        lambda: {"type": "unsubscribe", "account_id": _value(draw, 1)},
        lambda: {"type": _value(draw, 1)},
    )
    message = draw.choice(kinds)()
    if draw.random() < 0.2:
        message[_name(draw)] = _value(draw, 2)
    if draw.random() < 0.1:
        message.pop(draw.choice(list(message)))
    return message


def _value(draw: Draw, depth: int) -> Any:
    kind = draw.randrange(7 if depth > 0 else 5)
    match kind:
        case 0:
            return draw.choice(WORDS)
        case 1:
            return draw.choice(NUMBERS)
        case 2:
            return draw.choice((None, True, False))
        case 3:
            return "".join(draw.choices(string.printable + "é漢💥", k=draw.randint(0, 40)))
        case 4:
            return draw.random() * 10 ** draw.randint(-5, 20)
        case 5:
            return [_value(draw, depth - 1) for _ in range(draw.randint(0, 5))]
        case _:
            return {_name(draw): _value(draw, depth - 1) for _ in range(draw.randint(0, 5))}


def _name(draw: Draw) -> str:
    return draw.choice(WORDS)


def requests(draw: Draw) -> bytes:
    """An upgrade request gone wrong, or something that is none at all."""
    if draw.random() < 0.3:
        return noise(draw)
    method = draw.choice(("GET", "POST", "OPTIONS", "X", "", "GET" * 50))
    path = draw.choice(
        (
            "/ws/portfolio/a",
            "/ws",
            "/",
            "*",
            "/ws/portfolio/" + "a" * 300,
            "/ws/portfolio/%00",
            "/ws/portfolio/a?detail=x",
        )
    )
    lines = [f"{method} {path} {draw.choice(('HTTP/1.1', 'HTTP/1.0', 'HTTP/9', ''))}"]
    for name, value in (
        ("Host", "127.0.0.1"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
        ("Authorization", "Bearer x.y.z"),
        ("Origin", "null"),
    ):
        choice = draw.random()
        if choice < 0.75:
            lines.append(f"{name}: {value}")
        elif choice < 0.9:
            lines.append(f"{name}: {''.join(draw.choices(string.printable.strip(), k=draw.randint(0, 60)))}")
    text = bytearray("\r\n".join([*lines, "", ""]).encode("latin-1"))
    if draw.random() < 0.3:
        text[draw.randrange(len(text))] = draw.randrange(256)
    return bytes(text)


KINDS: Final[dict[str, Callable[[Draw], bytes]]] = {"noise": noise, "frames": frames, "messages": messages}
"""What is sent after a good handshake."""
