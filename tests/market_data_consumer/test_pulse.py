"""A stream's silence is doubted by what is usual for it."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_realtime.market_data_consumer.silence import FRAMES_MIN, SILENCE_S_MIN, Silence


def beaten(pause_s: float, count: int = 100) -> tuple[Silence, float]:
    """A stream that has brought data so many times, and when it did last."""
    pulse = Silence()
    for number in range(count):
        pulse.beat(number * pause_s)
    return pulse, (count - 1) * pause_s


def test_a_busy_stream_is_doubted_after_two_seconds() -> None:
    """Milliseconds are usual."""
    pulse, last_s = beaten(0.01)
    assert not pulse.is_faint(last_s + SILENCE_S_MIN)
    assert pulse.is_faint(last_s + SILENCE_S_MIN + 0.01)


def test_a_slow_stream_is_given_its_time() -> None:
    """A second is usual: ten are nothing."""
    pulse, last_s = beaten(1.0)
    assert not pulse.is_faint(last_s + 10)
    assert pulse.is_faint(last_s + 21)


def test_nothing_is_usual_yet() -> None:
    """The first connection, or a stream whose silence was explained."""
    pulse, last_s = beaten(0.01, FRAMES_MIN)
    assert not pulse.is_faint(last_s + 3600)
    pulse, last_s = beaten(0.01)
    pulse.begin_anew()
    assert not pulse.is_faint(last_s + 3600)


def test_what_is_usual_survives_a_lost_connection() -> None:
    """A new connection that is silent from its beginning is doubted as early as any other."""
    pulse, last_s = beaten(0.01)
    pulse.interrupt()
    assert not pulse.is_faint(last_s + 3600)  # no data is expected
    pulse.resume(last_s + 30)
    assert not pulse.is_faint(last_s + 30 + SILENCE_S_MIN)
    assert pulse.is_faint(last_s + 30 + SILENCE_S_MIN + 0.01)
    pulse.beat(last_s + 31)
    pulse.resume(last_s + 40)  # the connection was not lost
    assert pulse.is_faint(last_s + 33.5)


def test_new_data_ends_the_doubt() -> None:
    """And makes the next one come later."""
    pulse, last_s = beaten(0.01)
    pulse.beat(last_s + 10)
    assert not pulse.is_faint(last_s + 12.5)


@given(st.integers(0, 2**32), st.floats(0.5, 50))
@settings(max_examples=30, deadline=None)
def test_trades_by_chance_are_hardly_ever_doubted(seed: int, per_second: float) -> None:
    """Trades that come independently of each other, for some thousand frames."""
    chance, pulse, now_s = random.Random(seed), Silence(), 0.0
    doubted = 0
    for _ in range(2000):
        now_s += chance.expovariate(per_second)
        doubted += pulse.is_faint(now_s)
        pulse.beat(now_s)
    assert doubted <= 1
