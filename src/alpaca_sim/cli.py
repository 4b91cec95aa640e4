"""The command line of `python -m alpaca_sim`."""

import contextlib
import errno
import sys
from collections.abc import Callable
from datetime import date, time
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from alpaca_sim.app import bind, serve_until_signal
from alpaca_sim.core import faults
from alpaca_sim.core.books import HISTORY_DAYS_MAX, ROLL_AT
from alpaca_sim.core.clock import MovableClock, parse_time_ns
from alpaca_sim.core.market import TEST_SYMBOL, Market
from alpaca_sim.core.sessions import ALWAYS, NYSE, CalendarError
from alpaca_sim.core.switches import SwitchError, read_switches
from alpaca_sim.core.tape import Tape, TapeError, TapeReplay
from alpaca_sim.simulator import Settings, Simulator

EXIT_USAGE = 2
PORT_MAX = 65_535
SPEED_MAX = 100_000
NO_ROLL = "never"
ROLL_BEFORE = time(9, 30)

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=PORT_MAX, help="Port to listen on; 0 chooses a free one.")
    ] = 8900,
    accounts: Annotated[int, typer.Option(min=0, help="How many accounts to open.")] = 20,
    symbols: Annotated[
        int, typer.Option(min=1, help="How many symbols to list; with --tape: at most.")
    ] = 200,
    seed: Annotated[int, typer.Option(help="The same seed gives the same accounts and prices.")] = 7,
    trades_per_second: Annotated[
        float, typer.Option(min=0, help="Market trades per second, over all symbols.")
    ] = 200,
    activities_per_second: Annotated[
        float,
        typer.Option(min=0, help="Trades, deposits, fees per second, over all accounts; 0: none."),
    ] = 0.5,
    rate_limit: Annotated[int, typer.Option(min=1, help="REST requests per minute and key.")] = 10_000,
    key: Annotated[str, typer.Option(help="The accepted API key, and OAuth client id.")] = "sim-key",
    secret: Annotated[str, typer.Option(help="The accepted API secret.")] = "sim-secret",  # noqa: S107 - a simulator's
    heartbeat: Annotated[
        float, typer.Option(min=0.05, help="Seconds between heartbeats of event streams.")
    ] = 5,
    rest_lag: Annotated[float, typer.Option(min=0, help="Seconds by which REST is behind the events.")] = 0,
    market_connection_limit: Annotated[
        int, typer.Option(min=1, help="Market-data connections per endpoint.")
    ] = 5,
    market_symbol_limit: Annotated[
        int, typer.Option(min=0, help="Symbols per market-data connection; 0: no limit.")
    ] = 0,
    denied_feeds: Annotated[
        str, typer.Option(help="Feeds that the subscription does not include, such as sip,opra.")
    ] = "",
    delay: Annotated[
        float,
        typer.Option(min=0, help="Delay of delayed_sip, overnight and indicative, in seconds; Alpaca: 900."),
    ] = 0,
    tape: Annotated[
        Path | None, typer.Option(help="Folder of recorded trades (LEAN zips) to replay.")
    ] = None,
    tape_day: Annotated[str, typer.Option(help="Day of the tape, YYYY-MM-DD.")] = "2013-10-07",
    tape_start: Annotated[str, typer.Option(help="New York time at which the tape starts, HH:MM.")] = "09:25",
    tape_speed: Annotated[float, typer.Option(min=0.001, help="Tape seconds per second.")] = 60,
    past_days: Annotated[
        int,
        typer.Option(
            min=0, max=HISTORY_DAYS_MAX, help="Days of portfolio history that each account starts with."
        ),
    ] = 0,
    calendar: Annotated[
        str, typer.Option(help="always: open at any hour; nyse: sessions, weekends, holidays, half days.")
    ] = ALWAYS,
    start: Annotated[
        str, typer.Option(help="Start time of the clock, as 2026-11-23T04:00:00-05:00; empty: now.")
    ] = "",
    speed: Annotated[
        float,
        typer.Option(min=0, max=SPEED_MAX, help="Simulated seconds per second; 0: moved by hand only."),
    ] = 1.0,
    roll_at: Annotated[
        str,
        typer.Option(
            help="New York time of the overnight roll, HH:MM, or never; empty: 02:15 with nyse, else never."
        ),
    ] = "",
    open_points: Annotated[
        list[str] | None,
        typer.Option("--set", help="Answer an open point of Alpaca's documents, as since_id=inclusive."),
    ] = None,
    fault_plan: Annotated[
        Path | None, typer.Option("--faults", help="A fault plan (YAML or JSON) that starts at once.")
    ] = None,
    fault_seed: Annotated[
        int | None, typer.Option(help="Make a fault plan from this seed; it is written to standard error.")
    ] = None,
    fault_duration: Annotated[
        float, typer.Option(min=1, help="Seconds within which all faults of the seed end.")
    ] = 60,
) -> None:
    """Serve a simulated Alpaca on one port: Broker API, events, Trading API and market data.

    Base URLs are http://HOST:PORT and ws://HOST:PORT. The exact values are under /_sim/truth.
    """
    try:
        plan = _read_plan(fault_plan, fault_seed, fault_duration)
        clock = _make_clock(start, speed)
        roll = _read_roll(roll_at, calendar)
        switches = read_switches(open_points or [])
    except (faults.PlanError, SwitchError, ValueError, OSError) as error:
        raise _refuse(str(error)) from error
    settings = Settings(
        account_count=accounts,
        symbol_count=symbols,
        seed=seed,
        trades_per_second=trades_per_second,
        activities_per_second=activities_per_second,
        rate_limit=rate_limit,
        key=key,
        secret=secret,
        heartbeat_s=heartbeat,
        rest_lag_s=rest_lag,
        market_connection_limit=market_connection_limit,
        market_symbol_limit=market_symbol_limit,
        denied_feeds=frozenset(filter(None, denied_feeds.split(","))),
        delay_s=delay,
        past_days=past_days,
        calendar=calendar,
        roll_at=roll,
        switches=switches,
    )
    try:
        listener = bind(host, port)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise _refuse(
            f"{host}:{port} {reason}: choose another one with --port, or --port 0 for a free one"
        ) from error
    try:
        source = _open_tape(tape, tape_day, tape_start, tape_speed, symbols) if tape else None
        sim = Simulator(settings, clock, source)
    except (TapeError, CalendarError) as error:
        listener.close()
        raise _refuse(str(error)) from error
    if plan is not None:
        sys.stderr.write(faults.dump(plan))
        sim.faults.install(plan)
    symbol_count = len(sim.market.symbols) - (TEST_SYMBOL in sim.market.symbols)
    url = f"http://{host}:{listener.getsockname()[1]}"
    ready = f"alpaca-sim ready on {url} ({accounts} accounts, {symbol_count} symbols, seed {seed})"
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve_until_signal(sim, listener, lambda: print(ready, flush=True)))


def _read_plan(path: Path | None, seed: int | None, duration_s: float) -> faults.Plan | None:
    if path is not None and seed is not None:
        raise faults.PlanError("--faults and --fault-seed cannot be used together: choose one")
    if seed is not None:
        return faults.plan(seed, duration_s)
    return None if path is None else faults.load(path.read_text())


def _make_clock(start_text: str, speed: float) -> MovableClock:
    try:
        return MovableClock(parse_time_ns(start_text) if start_text else None, speed)
    except ValueError as error:
        raise ValueError(f"{error}: write --start as 2026-11-23T04:00:00-05:00") from error


def _read_roll(roll_text: str, calendar: str) -> time | None:
    if calendar not in (ALWAYS, NYSE):
        raise ValueError(f"--calendar cannot be {calendar!r}: write {ALWAYS} or {NYSE}")
    if not roll_text:
        return ROLL_AT if calendar == NYSE else None
    if roll_text == NO_ROLL:
        return None
    try:
        roll = time.fromisoformat(roll_text)
    except ValueError as error:
        raise ValueError(f"{error}: write --roll-at as 02:15, or {NO_ROLL}") from error
    if roll >= ROLL_BEFORE:
        raise ValueError(f"--roll-at must be before {ROLL_BEFORE:%H:%M}: the roll is overnight")
    return roll


def _open_tape(
    folder: Path, day_text: str, start_text: str, speed: float, symbol_count_max: int
) -> Callable[[Market], TapeReplay]:
    try:
        day, start = date.fromisoformat(day_text), time.fromisoformat(start_text)
    except ValueError as error:
        raise TapeError(f"{error}: write --tape-day as 2013-10-07 and --tape-start as 09:25") from error
    opened = Tape(folder, day, start, symbol_count_max)
    return lambda market: TapeReplay(market, opened, speed)


def _refuse(message: str) -> typer.Exit:
    """Print the reason to standard error and return the exit with `EXIT_USAGE`."""
    typer.echo(f"alpaca-sim: {message}", err=True)
    return typer.Exit(EXIT_USAGE)
