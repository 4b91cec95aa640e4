"""The command line: run, demo, simulate, loadtest, faults, week, token, revoke, entitle, check-config,
doctor.

`portfolio-realtime --help`, or `python -m portfolio_realtime --help`.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

import msgspec
import typer
import uvloop
from rich.console import Console

from portfolio_harness import chart as charts
from portfolio_harness import demo as demonstration
from portfolio_harness import fault_trials as trial
from portfolio_harness import goals
from portfolio_harness import loadtest as load
from portfolio_harness import rolling_restart as restarts
from portfolio_harness import slow_readers as isolations
from portfolio_harness import trading_week as weeks
from portfolio_harness.system import token as signed_token
from portfolio_realtime import __version__, config, logs, run_services
from portfolio_realtime.cli import users
from portfolio_realtime.cli.doctor import findings
from portfolio_realtime.cli.doctor.examine import examine
from portfolio_realtime.errors import PortfolioRealtimeError, SettingsError
from portfolio_realtime.service import EXIT_FAILED, EXIT_SETTINGS
from portfolio_realtime.websocket_server.access.tokens import Tokens

R = TypeVar("R")
TABLE_WIDTH = 100

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The live value of every brokerage account, right to the cent, in every browser.",
)

Accounts = Annotated[int, typer.Option(min=1, help="Simulated accounts")]
Symbols = Annotated[int, typer.Option(min=1, help="Simulated symbols")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same accounts and prices")]


def _version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it")] = False,
) -> None:
    pass


@app.command()
def run(
    services: Annotated[
        list[str] | None, typer.Argument(metavar="[SERVICE]...", help=" ".join(run_services.SERVICES))
    ] = None,
) -> None:
    """Run the services (all, or those named), supervised, in this terminal. Settings: environment, .env."""
    chosen = services or list(run_services.SERVICES)
    for name in chosen:
        if name not in run_services.SERVICES:
            raise typer.BadParameter(f"{name!r} is none of: {', '.join(run_services.SERVICES)}")
    run_services.main(chosen)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def demo(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 picks one")] = 8000,
    accounts: Accounts = 20,
    symbols: Symbols = 200,
    seed: Seed = 7,
    trades_per_second: Annotated[float, typer.Option(min=0, help="Market trades, over all symbols")] = 200,
    activities_per_second: Annotated[
        float, typer.Option(min=0, help="Orders, deposits, withdrawals over all accounts")
    ] = 0.5,
    tape: Annotated[
        Path | None, typer.Option(help="Folder of recorded trades instead of random ones")
    ] = None,
    tape_day: Annotated[str | None, typer.Option(help="YYYY-MM-DD")] = None,
    tape_start: Annotated[str, typer.Option(help="HH:MM New York time")] = "09:25",
    tape_speed: Annotated[float, typer.Option(help="Times faster than it happened")] = 60,
    duration: Annotated[
        float | None, typer.Option(min=1, help="Seconds; then compare every account with the oracle")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the comparison here")] = None,
) -> None:
    """A live portfolio in the browser: no account, key or server needed. Exit code 1 when a proof fails.

    Other options are the simulator's: see `portfolio-realtime simulate --help`.
    """
    options = [
        *("--accounts", str(accounts), "--symbols", str(symbols), "--seed", str(seed)),
        *("--trades-per-second", str(trades_per_second)),
        *("--activities-per-second", str(activities_per_second)),
        *context.args,
    ]
    if tape is not None:
        options += ["--tape", str(tape), "--tape-start", tape_start, "--tape-speed", str(tape_speed)]
        options += ["--tape-day", tape_day] if tape_day else []
    if duration is None:
        if json is not None:
            raise typer.BadParameter("--json needs --duration: what is written is the comparison at the end")
        _until_ctrl_c(demonstration.demonstrate(options, port=port))
        return
    proof = _until_ctrl_c(demonstration.prove(options, port=port, duration_s=duration, seed=seed))
    if proof is None:
        raise typer.Exit(EXIT_FAILED)
    text = msgspec.json.format(msgspec.json.encode(proof), indent=2).decode()
    typer.echo(text)
    if json is not None:
        json.write_text(text + "\n")
    raise typer.Exit(0 if proof.is_clean else EXIT_FAILED)


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)
def simulate(context: typer.Context) -> None:
    """A simulated Alpaca on loopback, the same as `python -m alpaca_sim`; takes its options and --help."""
    os.execv(sys.executable, [sys.executable, "-m", "alpaca_sim", *context.args])  # noqa: S606  # our own module


@app.command()
def loadtest(
    connections: Annotated[int, typer.Option(min=1, help="With --chart: at most")] = 500,
    accounts: Accounts = 500,
    symbols: Symbols = 200,
    rate: Annotated[
        float | None,
        typer.Option(min=0.1, max=20, help="Messages per second and account: 1, with --isolation 10"),
    ] = None,
    duration: Annotated[
        float,
        typer.Option(
            min=1, help="Seconds measured: over all steps of --chart, for each share of --isolation"
        ),
    ] = 20,
    ramp: Annotated[float, typer.Option(min=0, help="Seconds over which the connections are opened")] = 0,
    stalled: Annotated[
        float,
        typer.Option(
            min=0, max=0.9, help="Share of the clients that stop reading; full after some 350 messages each"
        ),
    ] = 0,
    isolation: Annotated[
        bool,
        typer.Option(
            "--isolation",
            help="0, 1, 10 and 50 % stalled readers in turn, at most 50 symbols: what the others see",
        ),
    ] = False,
    rolling: Annotated[
        bool, typer.Option("--rolling", help="Restart two servers behind HAProxy in turn instead")
    ] = False,
    storm: Annotated[bool, typer.Option("--storm", help="Cut all clients at once at the end")] = False,
    storm_back_s: Annotated[
        float, typer.Option(min=0, help="Goal: all clients of a storm are back within so long")
    ] = goals.STORM_BACK_S_MAX,
    p99_ms: Annotated[
        float, typer.Option(min=0, help="Goal: p99 from trade to client, beyond the conflation wait")
    ] = goals.P99_MS_MAX,
    chart: Annotated[
        Path | None,
        typer.Option(help="Open more and more connections until p99 passes its goal, and draw it as SVG"),
    ] = None,
    chart_data: Annotated[
        Path | None, typer.Option(help="Write the figures of the chart here; else beside it, as .json")
    ] = None,
    drawn: Annotated[
        Path | None, typer.Option(help="With --chart: draw these figures instead of measuring")
    ] = None,
    trades_per_second: Annotated[
        float | None,
        typer.Option(min=0, help="Market trades over all symbols; else one for each, more in special runs"),
    ] = None,
    seed: Seed = 7,
    url: Annotated[str | None, typer.Option(help="A running server, http://HOST:PORT")] = None,
    simulator: Annotated[str | None, typer.Option(help="With --url: its simulator, http://HOST:PORT")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Load a system of our own (or --url) and check every frame. Exit code 1 when a goal was not reached.

    With --url the clients' tokens are signed with JWT_SECRET.
    """
    if drawn is not None:
        _redraw(drawn, chart)
        return
    if (url is None) != (simulator is None):
        raise typer.BadParameter(
            "--url and --simulator go together: accounts and truth come from the simulator"
        )
    market: dict[str, Any] = {"symbols": symbols, "trades_per_second": trades_per_second, "seed": seed}
    if isolation or rolling:
        is_else_asked = (isolation and rolling) or storm or stalled or chart is not None or url is not None
        if is_else_asked:
            raise typer.BadParameter("--isolation and --rolling each go alone, on a system of their own")
        work: Coroutine[Any, Any, _Judged] = (
            isolations.isolate(connections, accounts, rate=rate or 10, duration_s=duration, **market)
            if isolation
            else restarts.rolling(connections, accounts, rate=rate or 1, **market)
        )
        _judge(_until_ctrl_c(work), as_json=json)
    plan = load.Plan(
        *(connections, rate or 1, duration, ramp, stalled, storm),
        chart=chart,
        chart_data=chart_data,
        p99_ms_max=p99_ms,
        storm_back_s_max=storm_back_s,
    )
    if url is None or simulator is None:
        work = load.on_own_system(plan, accounts=accounts, **market)
    else:
        secret = _settings().jwt_secret.get_secret_value()
        work = load.on_running_system(
            url, simulator, lambda account_id: _client_token(secret, account_id), plan
        )
    _judge(_until_ctrl_c(work), as_json=json)


class _Judged(Protocol):
    """The outcome of a run with goals: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def failed(self) -> list[goals.Goal]:
        """Those that were not reached."""
        ...


def _judge(result: _Judged | None, *, as_json: bool) -> None:
    """Show a result and the goals that it failed; they are the exit code."""
    if result is None:
        raise typer.Exit(EXIT_FAILED)
    _show(asdict(result), as_json=as_json)
    for goal in result.failed:
        typer.echo(f"FAILED {goal}", err=True)
    raise typer.Exit(EXIT_FAILED if result.failed else 0)


def _redraw(figures: Path, picture: Path | None) -> None:
    if picture is None:
        raise typer.BadParameter("--drawn needs --chart: where the picture goes")
    try:
        charts.draw(charts.saved(figures), picture)
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None


def _client_token(secret: str, account_id: str) -> str:
    return signed_token(secret, f"client of {account_id}", [account_id], 3600) if secret else ""


@app.command()
def faults(
    trials: Annotated[int, typer.Option(min=1, help="Plans of faults, one after the other")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the first plan; each next one is one more")] = 1,
    duration: Annotated[float, typer.Option(min=2, max=600, help="Seconds that each plan lasts")] = 8,
    systems: Annotated[int, typer.Option(min=1, max=8, help="Systems side by side")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write every trial here")] = None,
) -> None:
    """Let everything go wrong, again and again, and compare every account with the ledger after each time.

    One trial again: `--trials 1 --seed N`. Exit code 1 when a trial fails.
    """
    held = _until_ctrl_c(trial.hold(trials, seed=seed, duration_s=duration, systems=systems))
    if held is None:
        raise typer.Exit(EXIT_FAILED)
    Console(width=TABLE_WIDTH).print(trial.table(held))
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(held), indent=2) + b"\n")
    raise typer.Exit(0 if all(one.is_clean for one in held) else EXIT_FAILED)


@app.command()
def week(
    start: Annotated[
        list[str] | None,
        typer.Option(
            help="First day, YYYY-MM-DD; may be repeated. Without it a week whose Sunday changes the "
            "clocks, and one with a holiday and a half day"
        ),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=35, help="Of each start")] = weeks.DAYS,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same ledger")] = 7,
    json: Annotated[Path | None, typer.Option(help="Write every comparison here")] = None,
) -> None:
    """Live through trading weeks in minutes and compare every account with the ledger around every roll.

    Exit code 1 when an account differed, a value stepped back, or the books were not rolled over.
    """
    starts = [_day(text) for text in start] if start else [weeks.CLOCKS_WEEK, weeks.HALF_DAYS_WEEK]
    lived: list[weeks.Week] = []
    for first in starts:
        one = _until_ctrl_c(weeks.live_through(first, days=days, seed=seed), log_level="error")
        if one is None:
            raise typer.Exit(EXIT_FAILED)
        Console(width=TABLE_WIDTH).print(weeks.table(one))
        lived.append(one)
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(lived), indent=2) + b"\n")
    raise typer.Exit(0 if all(one.is_clean for one in lived) else EXIT_FAILED)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"--start {text!r} is no date: write it as 2026-11-23") from None


@app.command()
def token(
    accounts: Annotated[list[str], typer.Argument(metavar="ACCOUNT...", help="Account ids, or * for all")],
    subject: Annotated[str, typer.Option(help="Who it is for")] = "developer",
    seconds: Annotated[int, typer.Option(min=1, help="Until it expires")] = 3600,
) -> None:
    """Print a token that lets a client see these accounts, signed with JWT_SECRET."""
    settings = _settings()
    if not settings.jwt_secret.get_secret_value():
        typer.echo("JWT_SECRET is not set: put at least 32 bytes into the environment or .env", err=True)
        raise typer.Exit(EXIT_SETTINGS)
    if seconds > settings.jwt_lifetime_max:
        raise typer.BadParameter(f"--seconds: JWT_LIFETIME_MAX is {settings.jwt_lifetime_max}")
    typer.echo(Tokens(settings).issue(subject, accounts, seconds))


@app.command()
def revoke(
    subject: Annotated[str, typer.Option(help="All tokens that it has been given until now")] = "",
    token_id: Annotated[str, typer.Option(help="One token, by its `jti`")] = "",
    issuer: Annotated[str, typer.Option(help="The token's `iss`; without it JWT_ISSUER")] = "",
) -> None:
    """Refuse tokens from now on, and close their connections: after a logout, a theft, a dismissal."""
    work = users.revoke(_settings(), subject=subject, token_id=token_id, issuer=issuer)
    revocation = _until_ctrl_c(work)
    if revocation is None:
        raise typer.Exit(EXIT_FAILED)
    typer.echo(msgspec.json.encode(revocation).decode())


@app.command()
def entitle(
    subject: Annotated[str, typer.Argument(help="Who: the token's subject")],
    accounts: Annotated[
        list[str] | None, typer.Argument(metavar="[ACCOUNT]...", help="All that it may see; none: nothing")
    ] = None,
) -> None:
    """Say which accounts a user may see, with ACCOUNT_ACCESS=entitlements; connections follow in seconds."""
    _until_ctrl_c(users.entitle(_settings(), subject, accounts or []))


@app.command("check-config")
def check_config() -> None:
    """Show every setting (secrets hidden), or what is wrong with them. Exit code 2 when something is."""
    settings = _settings()
    for name, value in config.described(settings):
        typer.echo(f"{name:28} {value}")
    typer.echo(f"{'follows':28} {config.described_source(settings)}")


@app.command()
def doctor(
    account: Annotated[
        str, typer.Option(help="Whose equity is compared with the broker's; without it the first one's")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Check keys, hosts, clock, feeds, rate limit, Valkey, ports and one account's equity, with remedies.

    Exit code 1 when a check failed. No secret is shown.
    """
    logs.configure("doctor", "error", "console")
    report = uvloop.run(examine(account))
    if json:
        typer.echo(msgspec.json.encode(findings.as_json(report)).decode())
    else:
        findings.show(report, Console())
    raise typer.Exit(0 if findings.is_healthy(report) else EXIT_FAILED)


def _settings() -> config.Settings:
    try:
        return config.load()
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_SETTINGS) from None


def _until_ctrl_c(work: Coroutine[Any, Any, R], log_level: str = "info") -> R | None:
    """Run to the end; None when Ctrl-C or SIGTERM came first. What was started is ended either way."""

    async def cancellable() -> R | None:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            return None

    logs.configure("supervisor", log_level, "console")
    try:
        return uvloop.run(cancellable())
    except PortfolioRealtimeError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_SETTINGS if isinstance(error, SettingsError) else EXIT_FAILED) from None


def _show(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(result).decode())
        return
    for name, value in result.items():
        typer.echo(f"{name:28} {value}")
