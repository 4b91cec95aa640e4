"""The symbol collector against a simulated Alpaca and a real Valkey: every record is the broker's truth."""

import asyncio
import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import structlog

from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime import config
from portfolio_realtime.clock import SystemClock, parse_rfc3339
from portfolio_realtime.errors import BrokerRefused, SettingsError
from portfolio_realtime.model import Account, Mark
from portfolio_realtime.service import Context
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.symbol_collector import collector
from portfolio_realtime.symbol_collector.model import Statement
from portfolio_realtime.symbol_collector.sources.broker_client import BrokerClient, credentials
from tests.conftest import (
    LEASE_MS,
    SHARDS,
    Simulator,
    StartSimulator,
    Until,
    end,
)
from tests.support.collectors import SETTINGS, all_known, context_of, learn_no_names, running, wait_exact

ENDS_S_MAX = 5.0
PROCESS_S_MAX = 90  # a process that starts beside busy ones


async def test_every_record_is_exact_after_a_busy_time(
    simulator: StartSimulator, state: State, until: Until
) -> None:
    """Bootstrap in the middle of activity: history, statements and events make one exact state."""
    broker = await simulator(activities_per_second=30)
    async with running(context_of(broker, state)):
        await until(all_known(broker, state), "all accounts are known")
        moved = (await broker.get("/_sim/state"))["activities"] + 60

        async def much_has_happened() -> bool:
            return (await broker.get("/_sim/state"))["activities"] > moved

        await until(much_has_happened, "60 more activities")
        await broker.post("/_sim/pause")
        await wait_exact(broker, state, until)
        truth = (await broker.get("/_sim/truth"))["accounts"].values()
        held = {p["symbol"]: p["asset_class"] for account in truth for p in account["positions"]}
        universe = await state.accounts.read_universe()
        assert held.items() <= universe.items()


async def test_what_happens_arrives_in_the_record(
    simulator: StartSimulator, state: State, until: Until
) -> None:
    """A deposit, a purchase of something new and its sale; the closed position stays with its day sums."""
    broker = await simulator(activities_per_second=0)
    alice = (await broker.post("/_sim/accounts", {"cash": "1000", "positions": {}}))["account_id"]
    async with running(context_of(broker, state)):
        await until(all_known(broker, state), "all accounts are known")
        await wait_exact(broker, state, until)
        await broker.post("/_sim/cash", {"account_id": alice, "activity_type": "CSD", "amount": "500.25"})
        order = {"account_id": alice, "symbol": "AAPL", "quantity": "1.5", "price": "100"}
        await broker.post("/_sim/trade", order)

        async def has(cash: str, quantity: str) -> bool:
            account = await state.accounts.read_one(alice)
            return (
                account is not None
                and account.cash == Decimal(cash)
                and [position.quantity for position in account.positions] == [Decimal(quantity)]
                and account.external_cash_flow == Decimal("500.25")
            )

        await until(lambda: has("1350.25", "1.5"), "the deposit and the purchase arrive", 10)
        assert (await state.accounts.read_universe())["AAPL"] == "us_equity"
        await broker.post("/_sim/trade", {**order, "quantity": "-1.5", "price": "101"})
        await until(lambda: has("1501.75", "0"), "the sale arrives", 10)
        account = await state.accounts.read_one(alice)
        assert account is not None
        assert (account.positions[0].day_quantity, account.positions[0].day_cost) == (0, Decimal("-1.5"))


class ShiftedClock(SystemClock):
    """The clock of a simulator whose time is another one."""

    def __init__(self, now: str) -> None:
        self._ahead_ns = parse_rfc3339(now) - time.time_ns()

    def now_ns(self) -> int:
        """As told at the beginning, and what has passed since."""
        return time.time_ns() + self._ahead_ns


@pytest.mark.parametrize("price", ["98.76", None])
async def test_an_order_of_days_ago_is_corrected_by_what_the_broker_states(
    simulator: StartSimulator, state: State, until: Until, price: str | None
) -> None:
    """Its booking is not known any more. Corrected or busted, the statement shows what changes, and the day's
    sums contain that and no more; it is no drift."""
    broker = await simulator(
        accounts=3, activities_per_second=0, calendar="nyse", start="2026-11-19T12:00:00-05:00"
    )
    alice = (await broker.post("/_sim/accounts", {"cash": "1000", "positions": {}}))["account_id"]
    bought = await broker.post(
        "/_sim/trade", {"account_id": alice, "symbol": "AAPL", "quantity": "1.5", "price": "100"}
    )
    moved = await broker.post("/_sim/clock", {"advance_s": 4 * 86_400})
    context = dataclasses.replace(context_of(broker, state), clock=ShiftedClock(moved["now"]))

    def count(outcome: str) -> float:
        labels = {"outcome": outcome}
        return context.registry.get_sample_value("portfolio_realtime_reconciled_total", labels) or 0.0

    async with running(context):
        await until(all_known(broker, state), "all accounts are known")
        await wait_exact(broker, state, until)
        amended = {"account_id": alice, "event_id": bought["event_id"]}
        await broker.post("/_sim/amend", amended if price is None else {**amended, "price": price})
        await wait_exact(broker, state, until)
        account = await state.accounts.read_one(alice)
        assert account is not None
        (position,) = account.positions
        expected = (Decimal("-1.5"), Decimal(-150)) if price is None else (0, Decimal("-1.86"))
        assert (position.day_quantity, position.day_cost) == expected
        assert (count("corrected"), count("drift")) == (1, 0)


async def test_a_new_account_appears(simulator: StartSimulator, state: State, until: Until) -> None:
    """The list is read again each pass."""
    broker = await simulator(accounts=3, activities_per_second=0)
    async with running(context_of(broker, state)):
        await until(all_known(broker, state), "all accounts are known")
        await broker.post("/_sim/accounts", {"cash": "7", "positions": {"AAPL": "2"}})
        await until(all_known(broker, state), "the new account is known", 15)
        await wait_exact(broker, state, until)


class HeldClient(BrokerClient):
    """A client of the broker whose statements of one account arrive when the test lets them."""

    held_id = ""

    def __init__(self, settings: config.Settings, counted: Callable[[str], None]) -> None:
        super().__init__(settings.host("broker"), credentials(settings), counted)
        self.is_held, self.may_arrive = asyncio.Event(), asyncio.Event()

    async def statement(self, account_id: str, *, is_urgent: bool) -> Statement | None:
        """As the broker states it, perhaps later."""
        found = await super().statement(account_id, is_urgent=is_urgent)
        if account_id == self.held_id:
            self.is_held.set()
            await self.may_arrive.wait()
        return found


async def test_an_account_that_leaves_while_it_is_fetched_stays_away(
    simulator: StartSimulator, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its statement comes after it was removed, and makes no record of it."""
    broker = await simulator(accounts=3, activities_per_second=0)
    alice, bob, *_ = (await broker.get("/_sim/accounts"))["accounts"]
    clients: list[HeldClient] = []

    def open_client(settings: config.Settings, counted: Callable[[str], None]) -> BrokerClient:
        clients.append(HeldClient(settings, counted))
        return clients[-1]

    monkeypatch.setattr(collector, "open_client", open_client)

    async def has_record(account_id: str) -> bool:
        return await state.accounts.read_one(account_id) is not None

    async def is_gone() -> bool:
        return not await has_record(alice)

    async with running(context_of(broker, state)):
        await until(all_known(broker, state), "all accounts are known")
        (client,) = clients
        client.held_id = alice
        await until(client.is_held.is_set, "her statement is on its way")
        await broker.post("/_sim/status", {"account_id": alice, "status": "ACCOUNT_CLOSED"})
        await until(is_gone, "she is gone")
        before = await state.accounts.read_one(bob)
        assert before is not None
        client.may_arrive.set()
        await broker.post("/_sim/cash", {"account_id": bob, "activity_type": "CSD", "amount": "500.25"})

        async def is_written() -> bool:
            account = await state.accounts.read_one(bob)
            return account is not None and account.cash == before.cash + Decimal("500.25")

        await until(is_written, "what came after her statement is written")
        assert not await has_record(alice)


async def test_a_cut_event_stream_is_resumed_without_a_gap(
    simulator: StartSimulator, state: State, until: Until
) -> None:
    """What happens while the stream is away comes when it is back."""
    broker = await simulator(activities_per_second=40)
    async with running(context_of(broker, state, symbol_collection_interval=300)):
        await until(all_known(broker, state), "all accounts are known")
        for _ in range(3):
            await broker.post("/_sim/cut", {"stream": "events"})

            async def is_back() -> bool:
                return (await broker.get("/_sim/state"))["event_stream_connections"] == 1

            await until(is_back, "the stream is back")
        await broker.post("/_sim/pause")
        await wait_exact(broker, state, until)


async def test_a_valkey_that_is_killed_gets_everything_again(
    simulator: StartSimulator, mortal_valkey: Valkeys, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records are in memory: they are written again, and hardly a request is sent (without names)."""

    monkeypatch.setattr(collector, "learn_names", learn_no_names)
    broker = await simulator(activities_per_second=2)
    state = open_state(mortal_valkey.url, holder="test", shards=SHARDS, lease_ms=LEASE_MS)
    try:
        async with running(context_of(broker, state, symbol_collection_interval=300)):
            await until(all_known(broker, state), "all accounts are known")
            requests = (await broker.get("/_sim/state"))["requests"]
            await mortal_valkey.kill()
            await broker.post(
                "/_sim/cash", {"account_id": await first_id(broker), "activity_type": "CSD", "amount": "1"}
            )
            await mortal_valkey.start()
            await until(all_known(broker, state), "all records are back", 20)
            await broker.post("/_sim/pause")
            await wait_exact(broker, state, until)
            assert len(await state.accounts.read_universe()) > 1
            assert (await broker.get("/_sim/state"))["requests"] - requests < 2 * 20, "no second bootstrap"
    finally:
        await state.close()


async def first_id(simulator: Simulator) -> str:
    """One account."""
    return (await simulator.get("/_sim/accounts"))["accounts"][0]


@contextlib.contextmanager
def collector_process(simulator: Simulator, valkey_url: str) -> Any:
    """A collector in a process of its own."""
    environment = {**os.environ, **simulator.environment, "REDIS_URL": valkey_url}
    environment |= {name.upper(): str(value) for name, value in SETTINGS.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "portfolio_realtime.symbol_collector"],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        end(process)


async def test_a_second_collector_takes_over_when_the_first_is_killed(
    simulator: StartSimulator, valkey_url: str, state: State, until: Until
) -> None:
    """One is active by lease; killed in mid-activity, the other goes on, with newer versions only."""
    broker = await simulator(activities_per_second=20)
    with collector_process(broker, valkey_url) as first:
        await until(all_known(broker, state), "all accounts are known", PROCESS_S_MAX)
        with collector_process(broker, valkey_url):
            connections = (await broker.get("/_sim/state"))["event_stream_connections"]
            assert connections == 1, "the second one stands by"
            alice = await first_id(broker)
            before = await state.accounts.read_one(alice)
            first.kill()

            async def is_newer() -> bool:
                after = await state.accounts.read_one(alice)
                return before is not None and after is not None and after.version > before.version

            await until(is_newer, "the second one writes", PROCESS_S_MAX)
            await broker.post("/_sim/pause")
            await wait_exact(broker, state, until)


async def test_after_another_owner_nothing_old_is_written(
    simulator: StartSimulator, valkey_url: str, state: State, until: Until
) -> None:
    """A collector that lost its lease begins again when somebody else has written since."""
    broker = await simulator(accounts=5, activities_per_second=0)
    alice = await first_id(broker)
    other = open_state(valkey_url, holder="other", shards=SHARDS, lease_ms=LEASE_MS)
    async with running(context_of(broker, state, symbol_collection_interval=300)):
        await until(all_known(broker, state), "all accounts are known")
        await wait_exact(broker, state, until)
        before = await state.accounts.read_one(alice)
        assert before is not None
        await other.connection.commands.delete(keys.lease(collector.NAME))
        lease = await other.leases.acquire(collector.NAME)
        assert lease is not None
        newer = lease.fencing_token
        await other.accounts.write(lease, [msgspec.structs.replace(before, version=newer, cash=Decimal(7))])
        await other.leases.release(lease)

        async def is_newer() -> bool:
            after = await state.accounts.read_one(alice)
            return after is not None and after.version > newer

        await until(is_newer, "alice is fetched again", 10)
        await wait_exact(broker, state, until)
    await other.close()


async def test_records_of_a_former_life_are_tidied_up(
    simulator: StartSimulator, state: State, until: Until
) -> None:
    """An account that is not listed any more, and a symbol that nobody holds, go once all is known."""
    broker = await simulator(accounts=3, activities_per_second=0)
    lease = await state.leases.acquire(collector.NAME)
    assert lease is not None
    await state.accounts.write(lease, [statement_of("long gone")])
    await state.accounts.write_universe(lease, {"GONE": "us_equity"}, [])
    await state.leases.release(lease)
    async with running(context_of(broker, state)):
        await until(all_known(broker, state), "only listed accounts have records")

        async def is_gone() -> bool:
            return "GONE" not in await state.accounts.read_universe()

        await until(is_gone, "the symbol has left the universe")
        await wait_exact(broker, state, until)


def statement_of(account_id: str) -> Account:
    """Some record."""
    return Account(account_id, 1, "ACTIVE", "USD", Decimal(1), Decimal(1), "2026-11-19", Decimal(0), (), 0)


async def test_a_rest_interface_that_trails_the_events_does_no_harm(
    simulator: StartSimulator, state: State, until: Until
) -> None:
    """REST is a second behind: the records end exact, and nothing was taken for drift."""
    broker = await simulator(activities_per_second=15, rest_lag=1)
    context = context_of(broker, state)
    async with running(context):
        await until(all_known(broker, state), "all accounts are known")
        moved = (await broker.get("/_sim/state"))["activities"] + 30

        async def much_has_happened() -> bool:
            return (await broker.get("/_sim/state"))["activities"] > moved

        await until(much_has_happened, "30 more activities")
        await broker.post("/_sim/pause")
        await wait_exact(broker, state, until)
        drift = context.registry.get_sample_value("portfolio_realtime_reconciled_total", {"outcome": "drift"})
        assert not drift


async def test_a_low_rate_limit_is_kept_and_watched_accounts_come_first(
    simulator: StartSimulator, state: State, until: Until
) -> None:
    """Sixty requests a minute for fifty accounts: no storm, and who is watched need not wait for all."""
    broker = await simulator(accounts=50, rate_limit=60, activities_per_second=0)
    last = max((await broker.get("/_sim/accounts"))["accounts"])
    async with running(context_of(broker, state, symbol_collection_interval=60)):
        await until(lambda: state.accounts.ids(), "the first record is there")
        await state.interest.begin([last])
        await until(lambda: state.accounts.read_one(last), "the watched account is known", 5)
        counters = await broker.get("/_sim/state")
        assert counters["rejected_429"] <= 1
        assert len(await state.accounts.ids()) < 50, "it did not wait for all"


@pytest.mark.parametrize(("price_factor", "is_drift"), [(1.0, False), (1.5, True)])
async def test_our_prices_are_compared_with_the_broker_s(
    simulator: StartSimulator, state: State, until: Until, price_factor: float, is_drift: bool
) -> None:
    """Counted at each reconcile, logged with the account; the equity at the broker's prices is the same."""
    broker = await simulator(accounts=3, activities_per_second=0)
    await broker.post("/_sim/pause")
    truth = (await broker.get("/_sim/truth"))["accounts"]
    prices = {p["symbol"]: float(p["mark"]) for true in truth.values() for p in true["positions"]}
    lease = await state.leases.acquire("market_data:stocks")
    assert lease is not None
    await state.marks.write(
        lease, [Mark(symbol, price * price_factor, 1, 1, "iex") for symbol, price in prices.items()]
    )
    context = context_of(broker, state)
    with structlog.testing.capture_logs() as logs:
        async with running(context):
            await until(lambda: drifts(context, "price") >= 3, "three accounts are compared")
    drifting = {line["account_id"] for line in logs if line["event"] == "price drift"}
    assert (drifts(context, "price", "1e-06") == 0) == is_drift
    assert drifting == (set(truth) if is_drift else set())
    assert drifts(context, "equity", "1e-06") == drifts(context, "equity") >= 3


def drifts(context: Context, kind: str, at_most: str = "+Inf") -> float:
    """How many comparisons of a kind came out at this at most."""
    name = f"portfolio_realtime_{kind}_drift_ratio_bucket"
    return context.registry.get_sample_value(name, {"le": at_most}) or 0.0


class GenerousClient(HeldClient):
    """A client of a broker that counts a tenth more as equity than cash and positions."""

    async def statement(self, account_id: str, *, is_urgent: bool) -> Statement | None:
        """As the broker states it."""
        found = await super().statement(account_id, is_urgent=is_urgent)
        if found is None or found.state.equity is None:
            return found
        larger = max(abs(found.state.equity), Decimal(1_000_000)) * Decimal("1.1")
        return msgspec.structs.replace(found, state=msgspec.structs.replace(found.state, equity=larger))


async def test_our_arithmetic_is_compared_with_the_broker_s(
    simulator: StartSimulator, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its own prices, so that what is told is no matter of moments; without any mark of ours."""
    broker = await simulator(accounts=3, activities_per_second=0)
    monkeypatch.setattr(collector, "open_client", GenerousClient)
    context = context_of(broker, state)
    with structlog.testing.capture_logs() as logs:
        async with running(context):
            await until(lambda: drifts(context, "equity") >= 3, "three accounts are compared")
    assert drifts(context, "equity", "0.01") == 0
    truth = (await broker.get("/_sim/truth"))["accounts"]
    assert {line["account_id"] for line in logs if line["event"] == "equity drift"} == set(truth)
    assert drifts(context, "price") == 0


async def test_a_trifle_is_no_drift_where_long_and_short_cancel_out(
    simulator: StartSimulator, state: State, until: Until
) -> None:
    """An equity of 60 dollars over positions of 48,000: prices of a moment later are not 20 % away."""
    broker = await simulator(accounts=0, activities_per_second=0, trades_per_second=0)
    price = Decimal((await broker.post("/_sim/print", {"symbol": "AAPL", "price": "240.00"}))["mark"])
    body = {"cash": str(60 - 200 * price), "positions": {"AAPL": "200"}}
    alice = (await broker.post("/_sim/accounts", body))["account_id"]
    lease = await state.leases.acquire("market_data:stocks")
    assert lease is not None
    await state.marks.write(lease, [Mark("AAPL", 240.06, 1, 1, "iex")])
    context = context_of(broker, state)
    with structlog.testing.capture_logs() as logs:
        async with running(context):
            await until(lambda: drifts(context, "price") >= 1, "the account is compared")
    assert drifts(context, "price", "0.001") == drifts(context, "price")
    assert not [line for line in logs if line["event"].endswith("drift") and line["account_id"] == alice]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"broker_api_key": "", "broker_secret_key": ""}, "BROKER_API_KEY"),
        ({"broker_api_key": "wrong", "broker_secret_key": "sesame-secret"}, "HTTP 401.*BROKER_API_KEY"),
    ],
)
async def test_refused_credentials_end_the_service_with_the_setting_s_name(
    simulator: StartSimulator, state: State, settings: dict[str, str], message: str
) -> None:
    """Waiting does not help; the secret is not in the message."""
    broker = await simulator(accounts=1)
    started_s = time.monotonic()

    with pytest.raises((BrokerRefused, SettingsError), match=message) as refused:
        await asyncio.wait_for(collector.run(context_of(broker, state, **settings)), 20)

    assert "sesame" not in str(refused.value)
    assert time.monotonic() - started_s < 20


async def test_closed_days_are_fetched_for_who_asks(
    simulator: StartSimulator, state: State, until: Until
) -> None:
    """The server asks in the state, the collector asks the broker and answers there."""
    broker = await simulator(accounts=3, activities_per_second=0)
    account_id = (await broker.get("/_sim/accounts"))["accounts"][0]

    async def is_there() -> bool:
        return await state.closed_days.read(account_id) is not None

    async with running(context_of(broker, state)):
        await state.closed_days.want("nobody")
        await state.closed_days.want(account_id)
        await until(is_there, "the days are there", 20)
    found = await state.closed_days.read(account_id)
    assert found is not None
    assert found.account_id == account_id
    assert await state.closed_days.read("nobody") is None
