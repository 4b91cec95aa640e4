"""The quota of a key is used up and never overrun, against a made-up broker with minute windows."""

import itertools
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_realtime.alpaca.rate_limit import AT_ONCE_SHARE, BACK_OFF_S, RESET_MARGIN_S, Quota

LATENCY_S = 0.05
WINDOW_S = 60


class MadeUpBroker:
    """Answers `limit` requests in each minute of its clock, which begins `offset_s` into one."""

    def __init__(
        self, limit: int, offset_s: float = 0.0, somebody_else: Callable[[], bool] = lambda: False
    ) -> None:
        self.limit = limit
        self.now_s = 0.0
        self.rejected = 0
        self.sent_s: list[float] = []
        self.statuses: list[int] = []
        self._offset_s = offset_s
        self._somebody_else = somebody_else
        self._counts: dict[int, int] = {}

    @property
    def wall_s(self) -> float:
        """The broker's clock."""
        return 1_700_000_040 + self._offset_s + self.now_s

    def answer(self) -> tuple[int, dict[str, str]]:
        """One request, answered with status and headers."""
        window = int(self.wall_s) // WINDOW_S
        self._counts[window] = self._counts.get(window, 0) + 1 + self._somebody_else()
        count = self._counts[window]
        self.rejected += count > self.limit
        headers = {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(max(0, self.limit - count)),
            "x-ratelimit-reset": str((window + 1) * WINDOW_S),
        }
        self.statuses.append(429 if count > self.limit else 200)
        return self.statuses[-1], headers


def send(
    broker: MadeUpBroker, quota: Quota, until_s: float, *, is_urgent: bool = False, lanes: int = 8
) -> int:
    """So many lanes send as fast as the quota lets them; how many requests went out."""
    arriving: list[tuple[float, tuple[int, dict[str, str]]]] = []
    count = 0
    while broker.now_s < until_s:
        while arriving and arriving[0][0] <= broker.now_s:
            _, (status, headers) = arriving.pop(0)
            quota.answered(status, headers, broker.now_s, broker.wall_s)
        wait_s = quota.wait_s(broker.now_s, is_urgent=is_urgent)
        if wait_s == 0 and len(arriving) < lanes:
            quota.sent(broker.now_s)
            arriving.append((broker.now_s + LATENCY_S, broker.answer()))
            broker.sent_s.append(broker.now_s)
            count += 1
        else:
            next_s = arriving[0][0] if arriving else math.inf
            broker.now_s = min(max(broker.now_s + max(wait_s, 0.001), broker.now_s + 0.001), next_s, until_s)
    for _, (status, headers) in arriving:
        quota.answered(status, headers, broker.now_s, broker.wall_s)
    return count


@pytest.mark.parametrize("limit", [10, 120, 1000])
@pytest.mark.parametrize("offset_s", [0.0, 17.3, 58.9])
def test_the_limit_is_used_and_never_overrun(limit: int, offset_s: float) -> None:
    """Three minutes of unlimited hunger: no request is refused, and most of the quota is used."""
    broker = MadeUpBroker(limit, offset_s)

    count = send(broker, Quota(), 180)

    assert broker.rejected == 0
    assert count >= 0.8 * limit * 2, "two whole minutes lie in it"


def test_the_first_half_goes_out_at_once_and_the_rest_is_spread() -> None:
    """A small book is there in no time; a big one leaves room for what comes up."""
    broker = MadeUpBroker(120)

    send(broker, Quota(), 60)

    early = [sent_s for sent_s in broker.sent_s if sent_s < 3]
    assert len(early) >= 120 * AT_ONCE_SHARE - 8
    assert max(b - a for a, b in zip(broker.sent_s[70:], broker.sent_s[71:], strict=False)) < 5


def test_the_last_tenth_is_kept_for_what_somebody_waits_for() -> None:
    """Background work has taken what it may; an urgent request goes out at once."""
    broker, quota = MadeUpBroker(100), Quota()
    send(broker, quota, 59)

    assert quota.wait_s(59, is_urgent=False) > 0
    assert quota.wait_s(59, is_urgent=True) == 0
    assert send(broker, quota, 59.5, is_urgent=True) >= 5
    assert broker.rejected == 0


def test_a_refused_key_is_silent_until_the_reset() -> None:
    """Somebody else used the key up: one 429, then nothing before the reset, then one at a time."""
    broker, quota = MadeUpBroker(0), Quota()

    send(broker, quota, 59)
    assert (broker.rejected, broker.sent_s) == (1, [0.0])

    send(broker, quota, 119)
    assert broker.rejected == 2


def test_a_429_without_headers_waits_too() -> None:
    """Nobody says until when: BACK_OFF_S."""
    quota = Quota()
    quota.sent(0)
    quota.answered(429, {}, 0, 1_700_000_000)

    assert quota.wait_s(0, is_urgent=True) == BACK_OFF_S
    assert quota.wait_s(BACK_OFF_S, is_urgent=True) == 0


def test_429s_in_a_row_without_headers_wait_longer_up_to_a_window() -> None:
    """A limit that counts by minutes lets us in again after one, whatever it is."""
    quota, now_s, waited_s = Quota(), 0.0, []
    for _ in range(6):
        quota.sent(now_s)
        quota.answered(429, {}, now_s, 1_700_000_000 + now_s)
        waited_s.append(quota.wait_s(now_s, is_urgent=True))
        now_s += waited_s[-1]

    assert waited_s == [5, 10, 20, 40, 60, 60]
    quota.sent(now_s)
    quota.answered(200, {}, now_s, 1_700_000_000 + now_s)
    quota.answered(429, {}, now_s, 1_700_000_000 + now_s)
    assert quota.wait_s(now_s, is_urgent=True) == BACK_OFF_S, "an answer ends the back-off"


def test_retry_after_is_believed_within_a_window() -> None:
    """The header is unconfirmed for Alpaca; a proxy may well send it, and may send nonsense."""
    for said, waited_s in (("7", 7), ("86400", WINDOW_S + RESET_MARGIN_S), ("soon", BACK_OFF_S)):
        quota = Quota()
        quota.sent(0)
        quota.answered(429, {"retry-after": said}, 0, 1_700_000_000)
        assert quota.wait_s(0, is_urgent=True) == waited_s


@given(st.integers(5, 200), st.floats(0, 59.9), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_a_key_that_others_use_too_never_meets_two_429s_in_a_row(
    limit: int, offset_s: float, seed: int
) -> None:
    """Somebody else takes a part of every minute, at moments that we do not know."""
    rng = random.Random(seed)
    broker = MadeUpBroker(limit, offset_s, lambda: rng.random() < 0.4)

    send(broker, Quota(), 240, lanes=1)

    assert not any(first == second == 429 for first, second in itertools.pairwise(broker.statuses))


def test_without_headers_there_is_no_limit() -> None:
    """A broker that states no limit is not paced."""
    quota = Quota()
    quota.sent(0)
    quota.answered(200, {}, 0, 1_700_000_000)
    for _ in range(50):
        assert quota.wait_s(0, is_urgent=False) == 0
        quota.sent(0)


def test_before_the_first_answer_one_request_asks() -> None:
    """Nobody knows the limit yet, so nobody storms; a lost answer lets the next one ask."""
    quota = Quota()
    quota.sent(0)
    assert quota.wait_s(0, is_urgent=True) > 0

    quota.answered(None, {}, 1, 1_700_000_001)
    assert quota.wait_s(1, is_urgent=True) == 0
