"""Asks for what a quiet event stream may have left out, so that a broker's silence is told within 5 s.

Heartbeats come about every 15 s, so that their absence tells too late. A bounded request to the same event
service ends at once: with what was booked meanwhile, or with nothing. Where the broker refuses such requests,
answers them too late, or allows few requests a minute, the rhythm of its heartbeats decides.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import structlog

from portfolio_realtime.clock import Clock
from portfolio_realtime.errors import BrokerRefused, BrokerUnavailable
from portfolio_realtime.symbol_collector.sources.broker_events import StreamRefused
from portfolio_realtime.symbol_collector.sources.sign_rhythm import SignRhythm

QUIET_S: Final = 1.5  # without a sign of life, and the broker is asked …
ANSWER_S_MAX: Final = 2.0  # … and has so long to answer
SILENT_S: Final = QUIET_S + ANSWER_S_MAX
CLOCK_STEP_S: Final = 0.01  # a sleep may end so much early
PAUSE_S: Final = 0.5  # after a request that was not answered, or could not be sent
REFUSED_S: Final = 60.0  # after one that was refused
LIMIT_MIN: Final = 400  # requests a minute: of less, these would be more than a tenth

log = structlog.get_logger()


class StreamProbe:
    """Whether an open stream is mute, by its own signs and by answers to `ask`.

    `ask` requests what was booked since the last sign; it raises BrokerUnavailable, BrokerRefused. `may_ask`
    says whether the stream is open and the quota has room.
    """

    def __init__(self, clock: Clock, ask: Callable[[], Awaitable[None]], may_ask: Callable[[], bool]) -> None:
        self._clock = clock
        self._ask = ask
        self._may_ask = may_ask
        self._rhythm = SignRhythm()
        self._heard_s = 0.0  # the newest sign of the stream, or answer
        self._is_trusted = False  # answers come in time, so that one that is missing means silence
        self._is_unanswered = False

    def open(self) -> None:
        """A new connection. That it opens ends no silence: a mute broker accepts connections."""
        now_s = self._clock.monotonic_s()
        self._rhythm.begin(now_s)
        if not self._is_unanswered:
            self._heard_s = now_s

    def hear(self) -> None:
        """A sign of life of the stream. Where a request is still unanswered, requests prove nothing."""
        self._heard_s = self._clock.monotonic_s()
        self._rhythm.hear(self._heard_s)
        if self._is_unanswered:
            self._is_trusted = self._is_unanswered = False

    def is_mute(self) -> bool:
        """Is it silent for longer than may be?"""
        now_s = self._clock.monotonic_s()
        if self._is_trusted:
            return now_s - self._heard_s > SILENT_S
        return self._rhythm.is_overdue(now_s)

    async def run(self) -> NoReturn:
        """Ask while the stream is quiet."""
        while True:
            quiet_s = self._clock.monotonic_s() - self._heard_s
            if quiet_s < QUIET_S:
                await asyncio.sleep(QUIET_S - quiet_s + CLOCK_STEP_S)
            elif self._may_ask():
                await asyncio.sleep(await self._pause_s())
            else:
                self._is_trusted = self._is_trusted and self._is_unanswered
                await asyncio.sleep(PAUSE_S)

    async def _pause_s(self) -> float:
        """Ask once. Returns the seconds until the next request at the earliest."""
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                await self._ask()
        except (StreamRefused, BrokerRefused) as error:
            log.warning("the broker refuses to say what a quiet stream has left out", reason=str(error))
            self._is_trusted = self._is_unanswered = False
            return REFUSED_S
        except (BrokerUnavailable, TimeoutError):
            self._is_unanswered = True
            return PAUSE_S
        self._heard_s = self._clock.monotonic_s()
        self._is_trusted, self._is_unanswered = True, False
        return 0.0
