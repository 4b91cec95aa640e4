"""One connection to Alpaca's market-data stream: log in, subscribe, read; MessagePack or JSON, uncompressed.

The caller must keep reading: `subscribe` waits for an answer that arrives through `read`. Nothing here
reconnects. A loss raises FeedUnavailable, a final refusal FeedRefused. A new connection starts without any
subscription.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from portfolio_realtime.errors import FeedRefused, FeedUnavailable
from portfolio_realtime.market_data_consumer.messages import (
    Message,
    Refusal,
    StreamTrade,
    SubscriptionMessage,
    Success,
    decode_frame,
    decode_trades,
)
from portfolio_realtime.market_data_consumer.msgpack_columns import begins_with_trade
from portfolio_realtime.market_data_consumer.reconnect_delay import LOST
from portfolio_realtime.outbound import proxy_of

ANSWER_S_MAX: Final = 10.0  # for the welcome, the login and each subscription
PING_S: Final = 10.0
CLOSE_S_MAX: Final = 1.0
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024  # an acknowledgement lists every symbol
FRAMES_BUFFERED_MAX: Final = 64
REQUEST_BYTES_MAX: Final = 32 * 1024
SYMBOL_OVERHEAD_BYTES: Final = 3  # quotes and comma of JSON, or the header of MessagePack

INVALID_SYNTAX: Final = 400
AUTH_FAILED: Final = 402
SYMBOL_LIMIT: Final = 405
CODES: Final = range(400, 600)  # which Alpaca uses; each is a metric label
OTHER: Final = "other"  # the label of all other codes
CONNECTION_LIMIT: Final = 406
SLOW_CLIENT: Final = 407
INSUFFICIENT_SUBSCRIPTION: Final = 409
INVALID_ACTION: Final = 410
INSUFFICIENT_SCOPE: Final = 411
PACKED_ONLY: Final = 412
TOO_MANY_REQUESTS: Final = 429

Encoding = Literal["msgpack", "json"]

KEYS_REMEDY: Final = (
    "check MARKET_API_KEY and MARKET_SECRET_KEY (else APCA_API_KEY_ID and APCA_API_SECRET_KEY, else "
    "BROKER_API_KEY and BROKER_SECRET_KEY)"
)
_FINAL: Final = {
    AUTH_FAILED: KEYS_REMEDY,
    INSUFFICIENT_SUBSCRIPTION: "set {setting} to a feed that the plan includes",
    INSUFFICIENT_SCOPE: "give the key the scope for market data",
    INVALID_ACTION: "this feed has no trades",
    PACKED_ONLY: "this feed offers MessagePack only",
}

_CONTENT_TYPES: Final = {"msgpack": "application/msgpack", "json": "application/json"}
_pack = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode


class StreamLost(FeedUnavailable):
    """A connection has ended. `reason`, its metric label: lost, mute, session, an error code, or other.

    `retry_after_s`: the pause that the feed asks for, if it does.
    """

    def __init__(self, text: str, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Arrived(NamedTuple):
    """The content of one frame: only trades, or messages of any kind and the types of those not read.

    `undecoded`: the frame itself, which begins with a trade; then the others are empty.
    """

    trades: Sequence[StreamTrade]
    messages: list[Message]
    skipped: list[str]
    undecoded: bytes | None = None


def decoded(frame: bytes | str) -> Arrived:
    """The content of a frame."""
    trades = decode_trades(frame)
    return Arrived([], *decode_frame(frame)) if trades is None else Arrived(trades, [], [])


class MarketStream:
    """An open connection. `subscribed`: the symbols that the feed has confirmed."""

    def __init__(
        self, connection: ClientConnection, name: str, setting: str, encoding: Encoding = "msgpack"
    ) -> None:
        self.subscribed: frozenset[str] = frozenset()
        self._connection = connection
        self._name = name
        self._setting = setting
        self._encoding = encoding
        self._is_optional = False  # the request in flight may be refused
        self._answer: asyncio.Future[SubscriptionMessage | Refusal] | None = None

    async def close(self) -> None:
        """Close with a handshake, so that the feed frees our place at once."""
        await self._connection.close()

    async def read(self, *, is_idle: bool = False) -> Arrived:
        """The content of the next frame. `is_idle`: trades are not needed yet, and may stay undecoded.

        Raises FeedUnavailable if the connection is lost or the feed ends it, FeedRefused for a final refusal.
        """
        frame = await self._frame()
        if is_idle and isinstance(frame, bytes) and begins_with_trade(frame):
            return Arrived([], [], [], frame)
        trades, messages, skipped, _ = decoded(frame)
        if messages and isinstance(messages[0], Success | Refusal | SubscriptionMessage):
            self._control(messages[0])
            messages = messages[1:]
        return Arrived(trades, messages, skipped)

    async def log_in(self, key: str, secret: str) -> None:
        """Wait for the welcome and log in. Raises FeedRefused, FeedUnavailable."""
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                await self._success("connected")
                await self._send({"action": "auth", "key": key, "secret": secret})
                await self._success("authenticated")
        except TimeoutError:
            raise FeedUnavailable(f"{self._name} does not answer the login") from None

    async def subscribe(self, symbols: Iterable[str]) -> list[str]:
        """Subscribe to trades; return the symbols that the feed does not accept or does not confirm.

        Raises FeedUnavailable if no answer comes.
        """
        left_out: list[str] = []
        batches = list(reversed(_batches(sorted(symbols))))
        while batches:
            batch = batches.pop()
            answer = await self._ask({"action": "subscribe", "trades": batch})
            if isinstance(answer, SubscriptionMessage):
                left_out += [symbol for symbol in batch if symbol not in self.subscribed]
                continue
            if answer.code not in (SYMBOL_LIMIT, INVALID_SYNTAX):
                raise self._failure(answer)
            if len(batch) > 1:
                half = len(batch) // 2
                batches += [batch[half:], batch[:half]]
                continue
            left_out += batch
            # At the limit, none of the remaining symbols fits either.
            if answer.code == SYMBOL_LIMIT:
                left_out += [symbol for rest in batches for symbol in rest]
                break
        return left_out

    async def subscribe_statuses(self) -> bool:
        """Subscribe to the halts of all symbols; False if the feed does not report them."""
        self._is_optional = True
        try:
            return isinstance(
                await self._ask({"action": "subscribe", "statuses": ["*"]}), SubscriptionMessage
            )
        finally:
            self._is_optional = False

    async def unsubscribe(self, symbols: Iterable[str]) -> None:
        """End the subscription of these symbols. Raises FeedUnavailable if no answer comes."""
        for batch in _batches(sorted(symbols)):
            await self._ask({"action": "unsubscribe", "trades": batch})

    async def _ask(self, request: dict[str, object]) -> SubscriptionMessage | Refusal:
        assert self._answer is None, "one request at a time"
        self._answer = asyncio.get_running_loop().create_future()
        try:
            await self._send(request)
            async with asyncio.timeout(ANSWER_S_MAX):
                return await self._answer
        except TimeoutError:
            raise FeedUnavailable(f"{self._name} does not answer a subscription") from None
        finally:
            self._answer = None

    async def _send(self, request: dict[str, object]) -> None:
        try:
            is_json = self._encoding == "json"
            await self._connection.send(_encode_json(request).decode() if is_json else _pack(request))
        except (WebSocketException, OSError) as error:
            raise StreamLost(f"the connection to {self._name} was lost: {error}", LOST) from error

    async def _frame(self) -> bytes | str:
        try:
            return await self._connection.recv()
        except (WebSocketException, OSError) as error:
            raise StreamLost(f"the connection to {self._name} was lost: {error}", LOST) from error

    async def _success(self, text: str) -> None:
        match decoded(await self._frame()).messages:
            case [Success(text=said)] if said == text:
                return
            case [Refusal() as refusal]:
                raise self._failure(refusal)
            case _:
                raise FeedUnavailable(f"{self._name} sent something other than {text!r}")

    def _control(self, message: Success | Refusal | SubscriptionMessage) -> None:
        if isinstance(message, SubscriptionMessage) and (symbols := message.symbols) is not None:
            self.subscribed = symbols
        if isinstance(message, Refusal) and (self._answer is None or self._is_final(message)):
            raise self._failure(message)
        if self._answer is not None and not self._answer.done() and not isinstance(message, Success):
            self._answer.set_result(message)

    def _is_final(self, refusal: Refusal) -> bool:
        return refusal.code in _ENDING and not (self._is_optional and refusal.code == INVALID_ACTION)

    def _failure(self, refusal: Refusal) -> FeedRefused | FeedUnavailable:
        said = f"{self._name} answers {refusal.code} {refusal.text}"
        remedy = _FINAL.get(refusal.code)
        if remedy is None:
            return StreamLost(said, str(refusal.code) if refusal.code in CODES else OTHER)
        return FeedRefused(f"{said}; {remedy.format(setting=self._setting)}")


_ENDING: Final = (*_FINAL, CONNECTION_LIMIT, SLOW_CLIENT)


async def open_stream(
    url: str, name: str, setting: str = "ALPACA_DATA_FEED", encoding: Encoding = "msgpack"
) -> MarketStream:
    """Connect to a feed. `setting` is the setting that chose the feed; a remedy names it.

    Raises FeedRefused for a refusal that waiting does not resolve, otherwise FeedUnavailable.
    """
    try:
        connection = await connect(
            url,
            proxy=proxy_of(url),
            additional_headers={"Content-Type": _CONTENT_TYPES[encoding]},
            compression=None,
            max_size=FRAME_BYTES_MAX,
            max_queue=FRAMES_BUFFERED_MAX,
            open_timeout=ANSWER_S_MAX,
            ping_interval=PING_S,
            ping_timeout=2 * PING_S,
            close_timeout=CLOSE_S_MAX,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        if status in (401, 403):
            raise FeedRefused(f"{name} refuses the connection (HTTP {status}); {KEYS_REMEDY}") from error
        if status == TOO_MANY_REQUESTS:
            wait_s = _seconds(error.response.headers.get("Retry-After"))
            raise StreamLost(f"{name} answers HTTP {status}", str(status), wait_s) from error
        raise FeedUnavailable(f"{name} answers HTTP {status}") from error
    except (WebSocketException, OSError, TimeoutError) as error:
        raise FeedUnavailable(f"{name} cannot be reached: {type(error).__name__} {error}") from error
    return MarketStream(connection, name, setting, encoding)


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds, or None. This feed is not known to send the other form, a date."""
    return float(header) if header is not None and header.isdecimal() else None


def _batches(symbols: Sequence[str]) -> list[list[str]]:
    batches: list[list[str]] = []
    space = 0
    for symbol in symbols:
        size = len(symbol.encode()) + SYMBOL_OVERHEAD_BYTES
        if size > space:
            batches.append([])
            space = REQUEST_BYTES_MAX - 64  # the rest of the message
        batches[-1].append(symbol)
        space -= size
    return batches
