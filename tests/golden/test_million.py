"""Every published cent is the exact one, half-cent ties included; the first batches of `million`."""

import pytest

from .million import run

BATCHES = 3


@pytest.mark.no_cover  # tracing would take most of the time
def test_two_hundred_thousand_published_figures_are_the_exact_cents() -> None:
    """Equity, day P&L and every position's market value, as a client reads them, equal the oracle's."""
    tally = run(BATCHES)
    print(tally.text)
    assert tally.figures >= 200_000
    assert tally.ties > 2_000
    assert 0 < tally.exact_accounts < tally.accounts, "both ways to a cent must have been walked"
