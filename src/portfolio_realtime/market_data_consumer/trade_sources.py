"""Sources of trades: a feed's stream or its snapshots, and the mark quality of each feed."""

from typing import Final

INDICATIVE: Final = "indicative"
END_OF_DAY: Final = "end_of_day"
HALTED: Final = "halted"
QUALITIES: Final = {
    # source -> mark quality
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
    """A small number for a source, and for whether it is a snapshot."""
    return _SOURCES.index(source) << 1 | is_snapshot


def source_of(origin: int) -> str:
    """The source of an origin number."""
    return _SOURCES[origin >> 1]


def is_of_snapshot(origin: int) -> bool:
    """Whether an origin number means a snapshot."""
    return bool(origin & 1)
