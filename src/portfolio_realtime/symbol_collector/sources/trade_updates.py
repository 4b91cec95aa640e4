"""The Trading API's `trade_updates` stream, which only reports that an order has been filled.

It has no history and no cash amounts. It therefore only triggers a read of the activities, which are
complete. Frames are JSON, binary or text.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from portfolio_realtime.errors import BrokerUnavailable
from portfolio_realtime.model import ZERO
from portfolio_realtime.outbound import proxy_of

PATH: Final = "/stream"
ANSWER_S_MAX: Final = 10.0
PING_S: Final = 10.0
CLOSE_S_MAX: Final = 1.0
FRAME_BYTES_MAX: Final = 1024 * 1024
FRAMES_BUFFERED_MAX: Final = 64

_FILLS: Final = ("fill", "partial_fill")
_CHANGES: Final = ("trade_bust", "trade_correct", "restated")
_NAME: Final = "trade updates"


class Update(NamedTuple):
    """An order was filled up to `filled_quantity` in total; 0: one of its fills was changed."""

    order_id: str
    filled_quantity: Decimal


async def updates(url: str, key: str, secret: str, connected: Callable[[], None]) -> AsyncGenerator[Update]:
    """Each update that moves cash or positions, from now on; it never ends normally.

    `connected` is called when the stream is granted. Raises BrokerUnavailable when it is cut or refused.
    """
    try:
        async with connect(
            url + PATH,
            proxy=proxy_of(url),
            compression=None,
            max_size=FRAME_BYTES_MAX,
            max_queue=FRAMES_BUFFERED_MAX,
            open_timeout=ANSWER_S_MAX,
            ping_interval=PING_S,
            ping_timeout=2 * PING_S,
            close_timeout=CLOSE_S_MAX,
        ) as connection:
            async with asyncio.timeout(ANSWER_S_MAX):
                await _log_in(connection, key, secret)
            connected()
            async for frame in connection:
                if (update := update_of(decode(frame))) is not None:
                    yield update
    except InvalidStatus as error:
        raise BrokerUnavailable(f"{_NAME}: HTTP {error.response.status_code}") from error
    except (WebSocketException, OSError, TimeoutError) as error:
        raise BrokerUnavailable(f"{_NAME}: {type(error).__name__} {error}") from error
    raise BrokerUnavailable(f"{_NAME}: the stream has ended")


async def _log_in(connection: ClientConnection, key: str, secret: str) -> None:
    await _send(connection, {"action": "authenticate", "data": {"key_id": key, "secret_key": secret}})
    await _expect(connection, "authorization", lambda body: body.get("status") == "authorized")
    await _send(connection, {"action": "listen", "data": {"streams": ["trade_updates"]}})
    await _expect(connection, "listening", lambda body: "trade_updates" in (body.get("streams") or ()))


async def _send(connection: ClientConnection, message: dict[str, Any]) -> None:
    await connection.send(msgspec.json.encode(message).decode())


async def _expect(
    connection: ClientConnection, stream: str, is_granted: Callable[[Mapping[str, Any]], bool]
) -> None:
    """Read until this answer and ignore what comes before it. Raises BrokerUnavailable."""
    async for frame in connection:
        name, body = decode(frame)
        if name == stream or body.get("status") == "unauthorized":
            if not is_granted(body):
                raise BrokerUnavailable(f"{_NAME}: {name} is not granted; fills are found by polling only")
            return
    raise BrokerUnavailable(f"{_NAME}: no answer")


def decode(frame: str | bytes) -> tuple[str, Mapping[str, Any]]:
    """The stream's name and the body of a frame; both empty if it cannot be read."""
    try:
        message = msgspec.json.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", {}
    if not isinstance(message, dict):
        return "", {}
    body = message.get("data")
    return str(message.get("stream") or ""), body if isinstance(body, dict) else {}


def update_of(message: tuple[str, Mapping[str, Any]]) -> Update | None:
    """The update in a message, or None if it moves neither cash nor a position."""
    name, body = message
    event, order = body.get("event"), body.get("order")
    if name != "trade_updates" or event not in (*_FILLS, *_CHANGES):
        return None
    order = order if isinstance(order, Mapping) else {}
    return Update(str(order.get("id") or ""), _filled(order) if event in _FILLS else ZERO)


def _filled(order: Mapping[str, Any]) -> Decimal:
    try:
        quantity = Decimal(str(order.get("filled_qty")))
    except InvalidOperation:
        return ZERO
    return quantity if quantity.is_finite() else ZERO
