"""One account by its Trading API key: the same services, exact to the cent, also after a kill."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from websockets.asyncio.client import connect

from portfolio_harness.oracle import Truth
from portfolio_harness.system import System, running
from portfolio_realtime.errors import BrokerRefused, SettingsError
from portfolio_realtime.state import State, open_state
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.symbol_collector import collector
from portfolio_realtime.symbol_collector.sources.trading_client import TradingClient
from tests.conftest import LEASE_MS, SHARDS, Simulator, StartSimulator, Until, end, running_service
from tests.support.one_account import context_of_one, keys

OPTIONS = (
    "--accounts",
    "5",
    "--symbols",
    "30",
    "--seed",
    "11",
    "--activities-per-second",
    "4",
    "--rate-limit",
    "200",
)
FOLLOWED = 2  # which of the simulator's accounts
BACK_S_MAX = 60.0
CONVERGE_S_MAX = 60.0
RECONCILED = "portfolio_realtime_reconciled_total"
FIGURES = ("equity", "cash", "last_equity", "external_cash_flow", "day_pnl")


async def is_exact(simulator: Simulator, state: State, account_id: str) -> bool:
    """Whether the record of an account is exactly the truth."""
    true = await simulator.get(f"/_sim/accounts/{account_id}")
    account = await state.accounts.read_one(account_id)
    if account is None:
        return False
    held = {position.symbol: position.quantity for position in account.positions if position.quantity}
    wanted = {position["symbol"]: Decimal(position["quantity"]) for position in true["positions"]}
    numbers = (account.cash, account.last_equity, account.external_cash_flow)
    true_numbers = tuple(Decimal(true[name]) for name in ("cash", "last_equity", "external_cash_flow"))
    return numbers == true_numbers and held == wanted


async def test_only_this_account_is_followed_and_it_is_exact(
    simulator: StartSimulator, state: State, until: Until
) -> None:
    """Bootstrap in the middle of activity, a cut stream, balances that trail: one exact record."""
    broker = await simulator(accounts=3, activities_per_second=12, rate_limit=200, rest_lag=1.5)
    account_id = (await broker.get("/_sim/accounts"))["accounts"][1]
    context = context_of_one(broker, state, 1)
    async with running_service(collector.run(context)):
        await until(lambda: state.accounts.read_one(account_id), "the account is known", BACK_S_MAX)
        await broker.post("/_sim/trading/cut")
        for amount in ("250.25", "-100.10"):
            kind = "CSD" if amount[0] != "-" else "CSW"
            await broker.post(
                "/_sim/cash", {"account_id": account_id, "activity_type": kind, "amount": amount}
            )
        moved = (await broker.get("/_sim/state"))["activities"] + 20

        async def much_has_happened() -> bool:
            return (await broker.get("/_sim/state"))["activities"] > moved

        await until(much_has_happened, "20 more activities", BACK_S_MAX)
        await broker.post("/_sim/pause")
        await until(lambda: is_exact(broker, state, account_id), "the record is exact", CONVERGE_S_MAX)
        assert await state.accounts.ids() == [account_id]
        assert (await broker.get("/_sim/state"))["rejected_429"] == 0
        assert context.registry.get_sample_value(RECONCILED, {"outcome": "drift"}) is None


async def test_a_fill_is_seen_when_the_stream_tells_it(
    simulator: StartSimulator, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No poll would come in an hour: it is the trade update that prompts."""
    monkeypatch.setattr("portfolio_realtime.symbol_collector.sources.trading_follower.POLL_S", 3600.0)
    broker = await simulator(accounts=2, activities_per_second=0)
    account_id = (await broker.get("/_sim/accounts"))["accounts"][0]
    context = context_of_one(broker, state, 0, symbol_collection_interval=3600)
    monkeypatch.setattr(TradingClient, "interval_s_max", 3600.0)
    async with running_service(collector.run(context)):
        await until(lambda: state.accounts.read_one(account_id), "the account is known", BACK_S_MAX)

        async def listens() -> bool:
            return (await broker.get("/_sim/trading"))["listening"] == 1

        await until(listens, "the collector listens", BACK_S_MAX)
        await broker.post(
            "/_sim/trade", {"account_id": account_id, "symbol": "AAPL", "quantity": "1.5", "price": "100.01"}
        )
        await until(lambda: is_exact(broker, state, account_id), "the fill is in the record", BACK_S_MAX)


async def test_who_stands_by_has_no_connection(
    simulator: StartSimulator, valkey_url: str, state: State, until: Until
) -> None:
    """The account may have one: a second would end the first, or be refused."""
    broker = await simulator(accounts=2, activities_per_second=0)
    account_id = (await broker.get("/_sim/accounts"))["accounts"][0]
    other = open_state(valkey_url, holder="other", shards=SHARDS, lease_ms=LEASE_MS)
    active, standby = context_of_one(broker, other, 0), context_of_one(broker, state, 0)

    async def listening() -> int:
        return (await broker.get("/_sim/trading"))["listening"]

    async def listens() -> bool:
        return await listening() == 1

    async with running_service(collector.run(active)):
        await until(lambda: state.accounts.read_one(account_id), "the account is known", BACK_S_MAX)
        await until(listens, "the active one listens", BACK_S_MAX)
        async with running_service(collector.run(standby)):
            await asyncio.sleep(2 * LEASE_MS / 1000)
            assert await listening() == 1
    await other.close()


async def test_wrong_keys_are_refused_with_the_remedy(simulator: StartSimulator, state: State) -> None:
    """Both settings are named, and so is the sandbox; the secret is not. No key at all says what to set."""
    broker = await simulator(accounts=1, activities_per_second=0)
    context = context_of_one(broker, state, 0, apca_api_secret_key="s3cr3t-wrong")
    with pytest.raises(BrokerRefused, match=r"APCA_API_SECRET_KEY.*ALPACA_SANDBOX") as refused:
        await collector.run(context)
    assert "s3cr3t" not in str(refused.value)
    nobody = context_of_one(broker, state, 0, apca_api_secret_key="", apca_api_key_id="")
    with pytest.raises(SettingsError, match="APCA_API_KEY_ID and APCA_API_SECRET_KEY for one account"):
        await collector.run(nobody)


async def test_two_keys_and_run_are_enough(simulator: StartSimulator, until: Until, tmp_path: Path) -> None:
    """The terminal says whose account it is and where the page is; the page knows the account by itself."""
    broker = await simulator(accounts=2, activities_per_second=0)
    account_id = (await broker.get("/_sim/accounts"))["accounts"][1]
    port = free_port()
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in keys(1).items()))
    hosts = {name: value for name, value in broker.environment.items() if name.endswith("_URL")}
    with (tmp_path / "log").open("w") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "portfolio_realtime", "run"],
            cwd=tmp_path,
            env={**os.environ, **hosts, "RUN_SERVICES_PORT": str(port), "REDIS_HOST": "", "JWT_SECRET": ""},
            stdout=log_file,
            stderr=subprocess.STDOUT,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=BACK_S_MAX) as client:

            async def is_picked() -> bool:
                with contextlib.suppress(httpx.HTTPError):
                    answer = await client.get("/demo/session")
                    return answer.is_success and answer.json()["accounts"] == [account_id]
                return False

            async def has_value() -> bool:
                return (await client.get(f"/v1/portfolio/{account_id}")).status_code == 200

            def is_announced() -> bool:
                return f"http://127.0.0.1:{port}/" in (tmp_path / "log").read_text()

            await until(is_picked, "the page knows the account", BACK_S_MAX)
            await until(has_value, "the account has a value", BACK_S_MAX)
            await until(is_announced, "the terminal says where the page is", BACK_S_MAX)
    finally:
        end(process)
    log = (tmp_path / "log").read_text()
    assert "one paper account (by APCA_API_KEY_ID)" in log
    assert keys(1)["APCA_API_SECRET_KEY"] not in log


class Watcher:
    """One WebSocket client of one account, and the newest value that it was sent."""

    def __init__(self, system: System, account_id: str) -> None:
        self.newest: dict[str, Any] | None = None
        self._url = f"{system.url.replace('http', 'ws', 1)}/ws/portfolio/{account_id}?detail=positions"
        self._token = system.token_for(account_id)

    async def watch(self) -> None:
        """Keep the newest value until cancelled."""
        async with connect(self._url, compression=None) as socket:
            await socket.send(msgspec.json.encode({"type": "auth", "token": self._token}).decode())
            async for frame in socket:
                message = msgspec.json.decode(frame)
                if message["type"] == "portfolio":
                    self.newest = message

    def shows(self, truth: Truth) -> bool:
        """Whether the newest value is the truth to the cent."""
        newest = self.newest
        return newest is not None and all(newest[name] == truth.figures[name] for name in FIGURES)


async def test_the_whole_system_follows_one_account_to_the_cent(until: Until) -> None:
    """Trades, deposits, withdrawals, dividends, fees; the collector is killed and comes back by itself."""
    overrides = {**keys(FOLLOWED), "MIN_UPDATE_INTERVAL": "0.2", "LOG_LEVEL": "warning"}
    async with running(OPTIONS, port=0, overrides=overrides) as system:
        account_id = (await system.oracle.account_ids())[FOLLOWED]

        async def is_known() -> bool:
            headers = {"Authorization": f"Bearer {system.token_for(account_id)}"}
            async with httpx.AsyncClient(base_url=system.url, headers=headers, timeout=BACK_S_MAX) as client:
                return (await client.get(f"/v1/portfolio/{account_id}")).status_code == 200

        await until(is_known, "the account has a value", BACK_S_MAX)
        watcher = Watcher(system, account_id)
        async with running_service(watcher.watch()):
            await until(lambda: watcher.newest, "a value arrives", BACK_S_MAX)
            killed = system.supervisor.pids["symbol_collector"]
            os.kill(killed, signal.SIGKILL)
            async with httpx.AsyncClient(base_url=system.simulator_url, timeout=10) as simulator:
                for kind, amount in (("CSD", "1234.56"), ("DIV", "7.89"), ("CSW", "34.5"), ("FEE", "0.03")):
                    body = {"account_id": account_id, "activity_type": kind, "amount": amount}
                    (await simulator.post("/_sim/cash", json=body)).raise_for_status()
                for quantity in ("3", "-1.25"):
                    order = {"account_id": account_id, "symbol": "AAPL", "quantity": quantity}
                    (await simulator.post("/_sim/trade", json=order)).raise_for_status()
            await until(
                lambda: system.supervisor.pids["symbol_collector"] != killed, "it is back", BACK_S_MAX
            )
            await system.oracle.pause()

            async def shows_the_truth() -> bool:
                return watcher.shows((await system.oracle.truth())[account_id])

            await until(shows_the_truth, "the client shows the oracle's value", CONVERGE_S_MAX)
            assert "external_cash_flow" in FIGURES
            assert Decimal((watcher.newest or {})["external_cash_flow"]), "deposits and withdrawals are told"
