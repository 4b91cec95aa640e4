"""The market: marks, bars, history, and the seeded walk."""

import random
from datetime import date
from decimal import Decimal

import pytest

from alpaca_sim.core.clock import SECOND_NS
from alpaca_sim.core.listings import make_listings
from alpaca_sim.core.market import HISTORY_MARKS_MAX, HISTORY_S_MAX, MINUTE_NS, Market
from alpaca_sim.simulator import Simulator
from tests.alpaca_sim.conftest import quiet
from tests.support.clocks import START_NS, SetClock

DAY = date(2027, 1, 15)


@pytest.fixture
def market() -> Market:
    """AAPL on tape C and a few more, on a clock that stands still."""
    made = Market(SetClock())
    for listing in make_listings(24, random.Random(7), DAY):
        made.list_symbol(listing)
    return made


def clock_of(market: Market) -> SetClock:
    """The market's clock."""
    clock = market._clock
    assert isinstance(clock, SetClock)
    return clock


def test_only_eligible_trades_become_the_mark(market: Market) -> None:
    """The mark is the last eligible price, whatever is printed in between."""
    assert market.print_trade("AAPL", Decimal("200.00"), Decimal(100), ("@",))
    assert not market.print_trade("AAPL", Decimal("1.00"), Decimal(5), ("@", "I"))
    assert not market.print_trade("AAPL", Decimal("999.00"), Decimal(100), ("?",))
    assert market.mark("AAPL") == Decimal("200.00")
    assert market.print_trade("AAPL", Decimal("200.0125"), Decimal(100), ("@", "T"))
    assert market.mark("AAPL") == Decimal("200.0125")


def test_every_symbol_is_priced_from_the_start(market: Market) -> None:
    """A first trade is there, near the previous close, with a regular condition of its tape."""
    for state in market.symbols.values():
        listing = state.listing
        assert state.mark == listing.first_price > 0
        assert abs(state.mark / listing.previous_close - 1) < Decimal("0.03")


def test_bars_take_prices_from_eligible_trades_and_volume_from_all(market: Market) -> None:
    """Extended-hours trades set the minute bar, not the daily bar."""
    state = market.symbols["AAPL"]
    clock_of(market).at_ns += MINUTE_NS
    market.print_trade("AAPL", Decimal("210.00"), Decimal(100), ("@",))
    market.print_trade("AAPL", Decimal("150.00"), Decimal(30), ("@", "I"))
    market.print_trade("AAPL", Decimal("220.00"), Decimal(100), ("@", "T"))
    market.print_trade("AAPL", Decimal("1.00"), Decimal(1_000), ("M",))
    minute, day = state.minute_bar, state.daily_bar
    assert (minute.open, minute.high, minute.low, minute.close) == (210, 220, 210, 220)
    assert (minute.volume, minute.trade_count) == (230, 3)
    assert (day.close, day.high) == (210, max(Decimal(210), state.listing.first_price))


def test_the_mark_at_a_past_moment_is_the_one_of_then(market: Market) -> None:
    """Between two trades the earlier one holds; before the first there is nothing."""
    state, clock = market.symbols["AAPL"], clock_of(market)
    times: list[int] = []
    for price in (101, 102, 103):
        clock.at_ns += SECOND_NS
        market.print_trade("AAPL", Decimal(price), Decimal(100), ("@",))
        times.append(state.mark_trade.at_ns)
    assert [state.mark_at(at_ns) for at_ns in times] == list(zip(times, (101, 102, 103), strict=True))
    assert state.mark_at(times[1] - 1) == (times[0], 101)
    with pytest.raises(LookupError):
        state.mark_at(START_NS - 1)


def test_the_history_is_bounded_by_time_and_count(market: Market) -> None:
    """The entry that held at the limit stays, so that the whole span can be answered."""
    state, clock = market.symbols["AAPL"], clock_of(market)
    for _ in range(HISTORY_MARKS_MAX + 10):
        market.print_trade("AAPL", Decimal(100), Decimal(100), ("@",))
    assert len(state.history) == HISTORY_MARKS_MAX
    clock.at_ns += (HISTORY_S_MAX + 1) * SECOND_NS
    market.print_trade("AAPL", Decimal(101), Decimal(100), ("@",))
    assert len(state.history) == 2
    assert state.mark_at(clock.at_ns - HISTORY_S_MAX * SECOND_NS)[1] == 100


def fingerprint(seed: int) -> list[object]:
    """Accounts, prices and the first trades of a simulator."""
    sim = Simulator(
        quiet(account_count=30, symbol_count=60, seed=seed, trades_per_second=1_000.0), SetClock()
    )
    trades: list[object] = []
    sim.market.on_trade = lambda trade: trades.append(trade[:9])
    for _ in range(20):
        sim.source.step(0.1)
    assert len(trades) > 1_900
    accounts = [(a.account_id, a.last_equity, a.opening, a.created_ns) for a in sim.ledger.accounts.values()]
    listings = [(state.listing, state.mark) for state in sim.market.symbols.values()]
    return [accounts, listings, trades]


def test_the_same_seed_gives_the_same_accounts_prices_and_trades() -> None:
    """And another seed gives others."""
    assert fingerprint(7) == fingerprint(7)
    assert fingerprint(7) != fingerprint(8)


def test_the_walk_mixes_trades_that_must_not_move_the_price() -> None:
    """A share of all trades is ineligible and visibly off; the walk stays near its start."""
    sim = Simulator(quiet(symbol_count=60, trades_per_second=1_000.0), SetClock())
    off: list[Decimal] = []
    count = 0
    for _ in range(100):
        before = {symbol: state.mark for symbol, state in sim.market.symbols.items()}
        trades: list[tuple[str, Decimal]] = []
        sim.market.on_trade = lambda trade, seen=trades: seen.append((trade.symbol, trade.price))
        sim.source.step(0.1)
        count += len(trades)
        off += [abs(price / before[symbol] - 1) for symbol, price in trades]
    visibly_off = sum(distance > Decimal("0.009") for distance in off)
    assert 0.08 < visibly_off / count < 0.3
    for state in sim.market.symbols.values():
        assert abs(state.mark / state.listing.first_price - 1) < Decimal("0.4")


def test_the_listings_are_mostly_equities_and_all_different() -> None:
    """Well-known names first, about nine in ten equities, a few crypto pairs and options."""
    listings = make_listings(200, random.Random(7), DAY)
    classes = [listing.asset_class for listing in listings]
    assert len({listing.symbol for listing in listings}) == len(listings) == 200
    assert [listing.symbol for listing in listings[:3]] == ["AAPL", "MSFT", "SPY"]
    assert (classes.count("us_equity"), classes.count("crypto"), classes.count("us_option")) == (180, 8, 12)
