"""How many requests may be sent now: Alpaca's limit per key and minute, read from its answers.

The first half of a minute's quota may be used at once, the rest is spread to the reset, and the last tenth is
reserved for urgent requests. Until the first answer, and after each reset, a single request finds out how
much there is. After a 429 nothing is sent before the reset. Pure: times are arguments, in seconds.
"""

from collections.abc import Mapping
from typing import Final

AT_ONCE_SHARE: Final = 0.5
RESERVED_SHARE: Final = 0.1
POLL_S: Final = 0.05  # how soon to ask again when an answer on its way will tell
WINDOW_S: Final = 60.0
RESET_MARGIN_S: Final = 0.1  # the reset is told in whole seconds of the broker's clock
BACK_OFF_S: Final = 5.0  # after a 429 that does not say until when; doubles with each in a row …
BACK_OFF_S_MAX: Final = WINDOW_S  # … until a whole window is waited for
TOO_MANY: Final = 429


class Quota:
    """The quota of one key; there is none to keep where the broker sends no rate-limit headers."""

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
        """Seconds to wait before the next request; 0 says go (then call `sent`). Ask again after waiting."""
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

    def sent(self, now_s: float) -> None:
        """A request goes out."""
        self._in_flight += 1
        self._sent_s = now_s

    def answered(self, status: int | None, headers: Mapping[str, str], now_s: float, wall_s: float) -> None:
        """An answer came, or none (`status` None). `wall_s` is the time since 1970, as the headers use it."""
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
