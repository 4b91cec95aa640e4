"""What the day's history costs: writing bookings beside records, minutes in memory, one answer.

`python -m benchmarks.history --symbols 11000 --minutes 960 --json`

960 minutes are a day from 4:00 to 20:00. In each, the share `--moved` of the symbols has a new mark; every
hour all of them are written. A real Valkey; medians of REPEATS runs.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Annotated, Final

import typer

from benchmarks.service_world import LEASE_MS, SHARDS, show
from benchmarks.valuation import holdings
from portfolio_harness.progress import say
from portfolio_realtime import config
from portfolio_realtime.clock import NS_PER_S, SystemClock
from portfolio_realtime.model import US_EQUITY, ZERO, Account, Booking, Bookings, MinuteMark
from portfolio_realtime.state import State, open_state
from portfolio_realtime.state.embedded import EmbeddedServer
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.websocket_server.http_api.account_queries import AccountQueries

REPEATS: Final = 7
RECORDS: Final = 1_000  # of one write
BOOKINGS: Final = (0, 10, 100)  # of each account
MINUTE_NS: Final = 60 * NS_PER_S
ONE: Final = Decimal(1)


async def median_ms(work: Callable[[], Awaitable[object]]) -> float:
    """Median wall-clock time of REPEATS runs, after one to warm up."""
    times: list[float] = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        await work()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[1:])


async def used_mb(state: State) -> float:
    """What Valkey holds."""
    return (await state.connection.commands.info("memory"))["used_memory"] / 2**20


def bookings_of(account: Account, count: int, began_ns: int) -> Bookings:
    """So many trades of the account, one a minute."""
    symbol = account.positions[0].symbol
    booked = tuple(
        Booking(began_ns + (number + 1) * MINUTE_NS, Decimal("-12.34"), ZERO, symbol, US_EQUITY, ONE, ONE)
        for number in range(count)
    )
    return Bookings(account.account_id, account.version, began_ns, began_ns, booked)


async def measure_writes(state: State, lease: Lease, accounts: list[Account]) -> dict[str, object]:
    """Microseconds a record, without bookings and with so many, and what these take in Valkey."""

    async def write_records() -> None:
        await state.accounts.write(lease, accounts)

    alone_ms = await median_ms(write_records)
    result: dict[str, object] = {"record_us": round(alone_ms * 1000 / len(accounts), 1)}
    before_mb = await used_mb(state)
    for count in BOOKINGS:
        told = [bookings_of(account, count, 0) for account in accounts]

        async def write_both(told: list[Bookings] = told) -> None:
            await state.accounts.write(lease, accounts, told)

        both_ms = await median_ms(write_both)
        result[f"record_with_{count}_bookings_us"] = round(both_ms * 1000 / len(accounts), 1)
        added = (await used_mb(state) - before_mb) * 2**20 / len(accounts)
        result[f"{count}_bookings_bytes"] = round(added)
    return result


async def write_minutes(
    state: State, lease: Lease, symbols: list[str], minutes: int, moved: float, end_ns: int
) -> dict[str, object]:
    """A day of minutes: time to write one, and memory of all."""
    rng = random.Random(5)
    before_mb = await used_mb(state)
    times: list[float] = []
    for index in range(minutes):
        at_ns = end_ns - (minutes - 1 - index) * MINUTE_NS
        is_whole = index == 0 or at_ns // MINUTE_NS % 60 == 0
        chosen = symbols if is_whole else rng.sample(symbols, int(moved * len(symbols)))
        marks: dict[str, MinuteMark | None] = {
            symbol: MinuteMark(rng.randrange(100, 100_000) / 100, at_ns - NS_PER_S) for symbol in chosen
        }
        started = time.perf_counter()
        await state.minutes.write(lease, at_ns, US_EQUITY, marks, is_whole=is_whole)
        times.append((time.perf_counter() - started) * 1000)
        if index % 240 == 239:
            say(f"{index + 1} of {minutes} minutes written")
    return {
        "minute_write_ms": round(statistics.median(times), 1),
        "minute_write_ms_max": round(max(times), 1),
        "day_mb": round(await used_mb(state) - before_mb, 1),
    }


async def measure(symbols: int, positions: int, minutes: int, moved: float) -> dict[str, object]:
    """All of it, on a Valkey of its own."""
    held = holdings(RECORDS, positions, symbols, 7)
    settings, clock = config.load(_env_file=None), SystemClock()
    async with EmbeddedServer() as server:
        state = open_state(server.url, holder="benchmark", shards=SHARDS, lease_ms=LEASE_MS)
        try:
            lease = await state.leases.acquire("benchmark")
            assert lease is not None
            accounts = [held.account(index) for index in range(RECORDS)]
            result = await measure_writes(state, lease, accounts)
            end_ns = clock.now_ns() // MINUTE_NS * MINUTE_NS
            names = [f"S{column:05d}" for column in range(symbols)]
            result |= await write_minutes(state, lease, names, minutes, moved, end_ns)
            began_ns = end_ns - minutes * MINUTE_NS
            await state.accounts.write(lease, (), [bookings_of(accounts[0], 20, began_ns)])
            queries = AccountQueries(state, settings, clock)
            account_id = accounts[0].account_id
            answer = await queries.history(account_id, "1d")
            assert answer is not None
            result["answer_points"] = answer.count(b'"timestamp"')
            result["answer_known_points"] = result["answer_points"] - answer.count(b'"equity":null')
            result["answer_ms"] = round(await median_ms(lambda: queries.history(account_id, "1d")), 1)
        finally:
            await state.close()
    return {"symbols": symbols, "positions": positions, "minutes": minutes, "moved": moved, **result}


def main(
    symbols: Annotated[int, typer.Option(min=10)] = 11_000,
    positions: Annotated[int, typer.Option(help="Of the account that asks", min=1)] = 10,
    minutes: Annotated[int, typer.Option(min=2, max=1440)] = 960,
    moved: Annotated[float, typer.Option(help="Share of symbols with a new mark", min=0, max=1)] = 0.3,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line")] = False,
) -> None:
    """What the day's history costs."""
    show(asyncio.run(measure(symbols, positions, minutes, moved)), as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
