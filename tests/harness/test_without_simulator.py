"""Systems that begin badly, and a load test of one whose simulator is out of reach."""

import pytest

from portfolio_harness import loadtest, system
from portfolio_harness.system import running, simulator_options
from portfolio_realtime.errors import SettingsError


@pytest.mark.slow
async def test_accounts_that_are_named_are_watched_and_nothing_is_compared() -> None:
    """Order, gaps and leaks count; that nothing was compared is told by null, not by 0."""
    options = simulator_options(accounts=3, symbols=10, trades_per_second=20, seed=7)
    overrides = {"LOG_LEVEL": "warning", "MIN_UPDATE_INTERVAL": "0.5"}
    async with running(options, port=0, overrides=overrides) as system:
        account_ids = await system.oracle.account_ids()
        plan = loadtest.Plan(connections=4, rate=2, duration_s=3, p99_ms_max=60_000)

        load = await loadtest.on_running_system(system.url, None, account_ids[:2], system.token_for, plan)

    assert (load.connections, load.accounts) == (4, 2)
    assert load.messages > 0
    assert (load.mismatches, load.converged_s) == (None, None)
    assert [goal.name for goal in load.failed] == []


@pytest.mark.slow
async def test_a_setting_that_services_refuse_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the services' own words; nobody waits for what cannot get ready."""
    monkeypatch.setattr(system, "READY_S_MAX", 10_000.0)
    options = simulator_options(accounts=1, symbols=5, trades_per_second=0, seed=7)
    with pytest.raises(SettingsError, match="refuses its settings"):
        async with running(options, port=0, overrides={"API_KEY_SECRET": "short"}):
            pass
