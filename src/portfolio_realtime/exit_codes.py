"""Exit codes of all commands."""

from typing import Final

OK: Final = 0  # done, or ended as requested
FAILED: Final = 1  # it could not be done; the reason is on stderr
SETTINGS: Final = 2  # a setting or an option is wrong, or Valkey refuses us; trying again does not help
UNPROVEN: Final = 3  # done, but a check, a goal or a comparison failed
INTERRUPTED: Final = 130  # Ctrl-C or SIGTERM before there was a result
