"""What somebody has written and nobody can read: left out and named, so that it harms nobody else."""

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
import structlog

SHOWN_BYTES: Final = 60

T = TypeVar("T")
log = structlog.get_logger()


def readable(decode: Callable[[bytes], T], raw: bytes, where: str) -> T | None:
    """What it says, or None. A name of a key tells where it was found."""
    try:
        return decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.error("an unreadable entry is ignored", where=where, reason=str(error), begins=raw[:SHOWN_BYTES])
        return None
