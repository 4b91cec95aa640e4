"""Refusals in the log: the first of a kind at once, repetitions as one count per minute."""

from collections import Counter
from typing import Final

import structlog

MINUTE_S: Final = 60.0
LINES_PER_KIND_MAX: Final = 3  # in a minute: who looks for one of them sees that it is none alone
LINES_PER_MINUTE_MAX: Final = 200  # of all kinds; what is more is only counted

log = structlog.get_logger()


class RefusalLog:
    """Limits the log lines of a client that reconnects without end. `now_s` is monotonic seconds."""

    def __init__(self) -> None:
        self._logged: Counter[tuple[str, str, str]] = Counter()  # event, reason, address -> lines
        self._repeated: Counter[str] = Counter()  # reason -> refusals that have no line of their own
        self._began_s = 0.0

    def add(self, event: str, reason: str, ip: str, now_s: float) -> None:
        """Log one refusal, with nothing from the client but its parsed address."""
        self.end_minute(now_s)
        kind = (event, reason, ip)
        if self._logged[kind] >= LINES_PER_KIND_MAX or self._logged.total() >= LINES_PER_MINUTE_MAX:
            self._repeated[reason] += 1
            return
        self._logged[kind] += 1
        log.info(event, reason=reason, peer=ip)

    def end_minute(self, now_s: float) -> None:
        """Log how often refusals were repeated, when a minute has passed."""
        if now_s - self._began_s < MINUTE_S:
            return
        if self._repeated:
            log.info("more refusals in the last minute", **self._repeated)
        self._logged.clear()
        self._repeated.clear()
        self._began_s = now_s
