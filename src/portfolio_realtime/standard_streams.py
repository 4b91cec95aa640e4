"""Makes standard input, output and error usable, whatever the caller left of them.

A caller may close them (`2>&-`); then Python has no stream at all, and the next socket would get the number
of standard error. A terminal may not know a letter, which must not end a command.
"""

import os
import sys
from io import TextIOWrapper
from typing import Final

NUMBERS: Final = {0: "r", 1: "w", 2: "w"}  # of stdin, stdout and stderr, in this order


def make_usable() -> None:
    """Open the null device for streams that are closed; write letters that cannot be shown as `\\xe9`."""
    for number, mode in NUMBERS.items():
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
            stream = open(number, mode, closefd=False)  # noqa: SIM115  # it stays open until the end
            setattr(sys, ("stdin", "stdout", "stderr")[number], stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
