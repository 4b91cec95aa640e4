"""A stream is mute when its next sign of life is late, by its own rhythm."""

from portfolio_realtime.symbol_collector.sources.sign_rhythm import PAUSES_KEPT, SignRhythm


def rhythm_of(*at_s: float) -> SignRhythm:
    """A connection opened at 0, with signs at these seconds."""
    rhythm = SignRhythm()
    rhythm.begin(0)
    for each_s in at_s:
        rhythm.hear(each_s)
    return rhythm


def is_overdue(rhythm: SignRhythm, at_s: float) -> bool:
    """At this second."""
    return rhythm.is_overdue(at_s)


def test_a_sign_each_second_is_missed_after_two_and_a_half() -> None:
    """So that a client is told within 5 s."""
    rhythm = rhythm_of(1, 2, 3, 4)
    assert not is_overdue(rhythm, 6.5)
    assert is_overdue(rhythm, 6.6)


def test_a_slow_rhythm_is_given_its_time() -> None:
    """A broker that speaks every 15 s is not silent after 20."""
    rhythm = rhythm_of(15, 30, 45)
    assert not is_overdue(rhythm, 65)
    assert is_overdue(rhythm, 69)


def test_nothing_is_late_before_the_rhythm_is_known() -> None:
    """Two signs say nothing; a new connection knows nothing of the one before."""
    assert not is_overdue(rhythm_of(1, 2), 1000)
    rhythm = rhythm_of(1, 2, 3, 4)
    rhythm.begin(5)
    assert not is_overdue(rhythm, 1000)


def test_a_long_pause_is_forgotten() -> None:
    """We stood still for a minute: that is not how the broker speaks."""
    seconds = [1.0, 2.0, 3.0, *(63.0 + second for second in range(PAUSES_KEPT + 1))]
    assert not is_overdue(rhythm_of(*seconds[:10]), seconds[9] + 60)
    assert is_overdue(rhythm_of(*seconds), seconds[-1] + 3)
