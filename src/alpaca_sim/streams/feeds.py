"""Market-data feeds: who subscribed to what, and each subscriber's bounded buffer. No socket here."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from alpaca_sim.core.clock import SECOND_NS, Clock
from alpaca_sim.core.faults import Faults
from alpaca_sim.core.market import OVERNIGHT_TAPE, Amendment, Market, MarketSymbol, Trade
from alpaca_sim.streams.messages import (
    Encoding,
    encode_amendment,
    encode_band,
    encode_bar,
    encode_quote,
    encode_status,
    encode_trade,
    encode_unknown,
    frame,
)

OUTBOUND_BYTES_MAX = 16 * 1024 * 1024
HELD_MESSAGES_MAX = 2_000_000  # on their way to one delayed feed: the oldest of more are told early
BATCH_MESSAGES_MAX = 1_000  # keeps a frame below the 1 MiB that clients accept by default
TRADES_PER_QUOTE = 8
STAR = "*"
STOCK_CHANNELS = ("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "imbalances")


@dataclass(frozen=True, slots=True)
class FeedKind:
    """One endpoint: its path, asset class and channels."""

    path: str
    asset_class: str
    channels: tuple[str, ...]
    is_msgpack_only: bool = False
    is_overnight: bool = False  # it has the overnight market's trades and no others
    is_delayed: bool = False  # at Alpaca by 15 minutes, here by the setting `delay_s`

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


FEED_KINDS = (
    FeedKind("/v2/sip", "us_equity", STOCK_CHANNELS),
    FeedKind("/v2/iex", "us_equity", STOCK_CHANNELS),
    FeedKind("/v2/delayed_sip", "us_equity", STOCK_CHANNELS, is_delayed=True),
    FeedKind("/v1beta1/boats", "us_equity", STOCK_CHANNELS, is_overnight=True),
    FeedKind("/v1beta1/overnight", "us_equity", STOCK_CHANNELS, is_overnight=True, is_delayed=True),
    FeedKind("/v2/test", "test", ("trades", "quotes", "bars")),
    FeedKind(
        "/v1beta3/crypto/us", "crypto", ("trades", "quotes", "orderbooks", "bars", "updatedBars", "dailyBars")
    ),
    FeedKind("/v1beta1/indicative", "us_option", ("trades", "quotes"), is_msgpack_only=True, is_delayed=True),
    FeedKind("/v1beta1/opra", "us_option", ("trades", "quotes"), is_msgpack_only=True),
)


@dataclass(slots=True, eq=False)
class Subscriber:
    """One connection's subscriptions and what waits to be sent to it."""

    client: tuple[str, int]
    encoding: Encoding
    subscriptions: dict[str, set[str]]
    feed_name: str = ""
    has_token: bool = False  # authenticated with a bearer token
    is_frozen: bool = False  # half open: nothing is read, nothing is sent
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    outbound: deque[bytes] = field(default_factory=deque[bytes])
    outbound_bytes: int = 0
    slow: asyncio.Event = field(default_factory=asyncio.Event)
    is_refused: bool = False
    is_sending: bool = False
    is_closed: bool = False
    _pending: list[bytes] = field(default_factory=list[bytes])

    def enqueue(self, message: bytes) -> None:
        """Add one data message to the batch that goes out at the next flush."""
        if self.slow.is_set() or self.is_frozen:
            return
        self._pending.append(message)
        if len(self._pending) >= BATCH_MESSAGES_MAX:
            self.flush()

    def reverse(self) -> None:
        """Turn the order of the batch that waits."""
        self._pending.reverse()

    def flush(self) -> None:
        """Frame the pending messages as one batch."""
        if self._pending:
            self._enqueue(frame(self._pending, self.encoding))
            self._pending.clear()

    def send_control(self, encoded: bytes) -> None:
        """Queue one control message, alone in its array, after the data before it."""
        self.flush()
        self._enqueue(frame([encoded], self.encoding))

    def dequeue(self) -> bytes | None:
        """The next frame to send."""
        if not self.outbound:
            return None
        next_frame = self.outbound.popleft()
        self.outbound_bytes -= len(next_frame)
        return next_frame

    def close(self) -> None:
        """End the connection after what waits is sent."""
        self.is_closed = True
        self.wake.set()

    def drop_outbound(self) -> None:
        """Forget everything that waits."""
        self._pending.clear()
        self.outbound.clear()
        self.outbound_bytes = 0

    @property
    def is_flushed(self) -> bool:
        """Whether nothing waits and nothing is being sent."""
        return not self._pending and not self.outbound and not self.is_sending

    def _enqueue(self, encoded_frame: bytes) -> None:
        if self.outbound_bytes + len(encoded_frame) > OUTBOUND_BYTES_MAX:
            self.slow.set()
        else:
            self.outbound.append(encoded_frame)
            self.outbound_bytes += len(encoded_frame)
        self.wake.set()


class _Held(NamedTuple):
    """A message on its way to a delayed feed, with the last eligible trade as it was then."""

    due_ns: int
    channel: str
    symbol: str
    encoded: dict[Encoding, bytes]
    last: Trade | None


class Feed:
    """All authenticated subscribers of one endpoint, indexed by channel and symbol."""

    def __init__(self, kind: FeedKind) -> None:
        """No subscriber yet."""
        self.kind = kind
        self.subscribers: set[Subscriber] = set()
        self.handshake_at = float("-inf")  # when the last handshake was accepted, loop time
        self.held: deque[_Held] = deque()
        self.told: dict[str, Trade | None] = {}  # where delayed: symbol -> the last eligible trade it told
        self._index: dict[str, dict[str, set[Subscriber]]] = {channel: {} for channel in kind.channels}

    def subscribe(self, subscriber: Subscriber, channel: str, symbols: Iterable[str]) -> None:
        """Add symbols (or `*`) of one channel."""
        for symbol in symbols:
            subscriber.subscriptions[channel].add(symbol)
            self._index[channel].setdefault(symbol, set()).add(subscriber)

    def unsubscribe(self, subscriber: Subscriber, channel: str, symbols: Iterable[str]) -> None:
        """Take symbols of one channel away."""
        for symbol in list(symbols):
            subscriber.subscriptions[channel].discard(symbol)
            listeners = self._index[channel].get(symbol, set())
            listeners.discard(subscriber)
            if not listeners:
                self._index[channel].pop(symbol, None)

    def remove(self, subscriber: Subscriber) -> None:
        """Forget a subscriber."""
        for channel, symbols in subscriber.subscriptions.items():
            self.unsubscribe(subscriber, channel, symbols)
        self.subscribers.discard(subscriber)

    def listeners(self, channel: str, symbol: str) -> Iterable[Subscriber]:
        """Who gets messages of this channel and symbol, each once."""
        index = self._index.get(channel, {})
        named, starred = index.get(symbol), index.get(STAR)
        if named and starred:
            return named | starred
        return named or starred or ()

    def symbols(self) -> set[str]:
        """All symbols somebody subscribed, over all channels."""
        return {symbol for by_symbol in self._index.values() for symbol in by_symbol}


class Feeds:
    """All endpoints; a trade is encoded at most once per encoding, however many listen."""

    def __init__(self, market: Market, faults: Faults, clock: Clock, delay_s: float) -> None:
        """One feed per kind. `faults` says which feeds are mute, and what comes twice or in another order;
        what delayed feeds have comes `delay_s` later.
        """
        self.handshake_count = 0
        self._clock = clock
        self._delay_ns = int(delay_s * SECOND_NS)
        self._faults = faults
        self.by_path = {kind.path: Feed(kind) for kind in FEED_KINDS}
        self._by_class: dict[str, list[Feed]] = {}
        for feed in self.by_path.values():
            self._by_class.setdefault(feed.kind.asset_class, []).append(feed)
        self._market = market
        self._trade_count = 0
        self._delayed = [feed for feed in self.by_path.values() if feed.kind.is_delayed and delay_s]
        for feed in self._delayed:
            feed.told = {symbol: _last(feed, state) for symbol, state in market.symbols.items()}

    def publish(self, trade: Trade) -> None:
        """Offer a trade to its listeners, and now and then a quote."""
        asset_class, symbol = trade.asset_class, trade.symbol
        is_overnight = trade.tape == OVERNIGHT_TAPE
        self._deliver(
            "trades", asset_class, symbol, lambda encoding: encode_trade(trade, encoding), is_overnight
        )
        if self._faults.strikes("market.unknown"):
            self._deliver("trades", asset_class, symbol, lambda encoding: encode_unknown(trade, encoding))
        if self._faults.strikes("market.repeat"):
            self._deliver(
                "trades", asset_class, symbol, lambda encoding: encode_trade(trade, encoding), is_overnight
            )
        self._trade_count += 1
        if self._trade_count % TRADES_PER_QUOTE == 0 and not is_overnight:
            state = self._market.symbols[symbol]
            self._deliver(
                "quotes", asset_class, symbol, lambda encoding: encode_quote(state, trade.at_ns, encoding)
            )

    def publish_amendment(self, amendment: Amendment) -> None:
        """Offer a correction or a cancel to those who get the symbol's trades."""
        symbol = amendment.original.symbol
        self._deliver("trades", "us_equity", symbol, lambda encoding: encode_amendment(amendment, encoding))

    def publish_halt(self, state: MarketSymbol, at_ns: int) -> None:
        """Offer the status message of a halt or resumption, and before a halt the band it ran into."""
        symbol = state.listing.symbol
        if state.is_halted:
            self._deliver("lulds", "us_equity", symbol, lambda encoding: encode_band(state, at_ns, encoding))
        self._deliver("statuses", "us_equity", symbol, lambda encoding: encode_status(state, at_ns, encoding))

    def publish_bars(self, start_ns: int) -> None:
        """Offer the bars of the minute that began at `start_ns` and is over now."""
        for symbol, state in self._market.symbols.items():
            if state.minute_bar.start_ns == start_ns:
                encode = partial(encode_bar, state)
                self._deliver("bars", state.listing.asset_class, symbol, encode)

    def _deliver(
        self,
        channel: str,
        asset_class: str,
        symbol: str,
        encode: Callable[[Encoding], bytes],
        is_overnight: bool = False,
    ) -> None:
        encoded: dict[Encoding, bytes] = {}
        for feed in self._by_class[asset_class]:
            if feed.kind.is_overnight != is_overnight:
                continue
            if feed in self._delayed:
                self._hold(feed, channel, symbol, encode)
                continue
            if self._faults.is_on("market.mute", feed.kind.name):
                continue
            for subscriber in feed.listeners(channel, symbol):
                message = encoded.get(subscriber.encoding)
                if message is None:
                    message = encoded[subscriber.encoding] = encode(subscriber.encoding)
                subscriber.enqueue(message)

    def _hold(self, feed: Feed, channel: str, symbol: str, encode: Callable[[Encoding], bytes]) -> None:
        due_ns = self._clock.now_ns() + self._delay_ns
        last = _last(feed, self._market.symbols[symbol])
        encoded = {encoding: encode(encoding) for encoding in Encoding}
        feed.held.append(_Held(due_ns, channel, symbol, encoded, last))

    def _release(self, feed: Feed) -> None:
        """Tell what is due on a delayed feed."""
        now_ns, is_mute = self._clock.now_ns(), self._faults.is_on("market.mute", feed.kind.name)
        while feed.held and (feed.held[0].due_ns <= now_ns or len(feed.held) > HELD_MESSAGES_MAX):
            _, channel, symbol, encoded, feed.told[symbol] = feed.held.popleft()
            for subscriber in () if is_mute else feed.listeners(channel, symbol):
                subscriber.enqueue(encoded[subscriber.encoding])

    def last_trade(self, feed_name: str | None, state: MarketSymbol) -> Trade | None:
        """What REST calls the latest trade of a symbol on this feed, or None."""
        feed = next((feed for feed in self.by_path.values() if feed.kind.name == feed_name), None)
        if feed in self._delayed:
            return feed.told.get(state.listing.symbol)
        return state.mark_trade if feed is None else _last(feed, state)

    def flush(self) -> None:
        """Send out all batches."""
        for feed in self._delayed:
            self._release(feed)
        for subscriber in self.subscribers():
            if self._faults.is_on("market.reorder", subscriber.feed_name):
                subscriber.reverse()
            subscriber.flush()

    def subscribers(self) -> list[Subscriber]:
        """All subscribers of all feeds."""
        return [subscriber for feed in self.by_path.values() for subscriber in feed.subscribers]

    @property
    def is_flushed(self) -> bool:
        """Whether everything published was handed to the sockets."""
        return all(subscriber.is_flushed or subscriber.slow.is_set() for subscriber in self.subscribers())


def _last(feed: Feed, state: MarketSymbol) -> Trade | None:
    return state.night_trade if feed.kind.is_overnight else state.mark_trade
