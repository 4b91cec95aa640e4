"""Market-data feeds without sockets: subscriptions, and the bounded buffer of each connection."""

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
HELD_MESSAGES_MAX = 2_000_000  # waiting for one delayed feed; beyond that the oldest are sent early
BATCH_MESSAGES_MAX = 1_000  # keeps a frame below 1 MiB, the default limit of clients
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
    is_overnight: bool = False  # it has only the trades of the overnight market
    is_delayed: bool = False  # by 15 minutes at Alpaca, by the setting `delay_s` here

    @property
    def name(self) -> str:
        """The feed's name: the last part of its path."""
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
    """The subscriptions of one connection, and the frames that wait to be sent to it."""

    client: tuple[str, int]
    encoding: Encoding
    subscriptions: dict[str, set[str]]
    feed_name: str = ""
    has_token: bool = False  # authenticated with a bearer token
    is_frozen: bool = False  # by the fault `market.half_open`: nothing is read or sent
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    outbound: deque[bytes] = field(default_factory=deque[bytes])
    outbound_bytes: int = 0
    slow: asyncio.Event = field(default_factory=asyncio.Event)
    is_refused: bool = False
    is_sending: bool = False
    is_closed: bool = False
    _pending: list[bytes] = field(default_factory=list[bytes])

    def enqueue(self, message: bytes) -> None:
        """Add one encoded data message to the batch that the next `flush` sends."""
        if self.slow.is_set() or self.is_frozen:
            return
        self._pending.append(message)
        if len(self._pending) >= BATCH_MESSAGES_MAX:
            self.flush()

    def reverse(self) -> None:
        """Reverse the order of the waiting batch."""
        self._pending.reverse()

    def flush(self) -> None:
        """Queue the waiting messages as one frame."""
        if self._pending:
            self._enqueue(frame(self._pending, self.encoding))
            self._pending.clear()

    def send_control(self, encoded: bytes) -> None:
        """Queue one control message in a frame of its own, after the data that was added before."""
        self.flush()
        self._enqueue(frame([encoded], self.encoding))

    def dequeue(self) -> bytes | None:
        """The next frame to send; None when nothing waits."""
        if not self.outbound:
            return None
        next_frame = self.outbound.popleft()
        self.outbound_bytes -= len(next_frame)
        return next_frame

    def close(self) -> None:
        """End the connection once everything that waits is sent."""
        self.is_closed = True
        self.wake.set()

    def drop_outbound(self) -> None:
        """Drop everything that waits."""
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
    """A message that waits for a delayed feed, with the symbol's last eligible trade at its time."""

    due_ns: int
    channel: str
    symbol: str
    encoded: dict[Encoding, bytes]
    last: Trade | None


class Feed:
    """All authenticated subscribers of one endpoint, indexed by channel and symbol."""

    def __init__(self, kind: FeedKind) -> None:
        self.kind = kind
        self.subscribers: set[Subscriber] = set()
        self.handshake_at = float("-inf")  # loop time of the last accepted handshake
        self.held: deque[_Held] = deque()
        self.told: dict[str, Trade | None] = {}  # of a delayed feed: symbol → the last eligible trade sent
        self._index: dict[str, dict[str, set[Subscriber]]] = {channel: {} for channel in kind.channels}

    def subscribe(self, subscriber: Subscriber, channel: str, symbols: Iterable[str]) -> None:
        """Add symbols (or `*`) of one channel."""
        for symbol in symbols:
            subscriber.subscriptions[channel].add(symbol)
            self._index[channel].setdefault(symbol, set()).add(subscriber)

    def unsubscribe(self, subscriber: Subscriber, channel: str, symbols: Iterable[str]) -> None:
        """Remove symbols (or `*`) of one channel."""
        for symbol in list(symbols):
            subscriber.subscriptions[channel].discard(symbol)
            listeners = self._index[channel].get(symbol, set())
            listeners.discard(subscriber)
            if not listeners:
                self._index[channel].pop(symbol, None)

    def remove(self, subscriber: Subscriber) -> None:
        """Remove a subscriber and all its subscriptions."""
        for channel, symbols in subscriber.subscriptions.items():
            self.unsubscribe(subscriber, channel, symbols)
        self.subscribers.discard(subscriber)

    def listeners(self, channel: str, symbol: str) -> Iterable[Subscriber]:
        """The subscribers of this channel and symbol, each once."""
        index = self._index.get(channel, {})
        named, starred = index.get(symbol), index.get(STAR)
        if named and starred:
            return named | starred
        return named or starred or ()

    def symbols(self) -> set[str]:
        """All subscribed symbols of all channels, `*` included."""
        return {symbol for by_symbol in self._index.values() for symbol in by_symbol}


class Feeds:
    """All endpoints. A message is encoded at most once per encoding, for all its subscribers."""

    def __init__(self, market: Market, faults: Faults, clock: Clock, delay_s: float) -> None:
        """Delayed feeds send `delay_s` seconds later. `faults` mutes feeds, repeats and reorders messages."""
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
        """Queue a trade for its subscribers, and after every TRADES_PER_QUOTE trades a quote."""
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
        """Queue a correction or a cancel for the subscribers of the symbol's trades."""
        symbol = amendment.original.symbol
        self._deliver("trades", "us_equity", symbol, lambda encoding: encode_amendment(amendment, encoding))

    def publish_halt(self, state: MarketSymbol, at_ns: int) -> None:
        """Queue the status message of a halt or a resumption; before a halt also its price band (LULD)."""
        symbol = state.listing.symbol
        if state.is_halted:
            self._deliver("lulds", "us_equity", symbol, lambda encoding: encode_band(state, at_ns, encoding))
        self._deliver("statuses", "us_equity", symbol, lambda encoding: encode_status(state, at_ns, encoding))

    def publish_bars(self, start_ns: int) -> None:
        """Queue the bars of the minute that began at `start_ns` and has ended."""
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
        """Queue the messages of a delayed feed that are due."""
        now_ns, is_mute = self._clock.now_ns(), self._faults.is_on("market.mute", feed.kind.name)
        while feed.held and (feed.held[0].due_ns <= now_ns or len(feed.held) > HELD_MESSAGES_MAX):
            _, channel, symbol, encoded, feed.told[symbol] = feed.held.popleft()
            for subscriber in () if is_mute else feed.listeners(channel, symbol):
                subscriber.enqueue(encoded[subscriber.encoding])

    def last_trade(self, feed_name: str | None, state: MarketSymbol) -> Trade | None:
        """The symbol's latest trade in REST on a feed, by default the best feed; None without a trade."""
        feed = next((feed for feed in self.by_path.values() if feed.kind.name == feed_name), None)
        if feed in self._delayed:
            return feed.told.get(state.listing.symbol)
        return state.mark_trade if feed is None else _last(feed, state)

    def flush(self) -> None:
        """Queue all waiting batches as frames."""
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
        """Whether everything queued was handed to the sockets, slow clients excepted."""
        return all(subscriber.is_flushed or subscriber.slow.is_set() for subscriber in self.subscribers())


def _last(feed: Feed, state: MarketSymbol) -> Trade | None:
    return state.night_trade if feed.kind.is_overnight else state.mark_trade
