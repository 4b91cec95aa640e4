"""Two fault trials against the whole system: several faults at once, and an outage of market data."""

import io
from typing import cast

from rich.console import Console

from portfolio_harness import fault_trials


async def test_every_account_equals_the_ledger_after_faults_and_every_client_is_told_of_an_outage() -> None:
    """The short version of `make faults`; a failure is repeated with `make replay SEED=N`."""
    held = await fault_trials.hold(2, seed=9, duration_s=6, systems=1)

    assert [trial.seed for trial in held] == [9, 10]
    assert [trial for trial in held if not trial.is_clean] == []
    assert held[0].kinds
    assert held[1].is_outage
    shown = Console(width=120, file=io.StringIO())
    shown.print(fault_trials.table(held))
    assert "market.half_open" in cast("io.StringIO", shown.file).getvalue()
