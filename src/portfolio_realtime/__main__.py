"""`portfolio-realtime`, or `python -m portfolio_realtime`: runs one of the commands.

Other packages add commands by an entry point of the group COMMANDS that is a `typer.Typer`, as the harness
does.
"""

from typing import Final

from portfolio_realtime import interrupts

COMMANDS: Final = "portfolio_realtime.commands"


def main() -> None:
    """Run the command that the command line names."""
    with interrupts.quiet():
        # These imports take most of the time to the first word, so the signal handler is installed first.
        from importlib.metadata import entry_points

        from portfolio_realtime.cli.app import app

        for commands in entry_points(group=COMMANDS):
            app.add_typer(commands.load())
        app()


if __name__ == "__main__":
    main()
