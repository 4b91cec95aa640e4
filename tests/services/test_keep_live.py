"""When the broker counts as heard, and when not any more, with a clock of the test."""

from collections.abc import Callable, Iterator
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest

from portfolio_realtime.clock import Clock
from portfolio_realtime.state.feeds import ACCOUNTS
from portfolio_realtime.symbol_collector import broker_silence
from portfolio_realtime.symbol_collector.broker_silence import BEHIND_S, KEEP_S, Heard, keep_live

STEP_S = 0.01


class EndedError(Exception):
    """Every look has been taken."""


async def told(monkeypatch: pytest.MonkeyPatch, *seen: tuple[Heard, float]) -> list[tuple[str, float]]:
    """What is done with the broker's key, and after how many seconds; `seen`: what is seen, for so long."""
    monkeypatch.setattr(broker_silence, "LOOK_S", 0)
    now_s, done = 0.0, list[tuple[str, float]]()

    def looks() -> Iterator[Heard]:
        nonlocal now_s
        for heard, for_s in seen:
            ends_s = now_s + for_s
            while now_s < ends_s:
                yield heard
                now_s += STEP_S
        raise EndedError

    def note(what: str) -> Callable[[str], None]:
        def noted(source: str) -> None:
            assert source == ACCOUNTS
            done.append((what, round(now_s, 2)))

        return noted

    stored = Mock(keep=AsyncMock(side_effect=note("keep")), drop=AsyncMock(side_effect=note("drop")))
    clock = cast("Clock", Mock(monotonic_s=lambda: now_s))
    each = looks()
    with pytest.raises((EndedError, RuntimeError)):
        await keep_live(lambda: next(each), cast("Any", stored), Mock(), clock)
    return done


async def test_what_a_former_owner_has_kept_is_dropped_by_who_does_not_hear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The former owner's last word would count for 2 s more."""
    assert await told(monkeypatch, (Heard.AWAY, 5.0)) == [("drop", 0.0)]
    later = await told(monkeypatch, (Heard.LIVE, 1.0), (Heard.AWAY, 1.0))
    assert later == [("keep", 0.0), ("keep", KEEP_S), ("drop", 1.0)]


async def test_one_account_behind_marks_all_only_if_its_statement_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each mark of all accounts costs every client two messages; a statement is nearly always sooner."""
    soon = await told(monkeypatch, (Heard.BEHIND, BEHIND_S - 0.1), (Heard.LIVE, 0.1), (Heard.BEHIND, 0.4))
    assert [what for what, _ in soon] == ["keep"]
    late = await told(monkeypatch, (Heard.BEHIND, 2.0), (Heard.LIVE, 0.1))
    assert late == [("drop", BEHIND_S), ("keep", 2.0)]
