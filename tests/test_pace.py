"""When changes are handed on: at once after quiet, together while busy, all of them, and none too late.

A loop like those of the services runs in virtual time, with any changes and turns of any cost; each rule is
also shown to be broken by a pace that breaks it.
"""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime import pace
from portfolio_realtime.pace import COST_FACTOR, Pace

S_MIN, S_MAX = 0.01, 0.1
CLOSE_S = 1e-9
TURN_S, CHANGE_S = 0.0009, 0.000012  # a calculator's flush: for itself, and for each account in it

costs_s = st.lists(st.sampled_from([0.0, 0.0005, 0.002, 0.01, 0.03, 0.3]), min_size=1, max_size=6)
pauses_s = st.lists(st.sampled_from([0.0, 0.0001, 0.003, 0.02, 0.07, 0.5, 2.0]), min_size=1, max_size=60)


@dataclass(frozen=True)
class Turn:
    """One turn of the loop, and the changes that it handed on."""

    began_s: float
    ended_s: float
    changes: tuple[int, ...]


def turns_of(paced: Pace, changes_s: Sequence[float], turn_costs_s: Sequence[float]) -> list[Turn]:
    """What the loop does: it waits for a change and for its turn, and takes all that has changed by then."""
    turns: list[Turn] = []
    now_s, taken = 0.0, 0
    costs = itertools.cycle(turn_costs_s)
    while taken < len(changes_s):
        now_s = max(now_s, changes_s[taken])
        now_s += paced.wait_s(now_s)
        had = sum(change_s <= now_s for change_s in changes_s)
        ended_s = now_s + next(costs)
        turns.append(Turn(now_s, ended_s, tuple(range(taken, had))))
        paced.took(now_s, ended_s, had - taken)
        now_s, taken = ended_s, had
    return turns


def broken_rules(turns: Sequence[Turn], changes_s: Sequence[float]) -> set[str]:
    """Names of the rules that these turns break."""
    broken: set[str] = set()
    handed_on = [change for turn in turns for change in turn.changes]
    if handed_on != list(range(len(changes_s))):
        broken.add("every change, the last of a burst too, is handed on once")
    quiet_s = ended_s = float("-inf")
    cost_s = 0.0
    for number, turn in enumerate(turns):
        first_s = changes_s[turn.changes[0]]
        if first_s >= quiet_s and turn.began_s > first_s + CLOSE_S:
            broken.add("after quiet nothing waits")
        if turn.began_s - max(first_s, ended_s) > S_MAX + CLOSE_S and number:
            broken.add("nothing waits for longer than the maximum")
        if turn.began_s - ended_s < S_MIN - CLOSE_S:
            broken.add("turns keep the minimal rest")
        if turn.began_s - ended_s < min(S_MAX, COST_FACTOR * cost_s) - CLOSE_S:
            broken.add("what a turn costs is followed by as much rest")
        ended_s, cost_s = turn.ended_s, turn.ended_s - turn.began_s
        quiet_s = ended_s + S_MAX
    return broken


@given(pauses_s, costs_s)
def test_changes_are_handed_on_at_once_together_and_never_lost(
    pauses: list[float], turn_costs_s: list[float]
) -> None:
    """Over any history of changes and any costs of turns."""
    changes_s = list(itertools.accumulate(pauses))
    assert not broken_rules(turns_of(Pace(S_MIN, S_MAX), changes_s, turn_costs_s), changes_s)


def spent_s(processes: int, sharers: int, changes: int = 20_000, per_s: int = 4000) -> float:
    """What all turns of so many processes cost, each of which gets its part of the changes."""
    spent_s = 0.0
    for process in range(processes):
        changes_s = [number / per_s for number in range(process, changes, processes)]
        paced, now_s, taken = Pace(S_MIN / 2, S_MAX / 2), 0.0, 0
        while taken < len(changes_s):
            now_s = max(now_s, changes_s[taken])
            began_s = now_s + paced.wait_s(now_s)
            had = bisect.bisect_right(changes_s, began_s)
            now_s = began_s + TURN_S + (had - taken) * CHANGE_S
            paced.took(began_s, now_s, had - taken, sharers)
            spent_s, taken = spent_s + now_s - began_s, had
    return spent_s


@pytest.mark.parametrize("processes", [2, 3])
def test_those_who_share_the_work_spend_little_more_than_one(processes: int) -> None:
    """Each pays for its own turns, so each makes fewer; without that, two keep three quarters of one."""
    one_s = spent_s(1, 1)
    assert one_s / spent_s(processes, processes) >= 0.85
    assert one_s / spent_s(processes, 1) < 0.75


def test_a_crowd_shares_the_price_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten thousand changes a second; five hundred have as many turns as by their duration alone."""
    few_s, many_s = spent_s(1, 1, 1000, 500), spent_s(1, 1, 20_000, 10_000)
    monkeypatch.setattr(pace, "CROWD_S", 0.0)
    assert few_s == spent_s(1, 1, 1000, 500)
    assert many_s < 0.9 * spent_s(1, 1, 20_000, 10_000)


def test_a_turn_without_a_change_keeps_no_later_one_waiting() -> None:
    """But for the rest that its duration asks for: turns for nothing must leave time for other work."""
    paced = Pace(S_MIN, S_MAX)
    paced.took(1.0, 1.0, 0)
    assert paced.wait_s(1.0) == 0.0
    paced.took(1.0, 1.001, 0)
    assert paced.wait_s(1.001) == pytest.approx(COST_FACTOR * 0.001)
    for changes in (None, 1):
        paced.took(1.0, 1.0, changes)
        assert paced.wait_s(1.0) == pytest.approx(S_MIN)


class NeverAtOnce(Pace):
    """As a timer does it: every change waits for the interval."""

    rule: ClassVar = "after quiet nothing waits"

    def wait_s(self, now_s: float) -> float:
        return max(S_MIN, super().wait_s(now_s))


class Restless(Pace):
    """Each change has a turn of its own."""

    rule: ClassVar = "turns keep the minimal rest"

    def wait_s(self, now_s: float) -> float:
        return 0.0


class Careless(Pace):
    """A turn that costs much is followed by the next as soon as one that costs nothing."""

    rule: ClassVar = "what a turn costs is followed by as much rest"

    def took(self, began_s: float, ended_s: float, changes: int | None = None, sharers: int = 1) -> None:
        super().took(ended_s, ended_s, changes, sharers)


class Starving(Pace):
    """A turn that cost much keeps everybody waiting for many times as long."""

    rule: ClassVar = "nothing waits for longer than the maximum"

    def __init__(self, rest_s_min: float, rest_s_max: float) -> None:
        super().__init__(rest_s_min, 100 * rest_s_max)


@pytest.mark.parametrize("planted", [NeverAtOnce, Restless, Careless, Starving])
def test_a_pace_that_breaks_a_rule_is_found(
    planted: type[NeverAtOnce | Restless | Careless | Starving],
) -> None:
    """The rules can be broken: otherwise the test above shows nothing."""
    changes_s = [*(number / 1000 for number in range(100)), 3.0, 3.01, 3.5, 9.0]
    turns = turns_of(planted(S_MIN, S_MAX), changes_s, [0.0, 0.004, 0.0, 0.3])
    assert planted.rule in broken_rules(turns, changes_s)


def test_a_loop_that_drops_the_last_change_is_found() -> None:
    """A burst whose last change came during the last turn."""
    changes_s = [0.0, 0.001]
    (first, _) = turns_of(Pace(S_MIN, S_MAX), changes_s, [0.0])
    assert "every change, the last of a burst too, is handed on once" in broken_rules([first], changes_s)


def test_a_maximum_below_the_minimum_is_the_interval() -> None:
    """MARK_FLUSH_INTERVAL may be set that low."""
    paced = Pace(0.01, 0.005)
    paced.took(1.0, 1.0)
    assert paced.wait_s(1.0) == pytest.approx(0.005)
