"""What happened in a trial, as one number: two runs of a seed that give the same number were the same run."""

import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Final

_packed: Final = struct.Struct("<d").pack


class TrialHistory:
    """A checksum of all that is noted, with its time and in its order."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self.checksum = 0

    def note(self, parts: Iterable[bytes]) -> None:
        """Add a command with its arguments, or a message with its reader."""
        self.checksum = zlib.crc32(b"\0".join((_packed(self._now_s()), *parts)), self.checksum)
