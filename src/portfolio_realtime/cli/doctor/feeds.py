"""Checks market data: whether each feed accepts login and subscription, and REST returns snapshots.

It uses the product's own stream client. Most keys allow one connection only: while our services run, Alpaca
refuses another one, which shows that the keys are valid.
"""

import asyncio
from typing import Final, NoReturn

from portfolio_realtime.alpaca.credentials import MarketLogin
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.cli.doctor.alpaca import remedy
from portfolio_realtime.cli.doctor.findings import Finding, Status
from portfolio_realtime.cli.doctor.limits import Asked, in_time
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import FeedRefused, FeedUnavailable
from portfolio_realtime.market_data_consumer.feeds import Feed, schedules
from portfolio_realtime.market_data_consumer.snapshots import Snapshots
from portfolio_realtime.market_data_consumer.stream import MarketStream, StreamLost, open_stream
from portfolio_realtime.model import CRYPTO, US_EQUITY

FREE_FEED: Final = "iex"
TEST_FEED_SYMBOL: Final = "FAKEPACA"
SYMBOLS: Final = {US_EQUITY: "AAPL", CRYPTO: "BTC/USD"}  # no option: every contract expires
CONNECTION_LIMIT: Final = "406"
TOO_MANY: Final = "429"
SNAPSHOTS: Final = "snapshots"


async def examine(settings: Settings) -> list[Finding]:
    """Check every feed that the settings choose, and the snapshots of stocks."""
    now_ns = SystemClock().now_ns()
    feeds = [schedule.at(now_ns)[0] for schedule in schedules(settings)]
    stocks = next(feed for feed in feeds if feed.asset_class == US_EQUITY)
    stream = Asked(settings.host("stream"), remedy("stream"))
    data = Asked(settings.host("data"), remedy("data"))
    return list(
        await asyncio.gather(
            *(in_time(_name(feed), stream, _stream(settings, feed)) for feed in feeds),
            in_time(SNAPSHOTS, data, _snapshots(settings, stocks)),
        )
    )


def _name(feed: Feed) -> str:
    return f"feed {feed.name}"


async def _stream(settings: Settings, feed: Feed) -> Finding:
    check = _name(feed)
    need = Status.FAIL if feed.asset_class == US_EQUITY else Status.WARN
    symbol = TEST_FEED_SYMBOL if feed.source == "test" else SYMBOLS.get(feed.asset_class)
    try:
        left_out = await _try(settings, feed, symbol)
    except FeedRefused as error:
        return Finding(check, need, *_told(error, feed))
    except StreamLost as error:
        return Finding(check, *_lost(error, need))
    except (FeedUnavailable, TimeoutError) as error:
        return Finding(check, need, str(error), remedy("stream"))
    if left_out:
        return Finding(
            check, Status.WARN, f"{feed.source} accepts the connection but not {symbol}", "try again"
        )
    takes = f" and {symbol}" if symbol else ""
    return Finding(check, Status.OK, f"{feed.source} accepts the connection{takes}")


async def _try(settings: Settings, feed: Feed, symbol: str | None) -> list[str]:
    """Log in and subscribe. Returns the symbols that the feed did not accept."""
    encoding = "msgpack" if feed.is_packed_only else settings.alpaca_stream_encoding
    url = settings.host("stream") + feed.stream_path
    stream = await open_stream(url, feed.name, feed.setting, encoding)
    try:
        await stream.log_in(*await MarketLogin(settings).pair())
        return [] if symbol is None else await _subscribe(stream, symbol)
    finally:
        await stream.close()


async def _subscribe(stream: MarketStream, symbol: str) -> list[str]:
    async def read() -> NoReturn:
        while True:
            await stream.read()

    reader, asker = asyncio.ensure_future(read()), asyncio.ensure_future(stream.subscribe([symbol]))
    try:
        await asyncio.wait((reader, asker), return_when=asyncio.FIRST_COMPLETED)
        return asker.result() if asker.done() else reader.result()
    finally:
        await cancel_until_ended([reader, asker])


def _told(error: FeedRefused, feed: Feed) -> tuple[str, str]:
    found, _, plan = str(error).partition("; ")
    if feed.asset_class == US_EQUITY and feed.source != FREE_FEED:
        plan += f"; {feed.setting}={FREE_FEED} is in every plan, also in the free one"
    return found, plan


def _lost(error: StreamLost, need: Status) -> tuple[Status, str, str]:
    if error.reason == CONNECTION_LIMIT:
        return (
            Status.WARN,
            "the keys are valid, but all connections that they allow are open",
            "nothing if our own services run; else end the other program, or wait 90 s after a crash",
        )
    if error.reason == TOO_MANY:
        return Status.WARN, str(error), "too many connections in a short time: wait a minute"
    return need, str(error), "try again; if it fails again, see https://status.alpaca.markets"


async def _snapshots(settings: Settings, feed: Feed) -> Finding:
    check = SNAPSHOTS
    if feed.snapshots_feed is None:
        return Finding(check, Status.SKIP, f"{feed.source} has no snapshots")
    snapshots = Snapshots(settings, feed, MarketLogin(settings))
    symbol = SYMBOLS[feed.asset_class]
    try:
        found = await snapshots.read([symbol])
    except FeedRefused as error:
        return Finding(check, Status.FAIL, *_told(error, feed))
    except FeedUnavailable as error:
        return Finding(check, Status.FAIL, str(error), remedy("data"))
    finally:
        await snapshots.close()
    if symbol not in found:
        return Finding(check, Status.WARN, f"no snapshot of {symbol}", "check ALPACA_DATA_URL")
    return Finding(check, Status.OK, f"{settings.host('data')} returns the snapshot of {symbol}")
