"""Two collectors, consumers, calculators and servers on one Valkey: each hop cut, paused or killed in turn.

`python -m pytest -s tests/faults/test_two_of_everything.py` prints the table of docs/reliability.md: seconds
until the client is told, and until its value moves and is live again.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from websockets.asyncio.client import connect

from portfolio_harness.oracle import Oracle
from portfolio_harness.system import free_port, settings_for, start_simulator, token, wait_ready
from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.processes import end_all
from portfolio_realtime.run_services import SERVICES
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.supervisor import Supervisor
from tests.conftest import LEASE_MS, Until, one_server
from tests.faults.valkey_proxy import ValkeyProxy
from tests.support.pages import WatchedPage

TOLD_S_MAX: Final = 30.0  # 5 s on a machine that has time
HEALED_S_MAX: Final = 60.0
MUTE_S: Final = 10.0
SETTLED_MOVES: Final = 20  # values that have come: all has started by then
SECRET: Final = secrets.token_urlsafe(48)
OPTIONS: Final = ("--accounts", "6", "--symbols", "12", "--seed", "5", "--trades-per-second", "60")
SHARDS: Final = 16
Do = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Pair:
    """Two of everything, and a client of the first server."""

    supervisors: tuple[Supervisor, Supervisor]
    oracle: Oracle
    state: State
    valkey: ValkeyNode
    proxy: ValkeyProxy
    page: WatchedPage
    account_id: str

    def pids(self, name: str) -> list[int]:
        """Both processes of a service."""
        return [supervisor.pids[name] for supervisor in self.supervisors]

    async def active(self, name: str, lease: str) -> int:
        """The process that holds a lease now."""
        async with asyncio.timeout(HEALED_S_MAX):
            while True:
                holder = (await self.state.leases.holders([lease]))[lease] or ""
                for pid in self.pids(name):
                    if f"-{pid}-" in holder:
                        return pid
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def two_of_everything() -> AsyncGenerator[Pair]:
    """Started, with a page that shows a live value soon."""
    simulator, simulator_url = await start_simulator(OPTIONS)
    oracle = Oracle(simulator_url)
    async with one_server() as valkey, ValkeyProxy(valkey.port) as proxy:
        ports = [free_port(0), free_port(0)]
        own = {"REDIS_URL": proxy.url, "MIN_UPDATE_INTERVAL": "0.2", "LOG_LEVEL": "error"}
        first, second = (
            Supervisor({**os.environ, **settings_for(simulator_url, port, SECRET), **own}, SERVICES)
            for port in ports
        )
        state = open_state(valkey.url, holder="test", shards=SHARDS, lease_ms=LEASE_MS)
        page = WatchedPage()
        reading: list[asyncio.Task[None]] = []
        try:
            for supervisor in (first, second):
                await supervisor.start(is_embedded=False)
            for port in ports:
                await wait_ready(f"http://127.0.0.1:{port}")
            account_id = (await oracle.account_ids())[0]
            headers = {"Authorization": f"Bearer {token(SECRET, 'client', [account_id], 3600)}"}
            url = f"ws://127.0.0.1:{ports[0]}/ws/portfolio/{account_id}"
            async with connect(url, additional_headers=headers, ping_interval=None) as socket:
                reading.append(asyncio.create_task(page.read(socket)))
                yield Pair((first, second), oracle, state, valkey, proxy, page, account_id)
                assert not reading[0].done(), f"the client was closed: {socket.close_code}"
        finally:
            await cancel_until_ended(reading)
            await state.close()
            for supervisor in (first, second):
                await supervisor.stop()
            await oracle.close()
            await end_all([simulator])


async def test_each_hop_is_told_and_heals(until: Until) -> None:
    """Both of a kind away: the client is told. One of them: the other takes over. Nobody goes back."""
    async with two_of_everything() as pair:
        page = pair.page
        await until(lambda: page.is_live and page.moves > SETTLED_MOVES, "live values", HEALED_S_MAX)

        async def measure(name: str, do: Do, undo: Do | None = None, *, is_told: bool = True) -> None:
            began_s, told = time.monotonic(), ""
            await do()
            if is_told:
                await until(lambda: not page.is_live, f"{name} is told", TOLD_S_MAX)
                told = f"{time.monotonic() - began_s:.1f}"
            if undo is not None:
                await undo()
                began_s = time.monotonic()
            seen = page.moves
            await until(lambda: page.is_live and page.moves > seen, f"live again after {name}", HEALED_S_MAX)
            print(f"| {name} | {told} | {time.monotonic() - began_s:.1f} |", flush=True)
            assert page.steps_back == 0

        def stop(service: str, signal_number: int) -> Do:
            async def send() -> None:
                for pid in pair.pids(service):
                    os.kill(pid, signal_number)

            return send

        print("\n| both of, or all | marked after s | live again after s |\n| --- | ---: | ---: |")
        for service in ("market_data_consumer", "symbol_collector", "portfolio_calculator"):
            await measure(f"{service} paused", stop(service, signal.SIGSTOP), stop(service, signal.SIGCONT))
        await measure("feed mute", lambda: mute(pair, "market.mute"))
        await measure("every open path to Valkey dead", lambda: lose(pair), is_told=False)
        await measure("subscriptions cut", lambda: command(pair, "CLIENT KILL TYPE pubsub"), is_told=False)
        shard = keys.shard_lease(keys.shard_of(pair.account_id, SHARDS))
        await measure("FLUSHALL", lambda: empty(pair, shard), is_told=False)
        for service, lease in (
            ("symbol_collector", "symbol_collector"),
            ("market_data_consumer", "market_data:stocks"),
            ("portfolio_calculator", shard),
        ):
            await measure(f"active {service} killed", kill(pair, service, lease), is_told=False)


def kill(pair: Pair, service: str, lease: str) -> Do:
    """Kill -9 whoever holds the lease; it is gone when somebody else does."""

    async def do() -> None:
        pid = await pair.active(service, lease)
        before = (await pair.state.leases.holders([lease]))[lease]
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(HEALED_S_MAX):
            while (await pair.state.leases.holders([lease]))[lease] in (before, None):
                await asyncio.sleep(0.02)

    return do


async def mute(pair: Pair, kind: str) -> None:
    """For MUTE_S: open, and silent."""
    await pair.oracle.install({"faults": [{"kind": kind, "for_s": MUTE_S}]})


async def lose(pair: Pair) -> None:
    """What is open passes nothing any more; new connections do."""
    pair.proxy.lose_open_flows()


async def empty(pair: Pair, shard: str) -> None:
    """Valkey loses everything under all who are connected; until the account's shard has an owner again."""
    await command(pair, "FLUSHALL")
    await pair.active("portfolio_calculator", shard)


async def command(pair: Pair, words: str) -> None:
    """A command of an operator."""
    await pair.state.connection.commands.execute_command(*words.split())
