"""How long to wait before the next connection to a feed, by what ended the last one. Pure but for the jitter.

A connection that is dropped may hold its place at the feed for some 90 s (answer 406 until then), and one
that comes back too fast is turned away at the door (HTTP 429): those wait longer from the start. A refusal
that waiting does not heal is not tried in a loop: once a minute at first, in the end every quarter of an
hour, so that a plan that was changed needs no restart.
"""

from typing import Final, NamedTuple

from portfolio_realtime.backoff import Backoff

RETRY_AFTER_S_MAX: Final = 300.0  # what the feed asks for, at most

LOST: Final = "lost"
REFUSED: Final = "refused"
SESSION: Final = "session"  # another feed has its turn: nothing is wrong


class Pauses(NamedTuple):
    """The first pause and the longest, in seconds."""

    first_s: float
    longest_s: float


PAUSES: Final = {
    "406": Pauses(10.0, 30.0),
    "407": Pauses(2.0, 15.0),
    "429": Pauses(15.0, 120.0),
    REFUSED: Pauses(60.0, 900.0),
    SESSION: Pauses(0.0, 0.0),
}
OTHERWISE: Final = Pauses(0.5, 15.0)


class ReconnectDelay:
    """The pauses of one feed."""

    def __init__(self) -> None:
        self._reason = ""
        self._backoff = Backoff(0.0, 0.0)

    def pause_s(self, reason: str, lived_s: float, retry_after_s: float | None = None) -> float:
        """The pause after a connection that lived so long and ended for this reason."""
        if reason != self._reason:
            self._reason = reason
            self._backoff = Backoff(*PAUSES.get(reason, OTHERWISE))
        asked_s = min(retry_after_s or 0.0, RETRY_AFTER_S_MAX)
        return asked_s + self._backoff.after_s(lived_s)
