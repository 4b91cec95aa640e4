"""Shared by all commands. It imports little, so that `--help` is fast."""

import os
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import typer

from portfolio_realtime.errors import PortfolioRealtimeError, SettingsError, StateRefused
from portfolio_realtime.exit_codes import FAILED, INTERRUPTED, SETTINGS

if TYPE_CHECKING:
    from portfolio_realtime.config import Settings

R = TypeVar("R")
TABLE_WIDTH: Final = 100


def settings() -> "Settings":
    """The settings of this process. Prints what is wrong and raises typer.Exit when one is wrong."""
    from portfolio_realtime import config

    try:
        return config.load()
    except SettingsError as error:
        tell(error)
        raise typer.Exit(SETTINGS) from None


def tell(error: PortfolioRealtimeError) -> None:
    """Print an error to stderr, without secrets: it may repeat the words of a library or of a server."""
    from portfolio_realtime.redaction import clean

    typer.echo(clean(str(error)), err=True)


def until_ctrl_c(work: Coroutine[Any, Any, R], log_level: str = "info") -> R | None:
    """Run `work` to its end; None when Ctrl-C or SIGTERM cancelled it.

    Prints a PortfolioRealtimeError and raises typer.Exit: SETTINGS for a SettingsError or a StateRefused,
    which another try does not change, else FAILED.
    """
    import asyncio
    import signal

    import uvloop

    from portfolio_realtime import logs

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
        tell(error)
        is_final = isinstance(error, (SettingsError, StateRefused))
        raise typer.Exit(SETTINGS if is_final else FAILED) from None


def finished(result: R | None) -> R:
    """The result of `until_ctrl_c`. Raises typer.Exit (INTERRUPTED) without one."""
    if result is None:
        typer.echo("interrupted: no result", err=True)
        raise typer.Exit(INTERRUPTED)
    return result


def writable(path: Path | None) -> Path | None:
    """The path, after its folder is created. Raises typer.BadParameter when it cannot be written."""
    if path is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error}") from None
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise typer.BadParameter(f"{path} cannot be written: choose a file in a folder that you may write to")
    return path


def show(result: dict[str, Any], *, as_json: bool) -> None:
    """Print a result as one JSON object, or as one line for each figure."""
    import msgspec

    if as_json:
        typer.echo(msgspec.json.encode(result).decode())
        return
    for name, value in result.items():
        typer.echo(f"{name:28} {value}")
