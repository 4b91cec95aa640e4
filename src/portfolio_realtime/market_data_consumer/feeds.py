"""The feeds: their addresses, what they carry, and which of their trades may move a mark.

Stocks, crypto and options each have one consumer and one connection at a time. If an overnight feed is
configured, it replaces the stocks feed during the overnight session.
"""

from dataclasses import dataclass, replace

from portfolio_realtime.config import Settings
from portfolio_realtime.market_data_consumer.conditions import crypto_effect, option_effect, stock_effect
from portfolio_realtime.market_data_consumer.mark_book import EffectOf, MarkBook
from portfolio_realtime.market_data_consumer.trading_sessions import Session, stock_session
from portfolio_realtime.model import CRYPTO, US_EQUITY, US_OPTION

_BETA_FEEDS = ("boats", "overnight")
_FEEDS_WITHOUT_REST = ("test",)
_FEEDS_WITH_STATUSES = ("sip", "iex", "delayed_sip")
# Others stream no cancels, or it is not known how far their snapshots lag behind the stream, or whether both
# mean the same trades.
_FEEDS_WITH_CANCELS = ("sip", "iex")


@dataclass(frozen=True)
class Feed:
    """One stream and its REST counterpart."""

    name: str  # in its lease and in metrics
    asset_class: str
    source: str  # the source that its marks name
    stream_path: str
    snapshots_path: str
    snapshots_feed: str | None  # the REST parameter `feed`
    effect_of: EffectOf
    setting: str  # the setting that chooses it
    is_packed_only: bool = False  # it offers no JSON
    has_statuses: bool = False  # it reports halts
    has_cancels: bool = False  # it reports cancels, and its snapshots show them, too
    has_closes: bool = True  # its daily bars hold the previous close


@dataclass(frozen=True)
class Schedule:
    """The feeds of one asset class; `night` replaces `day` during the overnight session."""

    day: Feed
    night: Feed | None = None

    @property
    def name(self) -> str:
        """The name in its lease and in metrics."""
        return self.day.name

    @property
    def sources(self) -> frozenset[str]:
        """The sources that its marks may name."""
        return frozenset(feed.source for feed in (self.day, self.night) if feed is not None)

    def at(self, at_ns: int) -> list[Feed]:
        """The feed to stream at a moment, then the feeds whose snapshots complete it."""
        if self.night is not None and stock_session(at_ns) is Session.OVERNIGHT:
            return [self.night, self.day]
        return [self.day]

    def session(self, at_ns: int) -> Session:
        """The session at a moment: crypto is always in CORE, options are in CORE or CLOSED."""
        if self.day.asset_class == CRYPTO:
            return Session.CORE
        session = stock_session(at_ns)
        if self.day.asset_class == US_OPTION and session is not Session.CORE:
            return Session.CLOSED
        return session

    def new_book(self) -> MarkBook:
        """An empty mark book with the rules of this asset class."""
        is_option = self.day.asset_class == US_OPTION
        return MarkBook(self.day.source, self.day.effect_of, is_sane=not is_option, is_quoted=is_option)


def schedules(settings: Settings) -> list[Schedule]:
    """The schedules of stocks, crypto and options, in this order, as the settings choose them."""
    day = _stocks(settings.alpaca_data_feed, "ALPACA_DATA_FEED")
    night = None
    if settings.alpaca_overnight_feed:
        night = replace(_stocks(settings.alpaca_overnight_feed, "ALPACA_OVERNIGHT_FEED"), has_closes=False)
    return [Schedule(day, night), Schedule(_crypto(settings)), Schedule(_options(settings))]


def _stocks(source: str, setting: str) -> Feed:
    version = "v1beta1" if source in _BETA_FEEDS else "v2"
    return Feed(
        "stocks",
        US_EQUITY,
        source,
        f"/{version}/{source}",
        "/v2/stocks/snapshots",
        None if source in _FEEDS_WITHOUT_REST else source,
        stock_effect,
        setting,
        has_statuses=source in _FEEDS_WITH_STATUSES,
        has_cancels=source in _FEEDS_WITH_CANCELS,
    )


def _crypto(settings: Settings) -> Feed:
    path = f"/v1beta3/crypto/{settings.alpaca_crypto_location}"
    return Feed(
        "crypto",
        CRYPTO,
        "crypto",
        path,
        f"{path}/snapshots",
        None,
        crypto_effect,
        "ALPACA_CRYPTO_LOCATION",
    )


def _options(settings: Settings) -> Feed:
    source = settings.alpaca_options_feed
    return Feed(
        "options",
        US_OPTION,
        source,
        f"/v1beta1/{source}",
        "/v1beta1/options/snapshots",
        source,
        option_effect,
        "ALPACA_OPTIONS_FEED",
        is_packed_only=True,
    )
