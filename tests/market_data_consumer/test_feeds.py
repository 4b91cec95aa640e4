"""Which feeds the settings choose, which has its turn, and how its stream is read."""

import asyncio
from datetime import datetime
from typing import Any, Final, cast

import pytest
from prometheus_client import CollectorRegistry

from portfolio_realtime import config
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import NEW_YORK, SystemClock
from portfolio_realtime.market_data_consumer.feeds import Schedule, schedules
from portfolio_realtime.market_data_consumer.stream import Arrived, MarketStream, StreamLost
from portfolio_realtime.market_data_consumer.subscription import MarketSubscription
from portfolio_realtime.market_data_consumer.trade_sources import QUALITIES
from portfolio_realtime.market_data_consumer.trading_sessions import Session
from portfolio_realtime.telemetry import MarketMetrics

FRAMES_MAX: Final = 10_000


def at(text: str) -> int:
    """Nanoseconds of a time in New York."""
    return int(datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).timestamp()) * 10**9


def chosen(**settings: Any) -> list[Schedule]:
    """Stocks, crypto and options under these settings."""
    return schedules(config.load(**settings))


@pytest.mark.parametrize(
    ("feed", "path", "snapshots"),
    [
        ("sip", "/v2/sip", "sip"),
        ("iex", "/v2/iex", "iex"),
        ("delayed_sip", "/v2/delayed_sip", "delayed_sip"),
        ("boats", "/v1beta1/boats", "boats"),
        ("overnight", "/v1beta1/overnight", "overnight"),
        ("test", "/v2/test", None),
    ],
)
def test_every_stock_feed_is_where_alpaca_has_it(feed: str, path: str, snapshots: str | None) -> None:
    """Paths as in Alpaca's documents; each has a word for what its prices are worth."""
    stocks = chosen(alpaca_data_feed=feed)[0].day
    assert (stocks.stream_path, stocks.snapshots_feed) == (path, snapshots)
    assert stocks.source in QUALITIES


def test_crypto_and_options_are_chosen_too() -> None:
    """A crypto venue by its location; OPRA or the indicative feed."""
    _, crypto, options = chosen(alpaca_crypto_location="eu-1", alpaca_options_feed="opra")
    assert crypto.day.stream_path == "/v1beta3/crypto/eu-1"
    assert crypto.day.snapshots_path == "/v1beta3/crypto/eu-1/snapshots"
    assert (options.day.stream_path, options.day.is_packed_only) == ("/v1beta1/opra", True)
    assert {crypto.day.source, options.day.source} <= QUALITIES.keys()


def test_the_nights_feed_has_its_turn_in_the_overnight_session() -> None:
    """From Sunday 20:00 on; the day's snapshots go on telling the previous close."""
    stocks = chosen(alpaca_data_feed="sip", alpaca_overnight_feed="boats")[0]
    assert [feed.source for feed in stocks.at(at("2026-11-22T19:59"))] == ["sip"]
    night, day = stocks.at(at("2026-11-22T20:00"))
    assert (night.source, night.has_closes) == ("boats", False)
    assert (day.source, day.has_closes) == ("sip", True)
    assert [feed.source for feed in stocks.at(at("2026-11-23T04:00"))] == ["sip"]
    assert stocks.sources == {"sip", "boats"}


def test_each_asset_class_has_its_hours() -> None:
    """Crypto always; options in the core session only."""
    stocks, crypto, options = chosen()
    sunday, core, evening = at("2026-11-22T12:00"), at("2026-11-23T12:00"), at("2026-11-23T17:00")
    assert {crypto.session(moment) for moment in (sunday, core, evening)} == {Session.CORE}
    assert [stocks.session(moment) for moment in (sunday, core, evening)] == [
        Session.CLOSED,
        Session.CORE,
        Session.EXTENDED,
    ]
    assert [options.session(moment) for moment in (sunday, core, evening)] == [
        Session.CLOSED,
        Session.CORE,
        Session.CLOSED,
    ]


class _FullStream:
    """A stream whose next frame is always there."""

    def __init__(self) -> None:
        self.frames = 0

    async def read(self, *, is_idle: bool) -> Arrived:
        """A frame that nobody reads; never waits."""
        assert not is_idle
        self.frames += 1
        if self.frames > FRAMES_MAX:
            raise StreamLost("nothing else has run meanwhile", "test")
        return Arrived((), [], ["new"])


async def test_a_full_stream_lets_other_tasks_run() -> None:
    """It would otherwise hold up the flush, the leases and every answer of Valkey."""
    stocks = chosen()[0]
    subscription = MarketSubscription(stocks, SystemClock(), MarketMetrics(CollectorRegistry()))
    stream = _FullStream()
    reading = asyncio.ensure_future(subscription.read(cast("MarketStream", stream)))
    turns = 0
    while not reading.done() and stream.frames < FRAMES_MAX // 2:
        await asyncio.sleep(0)
        turns += 1
    await cancel_until_ended([reading])
    assert FRAMES_MAX // 2 <= stream.frames < FRAMES_MAX
    assert turns < stream.frames, "it does not pause after each frame"
