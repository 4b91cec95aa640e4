"""`portfolio-realtime`, or `python -m portfolio_realtime`: all commands."""

from portfolio_realtime import interrupts


def main() -> None:
    """Run one command."""
    with interrupts.quiet():
        from portfolio_harness import commands
        from portfolio_realtime.cli.app import app

        app.add_typer(commands.app)
        app()


if __name__ == "__main__":
    main()
