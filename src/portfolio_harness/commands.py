"""Commands that drive and check a whole system: demo, loadtest, faults, week, chaos.

Each command imports its module only when it runs, so that `--help` is fast.
"""

from collections.abc import Coroutine
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Protocol

import typer

from portfolio_harness import goals
from portfolio_realtime.cli.common import TABLE_WIDTH, finished, settings, show, until_ctrl_c, writable
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.exit_codes import OK, UNPROVEN

if TYPE_CHECKING:
    from portfolio_harness.valkey_kinds import ValkeyKind

DEMO_PAST_DAYS: Final = 400  # enough for the charts of a month and of a year
WEEK_DAYS: Final = 8  # Monday to Monday: the roll of the last day includes what changed on Sunday

app = typer.Typer(pretty_exceptions_enable=False)

Accounts = Annotated[int, typer.Option(min=1, help="Simulated accounts")]
Symbols = Annotated[int, typer.Option(min=1, help="Simulated symbols")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same accounts and prices")]
Cluster = Annotated[
    bool, typer.Option("--cluster", help="On a Valkey cluster of three primaries and replicas")
]
Report = Annotated[Path | None, typer.Option(help="Write the result to this file")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]
Rate = Annotated[
    float | None,
    typer.Option(min=0.1, max=20, help="Messages per second and account; default: 1, with --isolation 10"),
]
Duration = Annotated[
    float,
    typer.Option(
        min=1, help="Seconds measured; with --chart for all steps together, with --isolation for each share"
    ),
]
Stalled = Annotated[
    float, typer.Option(min=0, max=0.9, help="Share of the clients that stop reading after their first value")
]
Isolation = Annotated[
    bool, typer.Option("--isolation", help="Compare 0, 1, 10 and 50 % stalled clients, one after the other")
]
Rolling = Annotated[bool, typer.Option("--rolling", help="Restart two servers behind HAProxy, one by one")]
Storm = Annotated[bool, typer.Option("--storm", help="Cut all clients at once at the end")]
StormBack = Annotated[
    float, typer.Option(min=0, help="Goal: seconds until all clients of a storm have a value again")
]
P99 = Annotated[float, typer.Option(min=0, help="Goal: p99 of the lag from trade to client, in ms")]
Picture = Annotated[
    Path | None,
    typer.Option(help="Add connections step by step until p99 misses its goal, and draw this SVG"),
]
PictureData = Annotated[
    Path | None, typer.Option(help="File for the figures of the chart; default: beside the SVG, as .json")
]
Drawn = Annotated[
    Path | None, typer.Option(help="With --chart: draw the figures of this file without measuring")
]
MarketRate = Annotated[
    float | None,
    typer.Option(min=0, help="Market trades per second over all symbols; default: one per symbol"),
]
Url = Annotated[str | None, typer.Option(help="Load this running server: http://HOST:PORT")]
SimulatorUrl = Annotated[
    str | None, typer.Option(help="With --url: URL of its simulator, to compare values with")
]
WatchedIds = Annotated[
    list[str] | None,
    typer.Option("--account", help="With --url and no --simulator: an account to watch; may be repeated"),
]


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def demo(
    context: typer.Context,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the page; 0 chooses a free one")
    ] = 8000,
    accounts: Accounts = 20,
    symbols: Symbols = 200,
    seed: Seed = 7,
    trades_per_second: Annotated[
        float, typer.Option(min=0, help="Market trades per second over all symbols")
    ] = 200,
    activities_per_second: Annotated[
        float, typer.Option(min=0, help="Trades, deposits and withdrawals per second over all accounts")
    ] = 0.5,
    tape: Annotated[Path | None, typer.Option(help="Folder of recorded trades to replay")] = None,
    tape_day: Annotated[str | None, typer.Option(help="Day of the tape, YYYY-MM-DD")] = None,
    tape_start: Annotated[str, typer.Option(help="New York time at which the tape starts, HH:MM")] = "09:25",
    tape_speed: Annotated[float, typer.Option(help="Tape seconds per second")] = 60,
    duration: Annotated[
        float | None,
        typer.Option(min=1, help="Run for this many seconds, then compare every account with the ledger"),
    ] = None,
    cluster: Cluster = False,
    json: Report = None,
) -> None:
    """Show a live portfolio in the browser. It needs no account, no key and no server.

    Options of `portfolio-realtime simulate` are passed on. Exit code 3: an account differs, or another check
    failed.
    """
    options = [
        *("--accounts", str(accounts), "--symbols", str(symbols), "--seed", str(seed)),
        *("--trades-per-second", str(trades_per_second)),
        *("--activities-per-second", str(activities_per_second)),
        *("--past-days", str(DEMO_PAST_DAYS)),
        *context.args,
    ]
    if tape is not None:
        options += ["--tape", str(tape), "--tape-start", tape_start, "--tape-speed", str(tape_speed)]
        options += ["--tape-day", tape_day] if tape_day else []
    if duration is None and json is not None:
        raise typer.BadParameter("--json needs --duration: it contains the comparison made at the end")
    writable(json)
    from portfolio_harness import demo as demonstration

    valkey = _kind(cluster)
    if duration is None:
        until_ctrl_c(demonstration.demonstrate(options, port=port, valkey=valkey), log_level="warning")
        return
    work = demonstration.prove(options, port=port, duration_s=duration, seed=seed, valkey=valkey)
    proof = finished(until_ctrl_c(work, log_level="warning"))
    text = _pretty(proof)
    typer.echo(text)
    if json is not None:
        json.write_text(text + "\n")
    raise typer.Exit(OK if proof.is_clean else UNPROVEN)


@app.command()
def loadtest(
    connections: Annotated[int, typer.Option(min=1, help="Connections; with --chart at most")] = 500,
    accounts: Accounts = 500,
    symbols: Symbols = 200,
    rate: Rate = None,
    duration: Duration = 20,
    ramp: Annotated[float, typer.Option(min=0, help="Seconds over which connections are opened")] = 0,
    stalled: Stalled = 0,
    isolation: Isolation = False,
    rolling: Rolling = False,
    storm: Storm = False,
    storm_back_s: StormBack = goals.STORM_BACK_S_MAX,
    p99_ms: P99 = goals.P99_MS_MAX,
    chart: Picture = None,
    chart_data: PictureData = None,
    drawn: Drawn = None,
    trades_per_second: MarketRate = None,
    seed: Seed = 7,
    url: Url = None,
    simulator: SimulatorUrl = None,
    account: WatchedIds = None,
    cluster: Cluster = False,
    json: AsJson = False,
) -> None:
    """Load a system and check every frame that its clients receive.

    It starts a system of its own, or loads the one at --url with tokens signed by JWT_SECRET. Exit code 3:
    a goal was missed.
    """
    writable(chart)
    writable(chart_data)
    if chart is not None:
        _need_plotting()
    if drawn is not None:
        _redraw(drawn, chart)
        return
    if url is None and (simulator or account):
        raise typer.BadParameter("--simulator and --account need --url")
    if url is not None and bool(simulator) == bool(account):
        raise typer.BadParameter(
            "--url needs the accounts to watch: --simulator URL for all of a simulator, or --account ID"
        )
    market: dict[str, Any] = {"symbols": symbols, "trades_per_second": trades_per_second, "seed": seed}
    if cluster and (isolation or rolling or url is not None):
        raise typer.BadParameter("--cluster cannot be combined with --url, --isolation or --rolling")
    if isolation or rolling:
        if (isolation and rolling) or storm or stalled or chart is not None or url is not None:
            raise typer.BadParameter(
                "--isolation and --rolling cannot be combined with each other, nor with --storm, --stalled, "
                "--chart or --url"
            )
        _judge(until_ctrl_c(_special(connections, accounts, rate, duration, market, rolling)), as_json=json)
    from portfolio_harness import loadtest as load

    plan = load.Plan(
        *(connections, rate or 1, duration, ramp, stalled, storm),
        chart=chart,
        chart_data=chart_data,
        p99_ms_max=p99_ms,
        storm_back_s_max=storm_back_s,
    )
    if url is None:
        work = load.on_own_system(plan, accounts=accounts, valkey=_kind(cluster), **market)
    else:
        secret = settings().jwt_secret.get_secret_value()
        work = load.on_running_system(
            url, simulator, account or [], lambda account_id: _client_token(secret, account_id), plan
        )
    _judge(until_ctrl_c(work), as_json=json)


def _kind(is_cluster: bool) -> "ValkeyKind":
    from portfolio_harness.valkey_kinds import ValkeyKind

    return ValkeyKind.packaged(is_cluster=is_cluster)


def _special(
    connections: int,
    accounts: int,
    rate: float | None,
    duration_s: float,
    market: dict[str, Any],
    is_rolling: bool,
) -> "Coroutine[Any, Any, _Judged]":
    from portfolio_harness import rolling_restart as restarts
    from portfolio_harness import slow_readers as isolations

    if is_rolling:
        return restarts.rolling(connections, accounts, rate=rate or 1, **market)
    return isolations.isolate(connections, accounts, rate=rate or 10, duration_s=duration_s, **market)


class _Judged(Protocol):
    """The result of a run with goals: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def failed(self) -> list[goals.Goal]:
        """The goals that were missed."""
        ...


def _judge(result: _Judged | None, *, as_json: bool) -> None:
    """Print a result and its missed goals. Raises typer.Exit: OK, or UNPROVEN when a goal was missed."""
    outcome = finished(result)
    show(asdict(outcome), as_json=as_json)
    for goal in outcome.failed:
        typer.echo(f"FAILED {goal}", err=True)
    raise typer.Exit(UNPROVEN if outcome.failed else OK)


def _need_plotting() -> None:
    from portfolio_harness.chart import need_plotting

    try:
        need_plotting()
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None


def _redraw(figures: Path, picture: Path | None) -> None:
    if picture is None:
        raise typer.BadParameter("--drawn needs --chart, the SVG to write")
    from portfolio_harness import chart as charts

    try:
        charts.draw(charts.saved(figures), picture)
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None


def _client_token(secret: str, account_id: str) -> str:
    from portfolio_harness.system import token

    return token(secret, f"client of {account_id}", [account_id], 3600) if secret else ""


@app.command()
def faults(
    trials: Annotated[int, typer.Option(min=1, help="Number of fault plans, run one after the other")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first plan; each next plan adds one")] = 1,
    duration: Annotated[float, typer.Option(min=2, max=600, help="Seconds of each plan")] = 8,
    systems: Annotated[int, typer.Option(min=1, max=8, help="Number of systems side by side")] = 1,
    json: Report = None,
) -> None:
    """Run fault plans against the real services, and compare every account with the ledger after each.

    Repeat one plan with `--trials 1 --seed N`. Exit code 3: an account differs, or another check failed.
    """
    writable(json)
    from rich.console import Console

    from portfolio_harness import fault_trials as trial

    held = finished(until_ctrl_c(trial.hold(trials, seed=seed, duration_s=duration, systems=systems)))
    Console(width=TABLE_WIDTH).print(trial.table(held))
    if json is not None:
        json.write_text(_pretty(held) + "\n")
    raise typer.Exit(OK if all(one.is_clean for one in held) else UNPROVEN)


@app.command()
def week(
    start: Annotated[
        list[str] | None,
        typer.Option(
            help="First day, YYYY-MM-DD; may be repeated. Default: a week with a daylight-saving change, and "
            "one with a holiday and a half day"
        ),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=35, help="Days from each start")] = WEEK_DAYS,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same ledger")] = 7,
    json: Report = None,
) -> None:
    """Run through trading weeks in minutes, and compare every account with the ledger around every roll.

    Exit code 3: an account differs, a value went back, or a roll did not happen.
    """
    writable(json)
    chosen = [_day(text) for text in start or []]
    from rich.console import Console

    from portfolio_harness import trading_week as weeks

    lived: list[weeks.Week] = []
    for first in chosen or [weeks.CLOCKS_WEEK, weeks.HALF_DAYS_WEEK]:
        one = finished(until_ctrl_c(weeks.live_through(first, days=days, seed=seed), log_level="error"))
        Console(width=TABLE_WIDTH).print(weeks.table(one))
        lived.append(one)
    if json is not None:
        json.write_text(_pretty(lived) + "\n")
    raise typer.Exit(OK if all(one.is_clean for one in lived) else UNPROVEN)


def _pretty(result: Any) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(result), indent=2).decode()


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"--start {text!r} is not a date: write it as 2026-11-23") from None


@app.command()
def chaos(
    seed: Annotated[int, typer.Option(min=0, help="The same seed plans the same nemeses")] = 1,
    duration: Annotated[float, typer.Option(min=1, help="Seconds in which nemeses begin")] = 180,
    clients: Annotated[int, typer.Option(min=4, max=8000, help="Clients, over two servers")] = 1000,
    only: Annotated[str | None, typer.Option(help="Use only this nemesis, such as 'kill -9'")] = None,
    cluster: Cluster = False,
    json: Report = None,
) -> None:
    """Disturb two of every service with seeded nemeses, and compare every client with the ledger.

    Exit code 3: a promise did not hold.
    """
    writable(json)
    from rich.console import Console

    from portfolio_harness.chaos import disturbances, session

    names = disturbances.names_for(is_cluster=cluster)
    if only is not None and only not in names:
        known = ", ".join(f"'{name}'" for name in names)
        raise typer.BadParameter(f"--only {only!r} is not a nemesis: choose from {known}")
    held = finished(
        until_ctrl_c(
            session.hold(seed=seed, seconds=duration, clients=clients, only=only, is_cluster=cluster)
        )
    )
    Console(width=TABLE_WIDTH).print(session.table(held))
    typer.echo(
        f"seed {held.seed}: {len(held.outcomes)} nemeses in {held.seconds:.0f} s, {held.clients} clients, "
        f"{held.messages} messages; answers to a revoked token: {held.refused}; "
        f"processes that grew: {held.grown or 'none'}"
    )
    if json is not None:
        json.write_text(_pretty(held) + "\n")
    raise typer.Exit(OK if held.is_clean else UNPROVEN)
