"""The pause before the next connection to a feed, by the reason why the last one ended.

The feed may count a dropped connection for some 90 s, and answers 406 until then. It refuses a client that
reconnects too fast with HTTP 429. After both, the first pause is longer. A refusal that waiting does not
resolve is retried once a minute at first and every quarter of an hour in the end, so that a changed plan
needs no restart.

Each of these kinds of failure has its own growing pauses, and all others share one. Only a connection that
lived starts them over, so that failures that alternate wait longer, too. Pure but for the jitter.
"""

from typing import Final, NamedTuple

from portfolio_realtime.backoff import SETTLED_S, Backoff

RETRY_AFTER_S_MAX: Final = 300.0  # the longest pause that the feed may ask for

LOST: Final = "lost"
REFUSED: Final = "refused"
SESSION: Final = "session"  # another feed is due, which is not an error


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
    """The pauses between the connections to one feed."""

    def __init__(self) -> None:
        self._backoffs = {reason: Backoff(*pauses) for reason, pauses in PAUSES.items()}
        self._otherwise = Backoff(*OTHERWISE)

    def pause_s(self, reason: str, lived_s: float, retry_after_s: float | None = None) -> float:
        """The pause in seconds after a connection that lasted `lived_s` and ended for `reason`.

        The pause that the feed asked for is added: `retry_after_s`, at most RETRY_AFTER_S_MAX.
        """
        if lived_s > SETTLED_S:
            for backoff in (*self._backoffs.values(), self._otherwise):
                backoff.reset()
        asked_s = min(retry_after_s or 0.0, RETRY_AFTER_S_MAX)
        return asked_s + self._backoffs.get(reason, self._otherwise).next_s()
