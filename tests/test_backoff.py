"""Pauses double from the first to the longest, are cut by up to half, and start again after a success."""

from portfolio_realtime.backoff import SETTLED_S, Backoff

FIRST_S, LONGEST_S = 0.5, 3.0


def test_pauses_double_to_the_longest_and_are_jittered() -> None:
    """Each lies between half of its step and all of it."""
    backoff = Backoff(FIRST_S, LONGEST_S)
    for step_s in (0.5, 1.0, 2.0, 3.0, 3.0):
        assert step_s / 2 <= backoff.next_s() <= step_s
    assert len({backoff.next_s() for _ in range(5)}) == 5, "everybody would come back at once"


def test_a_success_starts_the_pauses_anew() -> None:
    """Told by `reset`, or by how long the attempt lived."""
    backoff = Backoff(FIRST_S, LONGEST_S)
    for _ in range(5):
        backoff.next_s()
    assert backoff.after_s(SETTLED_S / 2) > FIRST_S
    assert backoff.after_s(SETTLED_S + 1) <= FIRST_S
    backoff.next_s()
    backoff.reset()
    assert backoff.next_s() <= FIRST_S


def test_failing_for_ever_overflows_nothing() -> None:
    """Ten thousand failures in a row."""
    backoff = Backoff(FIRST_S, LONGEST_S)
    assert all(0 < backoff.next_s() <= LONGEST_S for _ in range(10_000))
