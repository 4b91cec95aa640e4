"""Pauses between connections follow what ended the last one."""

import pytest

from portfolio_realtime.backoff import SETTLED_S
from portfolio_realtime.market_data_consumer.reconnect_delay import (
    LOST,
    OTHERWISE,
    PAUSES,
    REFUSED,
    RETRY_AFTER_S_MAX,
    SESSION,
    ReconnectDelay,
)

GHOST_S = 90.0  # so long a dropped connection may hold its place at the feed


def pauses(reason: str, count: int) -> list[float]:
    """The pauses of one reason again and again."""
    delay = ReconnectDelay()
    return [delay.pause_s(reason, 0.0) for _ in range(count)]


@pytest.mark.parametrize("reason", [LOST, "mute", "406", "407", "429", REFUSED])
def test_pauses_grow_to_their_limit_and_are_jittered(reason: str) -> None:
    """Each lies between half of its step and all of it; no reason is tried in a tight loop."""
    limits = PAUSES.get(reason, OTHERWISE)
    step_s = limits.first_s
    for pause_s in pauses(reason, 12):
        assert step_s / 2 <= pause_s <= step_s
        step_s = min(2 * step_s, limits.longest_s)
    assert step_s == limits.longest_s
    assert len(set(pauses(reason, 5))) == 5, "everybody would come back at once"


def test_a_ghost_of_ours_is_outwaited_with_few_attempts() -> None:
    """90 s of 406 cost at most a dozen attempts."""
    waited_s, attempts = 0.0, 0
    delay = ReconnectDelay()
    while waited_s < GHOST_S:
        waited_s += delay.pause_s("406", 0.0)
        attempts += 1
    assert attempts <= 12


def test_what_the_feed_asks_for_is_waited_and_a_little_more() -> None:
    """Retry-After counts, up to a limit."""
    assert ReconnectDelay().pause_s("429", 0.0, 42.0) > 42.0
    longest_s = RETRY_AFTER_S_MAX + PAUSES["429"].longest_s
    assert RETRY_AFTER_S_MAX < ReconnectDelay().pause_s("429", 0.0, 1e9) <= longest_s


def test_only_a_connection_that_lived_starts_the_pauses_over() -> None:
    """Whatever ended the others: each kind of pause grows by itself, and success ends them all."""
    delay = ReconnectDelay()
    for _ in range(8):
        delay.pause_s(LOST, 0.0)
    assert delay.pause_s("407", 0.0) <= PAUSES["407"].first_s, "another kind has its own first pause"
    assert delay.pause_s(LOST, 0.0) >= OTHERWISE.longest_s / 2
    assert delay.pause_s("407", SETTLED_S + 1) <= PAUSES["407"].first_s
    assert delay.pause_s(LOST, 0.0) <= OTHERWISE.first_s


def test_reasons_that_alternate_wait_longer_and_longer() -> None:
    """A feed that accepts, drops and refuses connections in turn has failed each time."""
    delay = ReconnectDelay()
    reasons = (LOST, "unreachable", "mute", "500")
    pauses_s = [delay.pause_s(reason, 0.0) for _ in range(3) for reason in reasons]
    assert min(pauses_s[-4:]) >= OTHERWISE.longest_s / 2


def test_taking_turns_costs_no_pause() -> None:
    """Nothing is wrong when the night's feed takes over."""
    assert pauses(SESSION, 3) == [0.0, 0.0, 0.0]
