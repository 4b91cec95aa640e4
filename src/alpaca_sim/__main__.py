"""The command line: `python -m alpaca_sim` serves a simulated Alpaca on one port of loopback."""

import contextlib
import errno
from collections.abc import Callable
from datetime import date, time
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from alpaca_sim.app import bind, serve_until_signal
from alpaca_sim.clock import Clock
from alpaca_sim.market import TEST_SYMBOL, Market
from alpaca_sim.simulator import Settings, Simulator
from alpaca_sim.tape import Tape, TapeError, TapeReplay

EXIT_USAGE = 2
PORT_MAX = 65_535

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=PORT_MAX, help="Port to listen on; 0 takes a free one.")
    ] = 8900,
    accounts: Annotated[int, typer.Option(min=0, help="How many accounts to open.")] = 20,
    symbols: Annotated[int, typer.Option(min=1, help="How many symbols to list (of a tape: at most).")] = 200,
    seed: Annotated[int, typer.Option(help="The same seed gives the same accounts and prices.")] = 7,
    trades_per_second: Annotated[float, typer.Option(min=0, help="Market trades, over all symbols.")] = 200,
    activities_per_second: Annotated[
        float,
        typer.Option(min=0, help="Trades, deposits … over all accounts; 0 = none from now on."),
    ] = 0.5,
    rate_limit: Annotated[int, typer.Option(min=1, help="REST requests per minute and key.")] = 10_000,
    key: Annotated[str, typer.Option(help="The accepted API key (and client id).")] = "sim-key",
    secret: Annotated[str, typer.Option(help="The accepted API secret.")] = "sim-secret",  # noqa: S107 - a simulator's
    heartbeat: Annotated[
        float, typer.Option(min=0.05, help="Seconds between heartbeats of event streams.")
    ] = 5,
    rest_lag: Annotated[float, typer.Option(min=0, help="Seconds by which REST trails the events.")] = 0,
    market_connection_limit: Annotated[int, typer.Option(min=1, help="Market streams per endpoint.")] = 5,
    market_symbol_limit: Annotated[
        int, typer.Option(min=0, help="Symbols per market stream; 0 = no limit.")
    ] = 0,
    denied_feeds: Annotated[str, typer.Option(help="Feeds that the plan lacks, such as sip,opra.")] = "",
    tape: Annotated[Path | None, typer.Option(help="Folder of LEAN trade zips that is the market.")] = None,
    tape_day: Annotated[str, typer.Option(help="Day of the tape, YYYY-MM-DD.")] = "2013-10-07",
    tape_start: Annotated[str, typer.Option(help="New York time to begin at, HH:MM.")] = "09:25",
    tape_speed: Annotated[float, typer.Option(min=0.001, help="Tape seconds in one second.")] = 60,
) -> None:
    """Serve a faithful Alpaca: Broker REST and events, market-data REST and WebSocket, on one port.

    Base URLs are http://HOST:PORT and ws://HOST:PORT. The exact truth is under /_sim/truth.
    """
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
    except TapeError as error:
        raise _refuse(str(error)) from error
    sim = Simulator(settings, Clock(), source)
    symbol_count = len(sim.market.symbols) - (TEST_SYMBOL in sim.market.symbols)
    url = f"http://{host}:{listener.getsockname()[1]}"
    ready = f"alpaca-sim ready on {url} ({accounts} accounts, {symbol_count} symbols, seed {seed})"
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve_until_signal(sim, listener, lambda: print(ready, flush=True)))


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
    """Say why it cannot start, in one line."""
    typer.echo(f"alpaca-sim: {message}", err=True)
    return typer.Exit(EXIT_USAGE)


if __name__ == "__main__":
    app()
