"""What each exit code means; the same for all commands."""

from typing import Final

OK: Final = 0  # done, or ended as asked
FAILED: Final = 1  # could not be done; the reason is on stderr
SETTINGS: Final = 2  # a setting or the command line is wrong; trying again does not help
UNPROVEN: Final = 3  # done, and a check, a goal or a comparison failed
INTERRUPTED: Final = 130  # Ctrl-C or SIGTERM came before there was a result
