"""Decoding of shared entries: an unreadable entry is left out and logged, so that all others still count."""

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
import structlog

SHOWN_BYTES: Final = 60

T = TypeVar("T")
log = structlog.get_logger()


def readable(decode: Callable[[bytes], T], raw: bytes, where: str) -> T | None:
    """The decoded entry, or None after a line in the log. `where`: the name of its key."""
    try:
        return decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.error("an unreadable entry is ignored", where=where, reason=str(error), begins=raw[:SHOWN_BYTES])
        return None
