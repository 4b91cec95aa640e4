"""One connection to Alpaca's market-data stream: log in, subscribe, read; MessagePack, no compression.

Whoever reads must go on reading: `subscribe` waits for an answer that arrives through `read`. Nothing here
reconnects; every loss is a FeedUnavailable, every final refusal a FeedRefused, and a new connection starts
from nothing, as the feed does.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from portfolio_realtime.errors import FeedRefused, FeedUnavailable
from portfolio_realtime.market.messages import Message, Refusal, Subscription, Success, decode_frame

ANSWER_S_MAX: Final = 10.0  # for the welcome, the login and each subscription
PING_S: Final = 10.0
CLOSE_S_MAX: Final = 1.0
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024  # the acknowledgement lists every symbol
FRAMES_BUFFERED_MAX: Final = 64
REQUEST_BYTES_MAX: Final = 32 * 1024
SYMBOL_OVERHEAD_BYTES: Final = 3  # quotes and comma of JSON, or the header of MessagePack

INVALID_SYNTAX: Final = 400
AUTH_FAILED: Final = 402
SYMBOL_LIMIT: Final = 405
CONNECTION_LIMIT: Final = 406
SLOW_CLIENT: Final = 407
INSUFFICIENT_SUBSCRIPTION: Final = 409
INVALID_ACTION: Final = 410
INSUFFICIENT_SCOPE: Final = 411

KEYS_REMEDY: Final = "check MARKET_API_KEY and MARKET_SECRET_KEY (else BROKER_API_KEY and BROKER_SECRET_KEY)"
_FINAL: Final = {
    AUTH_FAILED: KEYS_REMEDY,
    INSUFFICIENT_SUBSCRIPTION: "choose with ALPACA_DATA_FEED a feed that the plan includes",
    INSUFFICIENT_SCOPE: "the key needs the scope for market data",
    INVALID_ACTION: "this feed has no trades",
}

_encode = msgspec.msgpack.Encoder().encode


class StreamLost(FeedUnavailable):
    """A connection has ended; `reason` is a word for the metrics: lost, mute, or the feed's error code."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class MarketStream:
    """An open connection. `subscribed` is what the feed says that we get."""

    def __init__(self, connection: ClientConnection, name: str) -> None:
        self.subscribed: frozenset[str] = frozenset()
        self._connection = connection
        self._name = name
        self._answer: asyncio.Future[Subscription | Refusal] | None = None

    async def close(self) -> None:
        """Say goodbye, so that the feed frees our place at once."""
        await self._connection.close()

    async def read(self) -> tuple[list[Message], list[str]]:
        """The data messages of the next frame and the types of what is not read.

        Raises FeedUnavailable when the connection is lost or the feed ends it, FeedRefused.
        """
        messages, skipped = await self._frame()
        if messages and isinstance(messages[0], Success | Refusal | Subscription):
            self._control(messages[0])
            messages = messages[1:]
        return messages, skipped

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
        """Subscribe to trades; the symbols that the feed does not accept are returned.

        Raises FeedUnavailable when no answer comes.
        """
        left_out: list[str] = []
        batches = list(reversed(_batches(sorted(symbols))))
        while batches:
            batch = batches.pop()
            answer = await self._ask({"action": "subscribe", "trades": batch})
            if isinstance(answer, Subscription):
                continue
            if answer.code not in (SYMBOL_LIMIT, INVALID_SYNTAX):
                raise _failure(self._name, answer)
            if len(batch) > 1:
                half = len(batch) // 2
                batches += [batch[half:], batch[:half]]
                continue
            left_out += batch
            if answer.code == SYMBOL_LIMIT:  # it is full: whatever is left does not fit either
                left_out += [symbol for rest in batches for symbol in rest]
                break
        return left_out

    async def unsubscribe(self, symbols: Iterable[str]) -> None:
        """End the subscription of these symbols. Raises FeedUnavailable when no answer comes."""
        for batch in _batches(sorted(symbols)):
            await self._ask({"action": "unsubscribe", "trades": batch})

    async def _ask(self, request: dict[str, object]) -> Subscription | Refusal:
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
            await self._connection.send(_encode(request))
        except (WebSocketException, OSError) as error:
            raise StreamLost(f"{self._name} is lost: {error}", "lost") from error

    async def _frame(self) -> tuple[list[Message], list[str]]:
        try:
            return decode_frame(await self._connection.recv())
        except (WebSocketException, OSError) as error:
            raise StreamLost(f"{self._name} is lost: {error}", "lost") from error

    async def _success(self, text: str) -> None:
        messages, _ = await self._frame()
        match messages:
            case [Success(text=said)] if said == text:
                return
            case [Refusal() as refusal]:
                raise _failure(self._name, refusal)
            case _:
                raise FeedUnavailable(f"{self._name} says something else than {text!r}")

    def _control(self, message: Success | Refusal | Subscription) -> None:
        if isinstance(message, Subscription):
            self.subscribed = frozenset(message.trades or ())
        if isinstance(message, Refusal) and (self._answer is None or message.code in _ENDING):
            raise _failure(self._name, message)
        if self._answer is not None and not self._answer.done() and not isinstance(message, Success):
            self._answer.set_result(message)


_ENDING: Final = (*_FINAL, CONNECTION_LIMIT, SLOW_CLIENT)


async def open_stream(url: str, name: str) -> MarketStream:
    """Connect. Raises FeedRefused for a refusal that waiting does not help, else FeedUnavailable."""
    try:
        connection = await connect(
            url,
            additional_headers={"Content-Type": "application/msgpack"},
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
        raise FeedUnavailable(f"{name} answers HTTP {status}") from error
    except (WebSocketException, OSError, TimeoutError) as error:
        raise FeedUnavailable(f"{name} cannot be reached: {type(error).__name__} {error}") from error
    return MarketStream(connection, name)


def _failure(name: str, refusal: Refusal) -> FeedRefused | FeedUnavailable:
    said = f"{name} answers {refusal.code} {refusal.text}"
    remedy = _FINAL.get(refusal.code)
    return StreamLost(said, str(refusal.code)) if remedy is None else FeedRefused(f"{said}; {remedy}")


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
