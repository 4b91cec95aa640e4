"""Commands for whoever runs it: revocations that Valkey has lost."""

from pathlib import Path
from typing import Annotated

import typer

from portfolio_realtime.cli.common import finished, settings, until_ctrl_c, writable

revocations = typer.Typer(
    no_args_is_help=True, help="Keep what was revoked, and who may see what, for when Valkey is lost."
)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(revocations, name="revocations")


@revocations.command()
def save(
    file: Annotated[Path, typer.Argument(help="The file to write; only you will be able to read it")],
) -> None:
    """Write all revocations and entitlements to a file, for example each day."""
    from portfolio_realtime.cli import revocations_file

    writable(file)
    saved = finished(until_ctrl_c(revocations_file.save(settings(), file)))
    typer.echo(f"{len(saved.revocations)} revocations, {len(saved.entitlements)} entitlements -> {file}")


@revocations.command()
def restore(
    file: Annotated[Path | None, typer.Argument(help="A file that `revocations save` wrote")] = None,
    none: Annotated[bool, typer.Option("--none", help="Nothing was revoked that still matters")] = False,
) -> None:
    """Say that no revocation is missing any more, so that older tokens are let in again.

    What was revoked after the file was saved must be revoked again.
    """
    from datetime import timedelta

    from portfolio_realtime.cli import revocations_file

    if (file is None) != none:
        raise typer.BadParameter("say what was revoked: a FILE that `revocations save` wrote, or --none")
    restored = finished(until_ctrl_c(revocations_file.restore(settings(), file)))
    typer.echo(f"{restored.revocations} revocations, {restored.entitlements} entitlements are written again")
    if file is not None:
        age = timedelta(seconds=restored.age_s)
        typer.echo(f"The file is {age} old: revoke again what was revoked since (portfolio-realtime revoke)")
