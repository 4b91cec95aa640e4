"""The broker's portfolio history joined with today's own line, point by point beside the ledger."""

from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

from alpaca_sim.core.clock import MovableClock, parse_time_ns
from portfolio_realtime.model import Account
from portfolio_realtime.symbol_collector.sources.broker_client import BrokerClient
from portfolio_realtime.symbol_collector.sources.closed_days import HistorySource, closed_days
from portfolio_realtime.symbol_collector.sources.trading_client import TradingClient
from portfolio_realtime.valuation.closed_days import joined
from tests.alpaca_sim.conftest import BROKER, Running, Start, trading_settings

TRADING_DAYS = ("2026-11-20", "2026-11-23", "2026-11-24", "2026-11-25", "2026-11-27", "2026-11-30")
CENT = Decimal("0.01")


class Ledger:
    """What the simulator's ledger says: worth at each close, and what was brought in until then."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.equity: dict[str, Decimal] = {}
        self.flow: dict[str, Decimal] = {}
        self.brought_in = Decimal(0)

    async def truth(self) -> dict[str, Any]:
        return await self._running.get(f"/_sim/accounts/{self._running.account_ids[0]}")

    async def deposit(self, amount: str) -> None:
        account_id = self._running.account_ids[0]
        kind = "CSW" if amount.startswith("-") else "CSD"
        await self._running.post("/_sim/cash", account_id=account_id, activity_type=kind, amount=amount)
        self.brought_in += Decimal(amount)

    async def close(self, day: str) -> None:
        """16:00: nothing has moved since the last price, so the mark is the close."""
        await self._running.post("/_sim/clock", set=f"{day}T16:00:00-05:00")
        self.equity[day] = Decimal((await self.truth())["equity"])
        self.flow[day] = self.brought_in


def record(row: dict[str, Any], truth: dict[str, Any]) -> Account:
    """The account's record as the collector has it."""
    return Account(
        row["id"],
        1,
        "ACTIVE",
        "USD",
        Decimal(row["cash"]),
        Decimal(row["last_equity"]),
        row["balance_asof"],
        Decimal(truth["external_cash_flow"]),
        (),
        0,
    )


async def lived_through(start: Start) -> tuple[Running, Ledger]:
    """A week with a deposit, a split, Thanksgiving, a half day, a withdrawal in an evening, and a Monday."""
    running = await start(
        clock=MovableClock(parse_time_ns("2026-11-20T10:00:00-05:00"), 0),
        calendar="nyse",
        roll_at=time(2, 15),
    )
    account_id, ledger = running.account_ids[0], Ledger(running)
    await running.post("/_sim/print", symbol="AAPL", price="240.00")
    await running.post("/_sim/trade", account_id=account_id, symbol="AAPL", quantity="10")
    for index, day in enumerate(TRADING_DAYS):
        await running.post("/_sim/clock", set=f"{day}T10:00:00-05:00")
        if day == "2026-11-25":
            await running.post("/_sim/split", symbol="AAPL", new_rate="2")
        price = Decimal(240 + 3 * index) / (2 if day >= "2026-11-25" else 1)
        await running.post("/_sim/print", symbol="AAPL", price=str(price))
        if day == "2026-11-23":
            await ledger.deposit("1234.56")
        if day != TRADING_DAYS[-1]:
            await ledger.close(day)
        if day == "2026-11-24":
            await ledger.deposit("-300.00")  # in the evening: it belongs to the next day
    return running, ledger


async def line(source: HistorySource, running: Running, ledger: Ledger, span: Any) -> dict[str, Any]:
    """The joined line, as the server would answer."""
    account_id = running.account_ids[0]
    days, refused = closed_days(
        await source.portfolio_history(account_id), await source.in_kind_rows(account_id)
    )
    assert refused == []
    truth = await ledger.truth()
    row = await running.get(f"/v1/trading/accounts/{account_id}/account")
    today = {
        "timestamp": "2026-11-30T15:00:00.000000Z",
        "equity": truth["equity"],
        "external_cash_flow": truth["external_cash_flow"],
        "day_pnl": truth["day_pnl"],
    }
    return joined(record(row, truth), days, [today], span)


async def test_the_joined_line_is_the_ledgers_point_by_point(start: Start) -> None:
    """Across a deposit, a split, a holiday, a half day and every roll; gains without what was brought in."""
    running, ledger = await lived_through(start)
    async with BrokerClient(running.url, BROKER) as client:
        told = await line(client, running, ledger, "all")
    closed = TRADING_DAYS[:-1]
    expected = [(f"{day}T21:00:00.000000Z", ledger.equity[day], ledger.flow[day]) for day in closed]
    expected.append(
        ("2026-11-30T15:00:00.000000Z", Decimal((await ledger.truth())["equity"]), ledger.brought_in)
    )
    base, begun = expected[0][1], expected[0][2]
    assert Decimal(told["base"]) == base.quantize(CENT)
    for point, (at, equity, flow) in zip(told["points"], expected, strict=True):
        assert point["timestamp"] == at
        assert Decimal(point["equity"]) == equity.quantize(CENT), at
        assert Decimal(point["external_cash_flow"]) == (flow - begun).quantize(CENT), at
        assert Decimal(point["pnl"]) == (equity - base - (flow - begun)).quantize(CENT), at
    assert Decimal(told["points"][1]["external_cash_flow"]) == Decimal("1234.56")
    assert Decimal(told["points"][3]["external_cash_flow"]) == Decimal("934.56")


async def test_a_range_begins_at_the_close_before_its_first_day(start: Start) -> None:
    """Its base is of then; both interfaces of Alpaca tell the same days."""
    running, ledger = await lived_through(start)
    pair = await running.get(f"/_sim/accounts/{running.account_ids[0]}/keys")
    settings = trading_settings(running, pair)
    async with BrokerClient(running.url, BROKER) as broker, TradingClient(settings) as trading:
        lines = [await line(source, running, ledger, "1w") for source in (broker, trading)]
    assert lines[0] == lines[1]
    assert lines[0]["base"] == str(ledger.equity["2026-11-20"].quantize(CENT))
    assert [point["timestamp"][:10] for point in lines[0]["points"]] == [*TRADING_DAYS[1:]]
    last = Decimal((await ledger.truth())["equity"])
    gain = last - ledger.equity["2026-11-20"] - ledger.brought_in
    assert Decimal(lines[0]["points"][-1]["pnl"]) == gain.quantize(CENT)


async def test_periods_are_cut_and_nonsense_is_refused(start: Start) -> None:
    """`period`, `start` and `end`, two of them at most; the base is the close before the first point."""
    running, ledger = await lived_through(start)
    path = f"/v1/trading/accounts/{running.account_ids[0]}/account/portfolio/history"
    found = await running.get(path, period="3D", timeframe="1D")
    dates = [datetime.fromtimestamp(at - 86_400, UTC).date().isoformat() for at in found["timestamp"]]
    assert dates == ["2026-11-24", "2026-11-25", "2026-11-27"]
    assert found["base_value_asof"] == "2026-11-23"
    assert found["base_value"] == float(ledger.equity["2026-11-23"].quantize(CENT))
    for wrong in ({"period": "3X"}, {"period": "1M", "start": "2026-11-01", "end": "2026-11-02"}):
        assert await running.status(path, **wrong) == 422
