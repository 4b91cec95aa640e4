"""A rolling upgrade, and back: processes of two releases side by side, under clients.

`python -m pytest -s -m 'drill or not drill' tests/upgrade/test_upgrade.py` prints the tables of
docs/reliability.md.
"""

from pathlib import Path
from typing import Final

import pytest

from portfolio_harness.rolling_restart import haproxy_program
from portfolio_harness.system import kept
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.state.agreement import NEWEST
from tests.conftest import KIND, Until
from tests.interoperability.programs import lacking

from .fleet import CALCULATOR, COLLECTOR, CONSUMER, SERVER, Upgrade, one_of_each, two_of, upgrading
from .releases import earlier_release, next_release, this_release

SILENT_S_MAX: Final = 20.0  # 5 s on a machine that has time
RAISED_S_MAX: Final = 60.0
HEAD: Final = (
    "\n| | collector | consumer | calculator | server | all equal after s | cut |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)
DOWNSTREAM: Final = (COLLECTOR, CONSUMER, CALCULATOR, SERVER)
ORDERS: Final = {
    "downstream": two_of(*DOWNSTREAM),
    "upstream": two_of(*reversed(DOWNSTREAM)),
    "one of each first": one_of_each(CALCULATOR, SERVER, CONSUMER, COLLECTOR),
}


@pytest.fixture(autouse=True)
def _needs_haproxy() -> None:
    try:
        haproxy_program()
    except SettingsError as missing:
        lacking(str(missing))


async def _until_written(upgrade: Upgrade, version: int, until: Until) -> None:
    async def is_written() -> bool:
        return await upgrade.fleet.writes() == {version}

    await until(is_written, f"all write version {version}", RAISED_S_MAX)


@pytest.mark.timeout(600)
async def test_to_a_release_with_another_wire_and_back(tmp_path: Path, until: Until) -> None:
    """The new format is written once the last old process has gone; the first one that comes back ends it."""
    print(HEAD)
    async with kept(KIND) as valkey, upgrading(valkey, this_release(), tmp_path, until) as upgrade:
        order, after = ORDERS["one of each first"], next_release(tmp_path)
        assert await upgrade.roll("to the next release", after, order) < SILENT_S_MAX
        assert NEWEST in await upgrade.fleet.writes()
        await _until_written(upgrade, NEWEST + 1, until)
        assert await upgrade.roll("back", this_release(), order) < SILENT_S_MAX
        await _until_written(upgrade, NEWEST, until)


@pytest.mark.drill
@pytest.mark.timeout(1800)
async def test_in_every_order(tmp_path: Path, until: Until) -> None:
    """Up and back, in three orders."""
    print(HEAD)
    async with kept(KIND) as valkey, upgrading(valkey, this_release(), tmp_path, until) as upgrade:
        after = next_release(tmp_path)
        for name, order in ORDERS.items():
            assert await upgrade.roll(f"{name}, up", after, order) < SILENT_S_MAX
            await _until_written(upgrade, NEWEST + 1, until)
            assert await upgrade.roll(f"{name}, back", this_release(), order) < SILENT_S_MAX


@pytest.mark.drill
@pytest.mark.timeout(1800)
async def test_from_the_last_release_that_ran_beside_no_other_and_back(tmp_path: Path, until: Until) -> None:
    """It says nothing about what it reads, and works only where its own version is written."""
    before = earlier_release(tmp_path)
    print(HEAD)
    async with kept(KIND) as valkey, upgrading(valkey, before, tmp_path, until) as upgrade:
        for name, order in ORDERS.items():
            assert await upgrade.roll(f"{name}, up", next_release(tmp_path / name), order) < SILENT_S_MAX
            await _until_written(upgrade, NEWEST + 1, until)
            await upgrade.fleet.state.wire.hold(NEWEST, hours=1)
            await until(lambda: _is_held(upgrade), "all write the old version", RAISED_S_MAX)
            assert await upgrade.roll(f"{name}, back", before, order) < SILENT_S_MAX
            await upgrade.fleet.state.wire.release()


async def _is_held(upgrade: Upgrade) -> bool:
    return max(await upgrade.fleet.writes()) <= NEWEST
