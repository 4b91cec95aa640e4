"""P7 as a command: readers that really stall, and what is said of those beside them; time is not judged."""

from dataclasses import replace
from typing import Any

import pytest

from portfolio_harness import slow_readers as module
from portfolio_harness.slow_readers import Isolation, Share, isolate, judged

CONNECTIONS = 60
BASE = Share(
    share=0.0,
    stalled=0,
    full_after_s=None,
    messages=100,
    lag_ms_p50=20,
    lag_ms_p99=100,
    ratio=None,
    slow_consumers=0,
    rss_mb_start=90,
    rss_mb_peak=100,
    rss_mb_end=100,
    rss_mb_max=0,
    gaps=0,
    regressions=0,
    leaks=0,
    unreadable=0,
    reconnects=0,
)
HALF = replace(
    BASE, share=0.5, stalled=16, full_after_s=5, lag_ms_p99=150, slow_consumers=16, rss_mb_peak=110
)


def failing(half: Share, base: Share = BASE, mismatches: int = 0) -> list[str]:
    """Names of the goals that a run with these shares failed."""
    return [goal.name for goal in judged(Isolation(32, 32, 10, [base, half], mismatches)).failed]


def test_ratio_and_memory_are_those_beside_nobody_stalled() -> None:
    """The limits themselves are still good."""
    _, half = judged(Isolation(32, 32, 10, [BASE, HALF], 0)).shares

    assert half.ratio == 1.5
    assert half.rss_mb_max == 100 + module.MEMORY_MB_MAX + 16 * module.STALLED_MB_MAX == 110
    assert failing(HALF) == []


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"lag_ms_p99": 151}, ["p99 ratio, 50% stalled"]),
        ({"lag_ms_p99": 0}, ["p99 ratio, 50% stalled"]),  # nothing was measured
        ({"messages": 0}, ["messages, 50% stalled"]),
        ({"slow_consumers": 15}, ["4002 closings, 50% stalled"]),  # then not all of them really stalled
        ({"rss_mb_peak": 110.1}, ["server's MB, 50% stalled"]),
        ({"gaps": 1, "leaks": 1}, ["gaps, 50% stalled", "leaks, 50% stalled"]),
        ({"regressions": 1, "unreadable": 1}, ["regressions, 50% stalled", "unreadable, 50% stalled"]),
        ({"reconnects": 1}, ["reconnects, 50% stalled"]),
    ],
)
def test_what_stalled_readers_do_to_the_others_is_judged_by_name(
    changed: dict[str, Any], names: list[str]
) -> None:
    """One figure beyond its limit is one goal."""
    assert failing(replace(HALF, **changed)) == names


def test_without_a_figure_to_compare_with_nothing_is_proved() -> None:
    """And a client that reads shows the oracle's value at quiet, whatever else holds."""
    assert failing(HALF, replace(BASE, lag_ms_p99=0)) == ["p99 ratio, 50% stalled"]
    assert failing(HALF, mismatches=1) == ["mismatches"]


@pytest.mark.drill
async def test_readers_really_stall_and_cost_the_others_nothing_but_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every stalled reader is cut with 4002; nobody else loses a frame or the connection."""
    monkeypatch.setattr(module, "SHARES", (0.0, 0.5))

    found = await isolate(
        *(CONNECTIONS, CONNECTIONS), symbols=50, rate=10, duration_s=3, trades_per_second=None, seed=7
    )

    nobody, half = found.shares
    assert [goal.name for goal in found.failed if "ratio" not in goal.name] == []
    assert (nobody.stalled, half.stalled) == (0, CONNECTIONS / 2)
    assert (nobody.full_after_s, nobody.slow_consumers) == (None, 0)
    assert half.full_after_s is not None
    assert half.slow_consumers >= CONNECTIONS / 2
    assert half.ratio is not None
    assert 0 < half.rss_mb_start <= half.rss_mb_peak
    assert 0 < half.rss_mb_end <= half.rss_mb_peak
