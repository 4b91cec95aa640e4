"""Every symbol's mark at each minute, in one hash per minute: symbols × minutes, not accounts × minutes.

A hash holds the symbols whose mark has changed since the minute before, and names the asset classes that are
complete. In a complete class, a symbol that is not in the hash has the mark of the minute before. In other
classes nothing is known of that minute. The first complete minute, and every WHOLE_EVERYth, holds all
symbols, so that no reader has to go further back.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from portfolio_realtime.model import CRYPTO, US_EQUITY, US_OPTION, MinuteMark, MinuteMarks
from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import WRITE_FIELDS_MAX, Connection, reports_unavailable
from portfolio_realtime.state.leases import Lease

READ_KEYS_MAX: Final = 100  # per pipeline
WHOLE_EVERY: Final = 60  # minutes
COMPLETE: Final = "complete:"
CHANGES, ALL = b"changes", b"all"
CLASSES: Final = (US_EQUITY, CRYPTO, US_OPTION)


class Minutes:
    """The hashes `{minutes:TIME}`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._write_minute = connection.script("write_minute")

    @reports_unavailable
    async def write(
        self,
        lease: Lease,
        at_ns: int,
        asset_class: str,
        marks: Mapping[str, MinuteMark | None],
        *,
        is_whole: bool,
    ) -> None:
        """Write the marks at a minute: the changed ones, or all if `is_whole`. None: it has no mark any more.

        Raises LeaseLost, StateUnavailable.
        """
        fields = [
            *(
                (symbol, "" if mark is None else f"{mark.price!r} {mark.as_of_ns}")
                for symbol, mark in marks.items()
            ),
            # Written last: it says that the class is complete.
            (COMPLETE + asset_class, ALL if is_whole else CHANGES),
        ]
        key = keys.minute(at_ns)
        fence = keys.fence(f"{key}:{lease.name}")
        for at in range(0, len(fields), WRITE_FIELDS_MAX):
            part = [word for field in fields[at : at + WRITE_FIELDS_MAX] for word in field]
            newer = await self._write_minute(
                keys=[fence, key], args=[lease.fencing_token, keys.MINUTES_TTL_S, *part]
            )
            if newer:
                raise self._connection.refused(key, newer)

    @reports_unavailable
    async def read(self, times_ns: Sequence[int], symbols: Sequence[str]) -> list[MinuteMarks]:
        """What is known of these symbols at these times, in ns since 1970. Raises StateUnavailable."""
        fields = [*(COMPLETE + asset_class for asset_class in CLASSES), *symbols]
        minutes: list[MinuteMarks] = []
        for at in range(0, len(times_ns), READ_KEYS_MAX):
            pipeline = self._connection.commands.pipeline(transaction=False)
            part = times_ns[at : at + READ_KEYS_MAX]
            for at_ns in part:
                pipeline.hmget(keys.minute(at_ns), fields)
            for at_ns, found in zip(part, cast("list[list[Any]]", await pipeline.execute()), strict=True):
                words = zip(CLASSES, found, strict=False)
                complete = {name: word == ALL for name, word in words if word is not None}
                marks = {
                    symbol: _mark(word)
                    for symbol, word in zip(symbols, found[len(CLASSES) :], strict=True)
                    if word is not None
                }
                minutes.append(MinuteMarks(at_ns, complete, marks))
        return minutes


def _mark(word: bytes) -> MinuteMark | None:
    price, _, as_of_ns = word.partition(b" ")
    return MinuteMark(float(price), int(as_of_ns)) if word else None


def whole_at_or_before(at_ns: int, interval_ns: int) -> int:
    """The newest minute up to `at_ns` that holds all symbols, if the feed was live then. In ns."""
    every_ns = WHOLE_EVERY * interval_ns
    return at_ns // every_ns * every_ns
