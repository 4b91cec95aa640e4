"""Where a trade comes from: a feed's stream, or a snapshot of it; and what trades of a feed are worth."""

from typing import Final

INDICATIVE: Final = "indicative"
END_OF_DAY: Final = "end_of_day"
HALTED: Final = "halted"
QUALITIES: Final = {
    # source -> what its trades are worth
    "sip": "real_time_sip",
    "iex": "iex",
    "delayed_sip": "delayed",
    "boats": "real_time_boats",
    "overnight": INDICATIVE,
    "crypto": "real_time_crypto",
    "opra": "real_time_opra",
    "indicative": INDICATIVE,
    "test": "test",
}
_SOURCES: Final = tuple(QUALITIES)


def origin_of(source: str, *, is_snapshot: bool = False) -> int:
    """A small number for a source, and for whether a snapshot of it is meant."""
    return _SOURCES.index(source) << 1 | is_snapshot


def source_of(origin: int) -> str:
    """The source that the number stands for."""
    return _SOURCES[origin >> 1]


def is_of_snapshot(origin: int) -> bool:
    """Does the number stand for a snapshot?"""
    return bool(origin & 1)
