"""Two days of `portfolio-realtime week`: the real services on a clock that is moved by hand."""

import io
from datetime import date
from typing import cast

from rich.console import Console

from portfolio_harness import trading_week

STOPS = tuple(
    stop
    for stop in trading_week.STOPS
    if stop[0] not in (trading_week.OPEN, trading_week.NIGHT, trading_week.BEFORE)
)
TUESDAY = date(2026, 11, 24)


async def test_every_account_equals_the_ledger_through_two_days_with_a_split_and_a_dividend() -> None:
    """Around both rolls: deposits on both sides of the cut-off, late corrections, an instant deposit."""
    lived = await trading_week.live_through(TUESDAY, days=2, seed=7, stops=STOPS)

    assert [(day.day, day.session, day.books) for day in lived.days] == [
        ("2026-11-24", "full", "2026-11-24"),
        ("2026-11-25", "full", "2026-11-25"),
    ]
    assert [(day.day, check) for day in lived.days for check in day.checks if check.differing] == []
    assert lived.is_clean
    assert [len(day.checks) for day in lived.days] == [
        len(STOPS) + 1,
        len(STOPS),
    ]  # one while a split is under way
    assert {check.compared for day in lived.days for check in day.checks} == {trading_week.ACCOUNTS}
    told = " ".join(lived.story)
    assert all(part in told for part in ("split", "pays", "MEM", "corrected", "busted", "CSW"))
    shown = Console(width=120, file=io.StringIO())
    shown.print(trading_week.table(lived))
    assert "Wed 2026-11-25" in cast("io.StringIO", shown.file).getvalue()
