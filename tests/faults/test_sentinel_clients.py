"""The four services under Sentinels, with clients: the primary is handed over, then killed.

`python -m pytest -s -m drill tests/faults/test_sentinel_clients.py` prints the table of docs/reliability.md.
"""

from pathlib import Path
from typing import Final

import pytest

from tests.conftest import Until
from tests.support.regular import until_regular
from tests.support.sentinels import NAME, watched

from .failover_stages import SILENT_S_MAX, Change, staged

ELECTED_S_MAX: Final = 60.0


@pytest.mark.drill
@pytest.mark.timeout(600)
async def test_the_primary_changes_and_nobody_is_cut_off_or_goes_back(tmp_path: Path, until: Until) -> None:
    """Handed over while it lives on, then killed without a word: silence, closes, order, values."""
    async with watched(tmp_path) as group:
        settings = {"REDIS_SENTINELS": group.places, "REDIS_SENTINEL_MASTER": NAME}
        async with staged(lambda _: settings) as stage:
            clients, pids = stage.clients, stage.pids

            async def hold(name: str, change: Change) -> None:
                await until_regular(clients, until)
                regular = [one for one in clients.all if one.is_regular]
                before = await group.primary_port()
                await change()

                async def has_moved() -> bool:
                    return await group.primary_port() != before

                await until(has_moved, "the Sentinels have another primary", ELECTED_S_MAX)
                orders = {one.account_id: one.order for one in regular}
                await until(
                    lambda: all(one.order > orders[one.account_id] for one in regular),
                    "all of them have newer values",
                    SILENT_S_MAX,
                )
                await until(lambda: not any(one.stale_hops for one in clients.all), "live", SILENT_S_MAX)
                await stage.judge(name)
                assert stage.pids == pids, "a service has ended"

            print("\n| the primary | worst silence s | all equal after s | cut |")
            await hold("is handed over (SENTINEL FAILOVER)", group.hand_over)
            await group.kill_first_sentinel()
            await hold("is killed, and the first Sentinel before it", group.kill_primary)
