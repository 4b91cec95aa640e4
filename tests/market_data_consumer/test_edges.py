"""The consumer at the market's edges: the simulator plays each trick, the marks stay the venue's own."""

from decimal import Decimal

import pytest

from portfolio_realtime.market_data_consumer import consumer, missed_cancels, reconnect_delay, subscription
from portfolio_realtime.market_data_consumer.reconnect_delay import Pauses
from portfolio_realtime.market_data_consumer.trading_sessions import Session
from portfolio_realtime.model import Mark, exact
from portfolio_realtime.state import State
from tests.conftest import StartSimulator, Until
from tests.support.consumers import (
    all_true,
    context_of,
    marks_of,
    reconnect_count,
    running,
    true_marks,
    write_universe,
)


def sample(context: consumer.Context, name: str, **labels: str) -> float:
    """A metric of the consumer."""
    return context.registry.get_sample_value(f"portfolio_realtime_{name}", labels) or 0.0


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_corrections_cancels_and_halts_reach_the_mark(
    simulator: StartSimulator, state: State, until: Until, encoding: str
) -> None:
    """In both encodings; nobody who holds no option or coin has a connection for them."""
    market = await simulator(accounts=5, symbols=10, trades_per_second=0, activities_per_second=0)
    await write_universe(state, {"AAPL": "us_equity"})
    async with running(context_of(market, state, alpaca_stream_encoding=encoding)) as _:

        async def is_mark(price: str, quality: str) -> bool:
            mark = (await marks_of(state)).get("AAPL")
            return mark is not None and (exact(mark.price), mark.quality) == (Decimal(price), quality)

        async def is_subscribed() -> bool:
            return (await market.get("/_sim/state"))["subscribed_symbols"] >= 1

        await until(is_subscribed, "AAPL is subscribed")
        for price in ("201.01", "202.02", "203.03"):
            await market.post("/_sim/print", {"symbol": "AAPL", "price": price})
        await until(lambda: is_mark("203.03", "iex"), "the last trade is the mark")
        await market.post("/_sim/correct", {"symbol": "AAPL", "price": "203.33"})
        await until(lambda: is_mark("203.33", "iex"), "the correction is the mark")
        corrected = await market.post("/_sim/correct", {"symbol": "AAPL"})
        assert corrected["mark"] == "202.02"
        await until(lambda: is_mark("202.02", "iex"), "the trade before the cancelled one is the mark")
        await market.post("/_sim/halt", {"symbol": "AAPL"})
        await until(lambda: is_mark("202.02", "halted"), "the mark says that trading is halted")
        await market.post("/_sim/halt", {"symbol": "AAPL", "halted": False})
        await until(lambda: is_mark("202.02", "iex"), "trading goes on")
        assert (await market.get("/_sim/state"))["market_stream_connections"] == 1


async def test_a_cancel_while_the_connection_is_away_reaches_the_mark(
    simulator: StartSimulator, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream never tells it; the symbol is traded no more."""
    monkeypatch.setattr(missed_cancels, "SNAPSHOT_LAG_S_MAX", 1.0)
    monkeypatch.setitem(reconnect_delay.PAUSES, "406", Pauses(0.2, 0.4))
    market = await simulator(accounts=5, symbols=10, trades_per_second=0, activities_per_second=0)
    await write_universe(state, {"AAPL": "us_equity"})
    context = context_of(market, state)
    async with running(context):

        async def is_mark(price: str) -> bool:
            mark = (await marks_of(state)).get("AAPL")
            return mark is not None and exact(mark.price) == Decimal(price)

        async def is_subscribed() -> bool:
            return (await market.get("/_sim/state"))["subscribed_symbols"] >= 1

        await until(is_subscribed, "AAPL is subscribed")
        for price in ("202.02", "203.03"):
            await market.post("/_sim/print", {"symbol": "AAPL", "price": price})
        await until(lambda: is_mark("203.03"), "the last trade is the mark")
        await market.post("/_sim/faults", {"faults": [{"kind": "market.ghosts", "at_s": 0, "for_s": 2}]})
        await until(lambda: reconnect_count(context, "406") > 0, "the connection is away", 20)
        cancel = {"kind": "market.cancel", "at_s": 0, "level": 50}  # of all stocks
        await market.post("/_sim/faults", {"faults": [cancel]})
        await until(lambda: is_mark("202.02"), "the trade before the cancelled one is the mark", 20)


async def test_faults_of_the_feed_leave_no_wrong_mark(
    simulator: StartSimulator, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeats, another order, unknown messages, a mute socket, ghosts after a cut: all marks exact."""
    monkeypatch.setattr(subscription, "SILENCE_S_MIN", 0.5)
    monkeypatch.setattr(subscription, "SILENCE_S_MAX", dict.fromkeys(Session, 1.0))
    monkeypatch.setattr(subscription, "REFRESH_CHECK_S", 0.1)
    monkeypatch.setattr(subscription, "FEED_LAG_S_MAX", 0.3)
    monkeypatch.setitem(reconnect_delay.PAUSES, "406", Pauses(0.2, 0.4))
    market = await simulator(accounts=10, symbols=30, trades_per_second=300, activities_per_second=0)
    truth = await true_marks(market)
    classes = await market.get("/_sim/truth")
    symbols = {
        position["symbol"]: position["asset_class"]
        for account in classes["accounts"].values()
        for position in account["positions"]
    }
    await write_universe(state, symbols)
    context = context_of(market, state)
    async with running(context):

        async def are_marked() -> bool:
            return truth.keys() <= (await marks_of(state)).keys()

        await until(are_marked, "every symbol is marked", 20)
        odd = [
            {"kind": "market.repeat", "at_s": 0, "for_s": 1, "level": 0.5},
            {"kind": "market.reorder", "at_s": 0, "for_s": 1},
            {"kind": "market.unknown", "at_s": 0, "for_s": 1, "level": 0.5},
        ]
        await market.post("/_sim/faults", {"faults": odd})
        await until(lambda: unknown_count(context) > 0, "unknown types are counted")
        assert reconnect_count(context) == 0
        await market.post("/_sim/faults", {"faults": [{"kind": "market.mute", "at_s": 0, "for_s": 20}]})
        await until(lambda: reconnect_count(context, "mute") > 0, "the mute stream is given up", 20)
        await market.post("/_sim/faults", {"faults": [{"kind": "market.ghosts", "at_s": 0, "for_s": 1.5}]})
        await until(lambda: reconnect_count(context, "406") > 0, "our own ghosts keep us out", 20)
        await market.post("/_sim/pause")
        await until(all_true(state, await true_marks(market)), "every mark is exact", 20)


async def test_a_plan_for_few_symbols_is_filled_and_the_others_are_marked_all_the_same(
    simulator: StartSimulator, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit is counted and marked from snapshots; a place that becomes free is filled."""
    monkeypatch.setattr(subscription, "LEAVING_S", 0.1)
    market = await simulator(
        accounts=10, symbols=40, trades_per_second=0, activities_per_second=0, market_symbol_limit=7
    )
    truth = await market.get("/_sim/truth")
    stocks = sorted(
        {
            position["symbol"]
            for account in truth["accounts"].values()
            for position in account["positions"]
            if position["asset_class"] == "us_equity"
        }
    )[:12]
    assert len(stocks) == 12
    await write_universe(state, dict.fromkeys(stocks, "us_equity"))
    context = context_of(market, state)

    def counted(name: str) -> float:
        return sample(context, name, feed="stocks")

    async def are_marked() -> bool:
        return set(stocks) <= (await marks_of(state)).keys()

    async with running(context):
        await until(are_marked, "every symbol is marked")
        assert (counted("subscribed_symbols"), counted("left_out_symbols")) == (7, 5)
        assert (await market.get("/_sim/state"))["subscribed_symbols"] == 7
        await write_universe(state, {}, stocks[:3])
        await until(lambda: counted("left_out_symbols") == 2, "the three places are filled")
        assert (await market.get("/_sim/state"))["subscribed_symbols"] == 7
        await write_universe(state, {}, stocks[-1:])
        await until(lambda: counted("left_out_symbols") == 1, "who is not wanted is not left out")
        await market.post("/_sim/print", {"symbol": stocks[3], "price": "201.01"})

        async def is_streamed() -> bool:
            return exact((await marks_of(state))[stocks[3]].price) == Decimal("201.01")

        await until(is_streamed, "what is subscribed is streamed")


def unknown_count(context: consumer.Context) -> float:
    """Messages of types that nobody reads, over all feeds."""
    known = {"t", "c", "x", "s", "control"}
    return sum(
        each.value
        for family in context.registry.collect()
        for each in family.samples
        if each.name == "portfolio_realtime_feed_messages_total" and each.labels["type"] not in known
    )


async def test_marks_that_nobody_needs_are_pruned(
    simulator: StartSimulator, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of a symbol that no account holds goes; a held one and another feed's stay."""
    monkeypatch.setattr(consumer, "PRUNE_S", 0.2)
    market = await simulator(accounts=5, symbols=10, trades_per_second=0, activities_per_second=0)
    await write_universe(state, {"AAPL": "us_equity"})
    earlier = await state.leases.acquire("market_data:stocks")
    assert earlier is not None
    await state.marks.write(earlier, [Mark("SOLD", 1.0, 1, 1, "iex"), Mark("COIN", 1.0, 1, 1, "sip")])
    await state.leases.release(earlier)
    context = context_of(market, state)
    async with running(context):

        async def is_pruned() -> bool:
            return "SOLD" not in await marks_of(state)

        await until(is_pruned, "the mark that nobody needs is gone")
        await until(lambda: marks_of(state), "AAPL is marked")
        assert "COIN" in await marks_of(state)
        assert sample(context, "pruned_marks_total", feed="stocks") == 1
