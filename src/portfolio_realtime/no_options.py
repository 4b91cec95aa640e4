"""Answers a command line with options: the services have none, and take everything from their settings."""

import sys
from typing import Final

from portfolio_realtime.exit_codes import SETTINGS

REMEDY: Final = (
    "There are no options: set environment variables, or write them into .env in this folder. "
    "`portfolio-realtime check-config` shows every setting."
)


def refuse(module: str, does: str, *allowed: str) -> None:
    """Return if nothing but `allowed` was given; else say what the module does or what is wrong, and exit."""
    given = [word for word in sys.argv[1:] if word not in allowed]
    if not given:
        return
    import argparse  # a service that starts does not pay for it

    parser = argparse.ArgumentParser(
        f"python -m portfolio_realtime.{module}", description=does, epilog=REMEDY
    )
    _, unknown = parser.parse_known_args(given)
    parser.exit(SETTINGS, f"{parser.prog} does not know {' '.join(unknown)}. {REMEDY}\n")
