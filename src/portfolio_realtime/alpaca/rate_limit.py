"""When the next request may be sent: Alpaca's limit per key and minute, read from its rate-limit headers.

The first half of a minute's quota may be used at once. The rest is spread until the reset, and the last tenth
is reserved for urgent requests. Until the first answer, and after each reset, a single request finds out the
quota. After a 429, nothing is sent before the reset. This module has no I/O: times are arguments, in seconds.
"""

from collections.abc import Mapping
from typing import Final

AT_ONCE_SHARE: Final = 0.5
RESERVED_SHARE: Final = 0.1
POLL_S: Final = 0.05  # how soon to ask again while the answer to another request is expected
WINDOW_S: Final = 60.0
RESET_MARGIN_S: Final = 0.1  # the reset is in whole seconds of the broker's clock
# The pause after a 429 without a reset time. It doubles with each 429 in a row.
BACK_OFF_S: Final = 5.0
BACK_OFF_S_MAX: Final = WINDOW_S
TOO_MANY: Final = 429


class Quota:
    """The quota of one key. Without rate-limit headers in the answers, requests are not limited."""

    def __init__(self) -> None:
        self._limit: int | None = None
        self._remaining = 0
        self._reset_s = 0.0
        self._in_flight = 0
        self._not_before_s = 0.0
        self._sent_s = 0.0
        self._is_unlimited = False
        self._refused = 0  # 429s in a row

    def wait_s(self, now_s: float, *, is_urgent: bool) -> float:
        """Seconds to wait before asking again; 0: send the request now, and call `sent`."""
        if now_s < self._not_before_s:
            return self._not_before_s - now_s
        if self._is_unlimited:
            return 0.0
        if self._limit is None or now_s >= self._reset_s:
            return POLL_S if self._in_flight else 0.0
        free = self._remaining - self._in_flight
        if free <= (0 if is_urgent else self._limit * RESERVED_SHARE):
            return POLL_S if self._remaining > 0 and self._in_flight else self._reset_s - now_s
        if is_urgent or free > self._limit * (1 - AT_ONCE_SHARE):
            return 0.0
        spacing_s = (self._reset_s - now_s) / free
        return max(0.0, self._sent_s + spacing_s - now_s)

    def has_room(self, now_s: float, limit_min: int) -> bool:
        """May an urgent request go now, and are at least so many allowed each minute, as far as is known?"""
        return (self._limit is None or self._limit >= limit_min) and not self.wait_s(now_s, is_urgent=True)

    def sent(self, now_s: float) -> None:
        """Count a request that is sent now."""
        self._in_flight += 1
        self._sent_s = now_s

    def answered(self, status: int | None, headers: Mapping[str, str], now_s: float, wall_s: float) -> None:
        """Note the answer to a request; `status` None: there was none.

        `wall_s` is the time in seconds since the epoch, which the headers use.
        """
        self._in_flight -= 1
        if status is None:
            return
        limit, remaining = _integer(headers, "x-ratelimit-limit"), _integer(headers, "x-ratelimit-remaining")
        reset = _integer(headers, "x-ratelimit-reset")
        if limit is not None and remaining is not None and reset is not None:
            self._learn(limit, remaining, now_s + max(0.0, min(reset - wall_s, WINDOW_S)) + RESET_MARGIN_S)
        elif self._limit is None:
            self._is_unlimited = True
        if status != TOO_MANY:
            self._refused = 0
            return
        self._refused += 1
        self._remaining = 0
        pause_s = self._reset_s - now_s if reset is not None else _integer(headers, "retry-after") or 0
        if pause_s <= 0:
            pause_s = min(BACK_OFF_S * 2 ** (self._refused - 1), BACK_OFF_S_MAX)
        self._not_before_s = max(self._not_before_s, now_s + min(pause_s, WINDOW_S + RESET_MARGIN_S))

    def _learn(self, limit: int, remaining: int, reset_s: float) -> None:
        self._is_unlimited = False
        is_same_window = self._limit == limit and abs(reset_s - self._reset_s) < 1.0
        self._remaining = min(self._remaining, remaining) if is_same_window else remaining
        self._limit, self._reset_s = limit, reset_s


def _integer(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "")
    return int(text) if text.isdecimal() else None
