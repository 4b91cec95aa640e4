"""A stream's silence is judged by what is usual for it."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_realtime.market_data_consumer.silence import FRAMES_MIN, SILENCE_S_MIN, Silence


def after_frames(pause_s: float, count: int = 100) -> tuple[Silence, float]:
    """A stream that has brought data so many times, and when it did last."""
    silence = Silence()
    for number in range(count):
        silence.note_data(number * pause_s)
    return silence, (count - 1) * pause_s


def test_a_busy_stream_is_suspect_after_two_seconds() -> None:
    """Milliseconds are usual."""
    silence, last_s = after_frames(0.01)
    assert not silence.is_unusual(last_s + SILENCE_S_MIN)
    assert silence.is_unusual(last_s + SILENCE_S_MIN + 0.01)


def test_a_slow_stream_is_given_its_time() -> None:
    """A second is usual: ten are nothing."""
    silence, last_s = after_frames(1.0)
    assert not silence.is_unusual(last_s + 10)
    assert silence.is_unusual(last_s + 21)


def test_nothing_is_usual_yet() -> None:
    """The first connection, or a stream whose silence was explained."""
    silence, last_s = after_frames(0.01, FRAMES_MIN)
    assert not silence.is_unusual(last_s + 3600)
    silence, last_s = after_frames(0.01)
    silence.reset()
    assert not silence.is_unusual(last_s + 3600)


def test_what_is_usual_survives_a_lost_connection() -> None:
    """A new connection that is silent from its beginning is suspect as early as any other."""
    silence, last_s = after_frames(0.01)
    silence.interrupt()
    assert not silence.is_unusual(last_s + 3600)  # no data is expected
    silence.resume(last_s + 30)
    assert not silence.is_unusual(last_s + 30 + SILENCE_S_MIN)
    assert silence.is_unusual(last_s + 30 + SILENCE_S_MIN + 0.01)
    silence.note_data(last_s + 31)
    silence.resume(last_s + 40)  # the connection was not lost
    assert silence.is_unusual(last_s + 33.5)


def test_new_data_ends_the_suspicion() -> None:
    """And makes the next one come later."""
    silence, last_s = after_frames(0.01)
    silence.note_data(last_s + 10)
    assert not silence.is_unusual(last_s + 12.5)


@given(st.integers(0, 2**32), st.floats(0.5, 50))
@settings(max_examples=30, deadline=None)
def test_trades_by_chance_are_hardly_ever_suspect(seed: int, per_second: float) -> None:
    """Trades that come independently of each other, for some thousand frames."""
    rng, silence, now_s = random.Random(seed), Silence(), 0.0
    unusual = 0
    for _ in range(2000):
        now_s += rng.expovariate(per_second)
        unusual += silence.is_unusual(now_s)
        silence.note_data(now_s)
    assert unusual <= 1


@given(
    pauses_s=st.lists(st.sampled_from([0.001, 0.01, 0.5, 3.0, 30.0]), max_size=80),
    looks_s=st.lists(st.floats(0.0, 5.0), max_size=20),
)
def test_nothing_is_unusual_before_the_next_look(pauses_s: list[float], looks_s: list[float]) -> None:
    """Whatever arrives after a look, so nobody need look sooner."""
    silence, looks = Silence(), [FRAMES_MIN * 0.5 + look_s for look_s in looks_s]
    now_s, earliest_s = 0.0, 0.0
    for pause_s in [0.5] * FRAMES_MIN + pauses_s:
        for at_s in [look_s for look_s in looks if now_s < look_s <= now_s + pause_s]:
            assert not silence.is_unusual(at_s) or at_s >= earliest_s
            earliest_s = max(earliest_s, silence.earliest_s(at_s))
        arrival_s = now_s + pause_s
        assert not silence.is_unusual(min(arrival_s, earliest_s - 0.001))
        silence.note_data(arrival_s)
        now_s = arrival_s
