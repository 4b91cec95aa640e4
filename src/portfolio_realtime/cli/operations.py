"""Commands for operators: the present state, and saving and restoring revocations."""

import math
from pathlib import Path
from typing import Annotated, Final

import typer

from portfolio_realtime.cli.common import finished, settings, until_ctrl_c, writable
from portfolio_realtime.exit_codes import OK, UNPROVEN

HELD_HOURS_MAX: Final = 24.0 * 31  # a hold that was forgotten ends

revocations = typer.Typer(
    no_args_is_help=True, help="Save and restore revocations and entitlements, in case Valkey is lost."
)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(status)
    app.command()(wire)
    app.command()(plan)
    app.add_typer(revocations, name="revocations")


def status(
    once: Annotated[bool, typer.Option("--once", help="Show it once, after two readings")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, after two readings")] = False,
    interval: Annotated[float, typer.Option(min=0.5, help="Seconds between two readings")] = 2.0,
) -> None:
    """Show the system live: processes, shards and their owners, feeds, lag, watched accounts, drift.

    Ctrl-C ends it. Exit code 3, with --once or --json: something is not as it should be.
    """
    import msgspec
    from rich.console import Console

    from portfolio_realtime.cli import status as shown

    loaded = settings()
    if not (once or json):
        until_ctrl_c(shown.watch(loaded, interval), log_level="error")
        return
    found = finished(until_ctrl_c(shown.look_twice(loaded, interval), log_level="error"))
    if json:
        typer.echo(msgspec.json.encode({"troubles": found.troubles, **msgspec.to_builtins(found)}).decode())
    else:
        Console().print(shown.table(found))
    raise typer.Exit(UNPROVEN if found.troubles else OK)


def wire(
    hold: Annotated[
        int | None, typer.Option(help="Let nobody write a version above this one", show_default=False)
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(min=0.01, max=HELD_HOURS_MAX, help="With --hold: for how long [default: 1]"),
    ] = None,
    release: Annotated[bool, typer.Option("--release", help="End what --hold began")] = False,
) -> None:
    """Show which version of the wire each process reads and writes. Before a downgrade, hold the older one.

    Exit code 3: a process still writes a version above the held one.
    """
    from portfolio_realtime.cli import wire as shown

    if release and hold is not None:
        raise typer.BadParameter("--release ends what --hold began: use one of them")
    if hours is not None and (hold is None or math.isnan(hours)):
        raise typer.BadParameter("--hours is a number of hours, and needs --hold")
    loaded = settings()
    if release:
        work = shown.release(loaded)
    elif hold is not None:
        work = shown.hold(loaded, hold, 1.0 if hours is None else hours)
    else:
        work = shown.processes(loaded)
    found = finished(until_ctrl_c(work))
    for one in found:
        typer.echo(shown.line(one))
    raise typer.Exit(UNPROVEN if hold is not None and shown.is_above(found, hold) else OK)


def plan(
    viewers: Annotated[float, typer.Option(min=1, help="Browsers connected at once, such as 1e6")],
    accounts: Annotated[float, typer.Option(min=1, help="Accounts of the broker, such as 1e7")],
    positions: Annotated[float, typer.Option(min=0, help="Positions of one account")] = 10,
    rate: Annotated[float, typer.Option(min=0.01, help="Messages a second to one viewer")] = 1,
    trades_per_second: Annotated[float, typer.Option(min=0, help="Market trades, over all symbols")] = 10_000,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Say how many processes, how much memory and bandwidth so many viewers need, and what ends first."""
    import msgspec

    from portfolio_realtime.cli import capacity

    demand = capacity.Demand(viewers, accounts, positions, rate, trades_per_second)
    costs = capacity.measured()
    planned = capacity.plan(demand, costs)
    if json:
        typer.echo(msgspec.json.encode({**msgspec.to_builtins(planned), "costs": costs}).decode())
        return
    for line in capacity.lines(planned, costs):
        typer.echo(line)


@revocations.command()
def save(
    file: Annotated[Path, typer.Argument(help="The file to write; only its owner may read it")],
) -> None:
    """Write all revocations and entitlements to a file, for example every day."""
    from portfolio_realtime.cli import revocations_file

    writable(file)
    saved = finished(until_ctrl_c(revocations_file.save(settings(), file)))
    typer.echo(f"{len(saved.revocations)} revocations, {len(saved.entitlements)} entitlements -> {file}")


@revocations.command()
def restore(
    file: Annotated[Path | None, typer.Argument(help="A file that `revocations save` wrote")] = None,
    none: Annotated[
        bool, typer.Option("--none", help="Without a file: no token that is still valid was revoked")
    ] = False,
) -> None:
    """Restore revocations and entitlements after Valkey was lost, and accept older tokens again.

    Tokens that were revoked after the file was saved must be revoked again.
    """
    from datetime import timedelta

    from portfolio_realtime.cli import revocations_file

    if (file is None) != none:
        raise typer.BadParameter("name a FILE written by `revocations save`, or use --none")
    restored = finished(until_ctrl_c(revocations_file.restore(settings(), file)))
    typer.echo(f"{restored.revocations} revocations and {restored.entitlements} entitlements restored")
    if file is not None:
        age = timedelta(seconds=restored.age_s)
        typer.echo(
            f"The file is {age} old: revoke again what was revoked since then (portfolio-realtime revoke)"
        )
