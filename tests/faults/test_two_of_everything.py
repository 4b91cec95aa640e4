"""Two collectors, consumers, calculators and servers on one Valkey: each hop cut, paused or killed in turn.

`python -m pytest -s -m drill tests/faults/test_two_of_everything.py` prints the tables of
docs/reliability.md: seconds until a client on the wire and a page in Chromium are told, and until their
values move and are live again; and what slow links to Valkey do.
"""

import asyncio
import contextlib
import os
import signal
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Page, async_playwright
from websockets.asyncio.client import ClientConnection, connect

from portfolio_harness.chaos.cut_proxy import CutProxy
from portfolio_harness.chaos.place import SHARDS, Place
from portfolio_harness.oracle import Oracle
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import NS_PER_S, parse_rfc3339
from portfolio_realtime.state import State, keys, open_state
from tests.conftest import LEASE_MS, ONE_KIND, Until
from tests.frontend.conftest import ARGUMENTS, CHROMIUM
from tests.interoperability.programs import lacking
from tests.support.pages import WatchedPage

TOLD_S_MAX: Final = 30.0  # 5 s on a machine that has time
HEALED_S_MAX: Final = 60.0
MUTE_S: Final = 10.0
SETTLED_MOVES: Final = 20  # values that have come: all has started by then
SETTLED_S: Final = 2.0  # between two measurements
SLOW_LINK_S: Final = 0.2
WATCHED_S: Final = 10.0
LOOK_S: Final = 0.05  # between two looks at the screen
ACCOUNTS: Final = 6
SEED: Final = 5
OVERRIDES: Final = {"MIN_UPDATE_INTERVAL": "0.2", "DEMO_PAGE": "true"}
KINDS: Final = ("market_data_consumer", "symbol_collector", "portfolio_calculator")
Do = Callable[[], Awaitable[None]]

pytestmark = pytest.mark.timeout(900)  # a machine with much else to do


class Screen:
    """What the server's own page says of itself in a browser."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.state: str | None = None

    @property
    def is_live(self) -> bool:
        """Does it call its figures live? What the broker has not confirmed yet is live, too."""
        return self.state in ("live", "unconfirmed")

    async def watch(self) -> None:
        """Forever."""
        while True:
            self.state = await self._page.get_attribute("#connection", "data-state")
            await asyncio.sleep(LOOK_S)


@dataclass
class Pair:
    """Two of everything, a client of the first server, and a page of it."""

    place: Place
    oracle: Oracle
    state: State
    client: WatchedPage
    screen: Screen
    account_id: str
    leases: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Which lease tells who of a pair is active."""
        shard = keys.shard_lease(keys.shard_of(self.account_id, SHARDS))
        names = ("market_data:stocks", "symbol_collector", shard)
        self.leases = dict(zip(KINDS, names, strict=True))

    @property
    def is_live(self) -> bool:
        """Do wire and screen call their values live?"""
        return self.client.is_live and self.screen.is_live

    async def holder(self, kind: str) -> str | None:
        """Who holds the lease of a kind."""
        lease = self.leases[kind]
        return (await self.state.leases.holders([lease]))[lease]

    async def active(self, kind: str) -> int:
        """The process that holds the lease of a kind now."""
        async with asyncio.timeout(HEALED_S_MAX):
            while True:
                holder = await self.holder(kind) or ""
                for service in self.place.of(kind):
                    if f"-{service.pid}-" in holder:
                        return service.pid
                await asyncio.sleep(LOOK_S)

    def proxies(self, name: str) -> list[CutProxy]:
        """Of a kind, or of one process."""
        return [service.proxy for service in self.place.of(name)]

    def pids(self, kind: str) -> list[int]:
        """Both processes of a kind."""
        return [service.pid for service in self.place.of(kind)]


@contextlib.asynccontextmanager
async def page_in_chromium(url: str) -> AsyncGenerator[Screen]:
    """A page that is looked at all the time."""
    if CHROMIUM is None:
        lacking("no browser: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await browser.new_page()
        await page.goto(url)
        screen = Screen(page)
        watching = asyncio.create_task(screen.watch())
        try:
            yield screen
        finally:
            await cancel_until_ended([watching])
            await browser.close()


@contextlib.asynccontextmanager
async def connected(place: Place, url: str, account_id: str) -> AsyncGenerator[ClientConnection]:
    """A client's connection to one server."""
    headers = {"Authorization": f"Bearer {place.token_for(account_id)}"}
    address = url.replace("http", "ws", 1) + f"/ws/portfolio/{account_id}"
    async with connect(address, additional_headers=headers, ping_interval=None) as socket:
        yield socket


@contextlib.asynccontextmanager
async def two_of_everything(folder: Path) -> AsyncGenerator[Pair]:
    """Started, with a client and a page that show a live value soon; the client must not be closed."""
    place = Place(folder, SEED, ACCOUNTS, kind=ONE_KIND)
    async with place.running(OVERRIDES) as oracle, contextlib.AsyncExitStack() as stack:
        state = open_state(place.valkey.url, holder="test", shards=SHARDS, lease_ms=LEASE_MS)
        stack.push_async_callback(state.close)
        account_id = (await oracle.account_ids())[0]
        screen = await stack.enter_async_context(page_in_chromium(f"{place.urls[0]}/#{account_id}"))
        socket = await stack.enter_async_context(connected(place, place.urls[0], account_id))
        client = WatchedPage()
        reading = asyncio.create_task(client.read(socket))
        stack.push_async_callback(cancel_until_ended, [reading])
        yield Pair(place, oracle, state, client, screen, account_id)
        assert not reading.done(), f"the client was closed: {socket.close_code}"


class Measured:
    """Measures what is done to a pair, and prints a row for each."""

    def __init__(self, pair: Pair, until: Until) -> None:
        self._pair = pair
        self._until = until
        print("\n| what | wire: told | page: told | wire: live | page: live |", flush=True)

    async def __call__(self, name: str, do: Do, undo: Do | None = None, *, is_told: bool = True) -> None:
        """Do it, wait until both are told, undo it, and wait until both are live again."""
        pair, told = self._pair, ("", "")
        await self._until(lambda: pair.is_live, f"live before {name}", HEALED_S_MAX)
        await asyncio.sleep(SETTLED_S)
        began_s = time.monotonic()
        await do()
        if is_told:
            told = await self._seconds(
                began_s, lambda: not pair.client.is_live, lambda: not pair.screen.is_live, f"{name} is told"
            )
        if undo is not None:
            await undo()
            began_s = time.monotonic()
        seen = pair.client.moves
        live = await self._seconds(
            began_s,
            lambda: pair.client.is_live and pair.client.moves > seen,
            lambda: pair.screen.is_live,
            f"live again after {name}",
        )
        print(f"| {name} | {' | '.join((*told, *live))} |", flush=True)
        assert pair.client.steps_back == 0

    async def _seconds(
        self, began_s: float, on_wire: Callable[[], bool], on_page: Callable[[], bool], what: str
    ) -> tuple[str, str]:
        async def measure(predicate: Callable[[], bool], where: str) -> str:
            await self._until(predicate, f"{what} on the {where}", TOLD_S_MAX + HEALED_S_MAX)
            return f"{time.monotonic() - began_s:.1f}"

        wire, page = await asyncio.gather(measure(on_wire, "wire"), measure(on_page, "page"))
        return wire, page


@pytest.mark.drill
async def test_each_hop_is_told_and_heals(tmp_path: Path, until: Until) -> None:
    """Both of a kind away: wire and page are told. One of them: the other takes over. Nobody goes back."""
    async with two_of_everything(tmp_path) as pair:
        await until(lambda: pair.is_live and pair.client.moves > SETTLED_MOVES, "live values", HEALED_S_MAX)
        measure = Measured(pair, until)
        for kind in KINDS:
            pids = pair.pids(kind)
            await measure(f"both {kind}: SIGSTOP", sent(pids, signal.SIGSTOP), sent(pids, signal.SIGCONT))
        for kind in (*KINDS, "websocket_server-1"):
            for direction in ("holds_there", "holds_back"):
                proxies = pair.proxies(kind)
                name = f"{kind}: nothing {'to' if direction == 'holds_there' else 'from'} Valkey"
                await measure(name, held(proxies, direction, is_held=True), held(proxies, direction))
        for kind in (*KINDS, "websocket_server-1"):
            await measure(f"{kind}: subscriptions deaf", deafened(pair.proxies(kind)), is_told=False)
        await measure(f"feed mute for {MUTE_S:.0f} s", muted(pair, "market.mute"))
        await measure(f"account events mute for {MUTE_S:.0f} s", muted(pair, "events.mute"))
        await measure("every open path to Valkey dead", lambda: lose(pair), is_told=False)
        await measure(
            "all subscriptions cut", lambda: command(pair, "CLIENT KILL TYPE pubsub"), is_told=False
        )
        await measure("FLUSHALL", lambda: empty(pair), is_told=False)
        for kind in KINDS:
            await measure(f"active {kind}: kill -9", replaced(pair, kind, signal.SIGKILL), is_told=False)
        for kind in KINDS:
            await measure(f"active {kind}: SIGSTOP", replaced(pair, kind, signal.SIGSTOP), is_told=False)
            await sent(pair.pids(kind), signal.SIGCONT)()


async def test_a_client_of_a_killed_server_goes_on_at_the_other(tmp_path: Path, until: Until) -> None:
    """With what it has seen: it never goes back."""
    async with two_of_everything_without_page(tmp_path) as (place, account_id):
        client = WatchedPage()
        async with connected(place, place.urls[0], account_id) as socket:
            reading = asyncio.create_task(client.read(socket))
            await until(lambda: client.is_live and client.moves > SETTLED_MOVES, "live values", HEALED_S_MAX)
            began_s = time.monotonic()
            await place.services["websocket_server-1"].kill()
            with contextlib.suppress(Exception):
                await reading
            noticed_s = time.monotonic() - began_s
        async with connected(place, place.urls[1], account_id) as socket:
            seen, reading = client.moves, asyncio.create_task(client.read(socket))
            await until(lambda: client.moves > seen, "values go on", HEALED_S_MAX)
            print(
                f"\nserver killed: noticed {noticed_s:.1f} s, values {time.monotonic() - began_s:.1f} s after"
            )
            await cancel_until_ended([reading])
        assert client.steps_back == 0


@pytest.mark.drill
async def test_slow_links_slow_only_what_is_behind_them(tmp_path: Path, until: Until) -> None:
    """Links to Valkey that take SLOW_LINK_S each way: values stay live, and nobody goes back."""
    async with (
        two_of_everything_without_page(tmp_path) as (place, account_id),
        contextlib.AsyncExitStack() as stack,
    ):
        clients = [WatchedPage(), WatchedPage()]
        for client, url in zip(clients, place.urls, strict=True):
            socket = await stack.enter_async_context(connected(place, url, account_id))
            reading = asyncio.create_task(client.read(socket))
            stack.push_async_callback(cancel_until_ended, [reading])
        print(
            "\n| slow: 200 ms each way | silent s: its server | the other | age s: its server | the other |"
        )
        for kind in ("", *KINDS, "websocket_server-1"):
            proxies = [service.proxy for service in place.of(kind)] if kind else []
            for proxy in proxies:
                proxy.delay_s = SLOW_LINK_S
            await until(
                lambda: all(one.is_live for one in clients), f"live while {kind} is slow", HEALED_S_MAX
            )
            seen = await asyncio.gather(*(watched(client) for client in clients))
            figures = [f"{figure:.1f}" for column in zip(*seen, strict=True) for figure in column]
            print(f"| {kind or 'nothing'} | {' | '.join(figures)} |", flush=True)
            for proxy in proxies:
                proxy.heal()
        assert [client.steps_back for client in clients] == [0, 0]


async def watched(client: WatchedPage) -> tuple[float, float]:
    """For WATCHED_S: the longest time without a newer value, and how old values were in the middle."""
    began_s, ages, gaps = time.monotonic(), list[float](), list[float]()
    moved_s, moves = began_s, client.moves
    while time.monotonic() - began_s < WATCHED_S:
        await asyncio.sleep(LOOK_S / 5)
        if client.moves != moves:
            gaps.append(time.monotonic() - moved_s)
            ages.append(time.time() - parse_rfc3339(client.value["as_of"]) / NS_PER_S)
            moved_s, moves = time.monotonic(), client.moves
    return max((*gaps, time.monotonic() - moved_s)), statistics.median(ages)


@contextlib.asynccontextmanager
async def two_of_everything_without_page(folder: Path) -> AsyncGenerator[tuple[Place, str]]:
    """Started, and an account."""
    place = Place(folder, SEED, ACCOUNTS, kind=ONE_KIND)
    async with place.running({"MIN_UPDATE_INTERVAL": "0.2"}) as oracle:
        yield place, (await oracle.account_ids())[0]


def sent(pids: Sequence[int], number: signal.Signals) -> Do:
    """A signal to processes."""

    async def do() -> None:
        for pid in pids:
            os.kill(pid, number)

    return do


def held(proxies: Sequence[CutProxy], direction: str, *, is_held: bool = False) -> Do:
    """Let nothing pass in one direction, or all again."""

    async def do() -> None:
        for proxy in proxies:
            setattr(proxy, direction, is_held)

    return do


def deafened(proxies: Sequence[CutProxy]) -> Do:
    """Subscriptions hear nothing, and commands pass; it is done when each has been made again."""

    async def do() -> None:
        listening = [proxy for proxy in proxies if proxy.hears]
        assert listening
        for proxy in listening:
            proxy.lose_subscriptions()
        async with asyncio.timeout(HEALED_S_MAX):
            while not all(proxy.hears for proxy in listening):
                await asyncio.sleep(LOOK_S)

    return do


def replaced(pair: Pair, kind: str, number: signal.Signals) -> Do:
    """Stop or kill whoever holds the lease; it is done when somebody else does."""

    async def do() -> None:
        pid, before = await pair.active(kind), await pair.holder(kind)
        os.kill(pid, number)
        async with asyncio.timeout(HEALED_S_MAX):
            while await pair.holder(kind) in (before, None):
                await asyncio.sleep(LOOK_S)

    return do


def muted(pair: Pair, kind: str) -> Do:
    """For MUTE_S: open, and silent."""

    async def do() -> None:
        await pair.oracle.install({"faults": [{"kind": kind, "for_s": MUTE_S}]})

    return do


async def lose(pair: Pair) -> None:
    """What is open passes nothing any more; new connections do."""
    for service in pair.place.services.values():
        service.proxy.lose_open_flows()


async def empty(pair: Pair) -> None:
    """Valkey loses everything under all who are connected; until the account's shard has an owner again."""
    await command(pair, "FLUSHALL")
    await pair.active("portfolio_calculator")


async def command(pair: Pair, words: str) -> None:
    """A command of an operator."""
    await pair.state.connection.commands.execute_command(*words.split())
