"""What a load test's exit code is made from: each goal that is not reached is named with figure and limit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from portfolio_harness.goals import Goal, failed, growth_max_ms
from portfolio_harness.loadtest import Load, Plan, Storm, goals, unexplained

PLAN = Plan(connections=10, rate=1, duration_s=20)
GOOD = Load(
    connections=10,
    client_processes=1,
    accounts=10,
    stalled=0,
    rate=1,
    duration_s=20,
    known_s=1,
    connected_s=1,
    connects_per_s=10,
    messages=200,
    messages_per_s=10,
    lag_ms_p50=20,
    lag_ms_p99=250,
    lag_ms_p99_first_quarter=150,
    lag_ms_p99_last_quarter=225,
    delivery_ms_p50=10,
    delivery_ms_p99=100,
    first_value_ms_p50=10,
    first_value_ms_p99=60,
    gaps=3,
    gaps_behind=3,
    gaps_stalled=7,
    conflated=3,
    gaps_unexplained=0,
    regressions=0,
    leaks=0,
    unreadable=0,
    reconnects=0,
    reconnects_stalled=4,
    slow_consumers=4,
    mismatches=0,
    converged_s=1,
    close_codes={},
    cpu_cores={},
    storm=Storm(10, "the server is killed", cut=10, back=10, back_s_p50=1, back_s_p99=9, back_s_max=15),
)
STORM = GOOD.storm
assert STORM is not None


def names(load: Load, plan: Plan = PLAN) -> list[str]:
    """Of the goals that this load failed."""
    return [goal.name for goal in failed(goals(load, plan))]


def test_a_load_at_all_its_limits_has_failed_nothing() -> None:
    """What is no goal, such as the gaps of stalled clients, is not judged."""
    assert names(GOOD) == []
    assert GOOD.failed == []


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        ({"messages": 0}, "messages"),
        ({"lag_ms_p99": 250.5}, "lag_ms_p99"),
        ({"lag_ms_p99": 0}, "lag_ms_p99"),  # nothing was measured
        ({"lag_ms_p99_last_quarter": 225.5}, "lag_growth_ms_p99"),
        ({"gaps_unexplained": 1}, "gaps_unexplained"),
        ({"regressions": 1}, "regressions"),
        ({"leaks": 1}, "leaks"),
        ({"unreadable": 1}, "unreadable"),
        ({"reconnects": 1}, "reconnects"),
        ({"mismatches": 1}, "mismatches"),
        ({"storm": replace(STORM, cut=9)}, "storm_cut"),
        ({"storm": replace(STORM, back=9)}, "storm_back"),
        ({"storm": replace(STORM, back_s_max=15.1)}, "storm_back_s"),
    ],
)
def test_each_goal_fails_alone_and_by_name(changed: dict[str, Any], failing: str) -> None:
    """One figure beyond its limit is one goal."""
    assert names(replace(GOOD, **changed)) == [failing]


def test_limits_are_the_ones_asked_for() -> None:
    """`--p99-ms` and `--storm-back-s`; with a chart, which looks for the limit, lag is not judged."""
    strict = replace(PLAN, p99_ms_max=249, storm_back_s_max=14)
    slow = replace(GOOD, lag_ms_p99=400, lag_ms_p99_last_quarter=900)

    assert names(GOOD, strict) == ["lag_ms_p99", "storm_back_s"]
    assert names(slow) == ["lag_ms_p99", "lag_growth_ms_p99"]
    assert names(slow, replace(PLAN, chart=Path("lag.svg"))) == []
    assert names(replace(slow, duration_s=7)) == ["lag_ms_p99"]  # too short to see lag grow


def test_a_goal_says_figure_and_limit() -> None:
    """A figure that nobody could measure is no success."""
    assert str(Goal("lag_ms_p99", 312.5, 250)) == "lag_ms_p99: 312.5, must be at most 250"
    assert str(Goal("back", 9, 10, is_minimum=True)) == "back: 9, must be at least 10"
    assert not Goal("ratio", None, 1.5).is_met
    assert not Goal("ratio", None, 0, is_minimum=True).is_met


@pytest.mark.parametrize(
    ("gaps", "behind", "conflated", "expected"),
    [
        (5, 5, 5, 0),
        (5, 5, 9, 0),
        (5, 5, 4, 1),  # more than the server left out
        (5, 3, 9, 2),  # two of them were not behind
        (5, 5, None, 5),  # nobody can say
        (0, 0, None, 0),
    ],
)
def test_a_gap_is_explained_by_the_client_and_the_server_together(
    gaps: int, behind: int, conflated: int | None, expected: int
) -> None:
    """Either alone explains nothing."""
    assert unexplained(gaps, behind, conflated) == expected


@pytest.mark.parametrize(("first_ms", "limit_ms"), [(0, 62.5), (100, 62.5), (153, 76.5), (200, 100)])
def test_lag_may_grow_by_half_or_a_quarter_of_the_goal(first_ms: float, limit_ms: float) -> None:
    """Whichever is more: little lag goes up and down by much."""
    assert growth_max_ms(first_ms, 250) == limit_ms
