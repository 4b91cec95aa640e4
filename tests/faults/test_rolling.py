"""Two servers behind HAProxy: a deploy restarts one after the other, a disaster kills both at once.

The same at any size: `portfolio-realtime loadtest --rolling`, `portfolio-realtime loadtest --storm`.
"""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from portfolio_harness.rolling_restart import Rolled, Scene, behind_haproxy, haproxy_program, roll, storm
from portfolio_realtime.errors import SettingsError
from tests.conftest import KIND
from tests.interoperability.programs import lacking

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTIONS, ACCOUNTS = 60, 30
WITHOUT_S_MAX = 30.0  # a loaded machine; what P8 promises is measured by the command


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncGenerator[Scene]:
    """One scene for all tests here: bringing it up takes longest."""
    try:
        haproxy_program()
    except SettingsError as missing:
        lacking(str(missing))
    async with behind_haproxy(CONNECTIONS, ACCOUNTS, valkey=KIND) as ready:
        yield ready


def check_everybody_is_back(seen: Rolled) -> None:
    assert seen.never_back == 0
    assert seen.without_s_max < WITHOUT_S_MAX
    assert seen.regular > CONNECTIONS / 2
    assert seen.silence_s_max is not None
    assert 0 < seen.silence_s_max < WITHOUT_S_MAX
    assert (seen.gaps, seen.regressions, seen.leaks, seen.mismatches) == (0, 0, 0, 0)


async def test_a_rolling_restart_asks_every_client_to_move_and_loses_nobody(scene: Scene) -> None:
    """P8. Every connection of the restarted servers ends with 4001: none is cut."""
    rolled = await roll(scene)

    check_everybody_is_back(rolled)
    assert rolled.restarts == 2
    assert rolled.moved >= CONNECTIONS
    assert rolled.close_codes.get("4001") == rolled.moved
    assert set(rolled.close_codes) <= {"4001", "503", "4007"}  # of a server that has just begun or ends


async def test_after_a_storm_every_client_has_a_right_value_again(scene: Scene) -> None:
    """Both servers are killed: all clients come back at once."""
    stormed = await storm(scene)

    check_everybody_is_back(stormed)
    assert stormed.moved >= CONNECTIONS


async def test_without_haproxy_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started."""

    def which(_: str, **where: str) -> str | None:
        return found if where else None

    found: str | None = None
    monkeypatch.setattr("shutil.which", which)
    with pytest.raises(SettingsError, match="apt-get install haproxy"):
        async with behind_haproxy(1, 1):
            pass
    found = "haproxy"
    monkeypatch.setattr("portfolio_harness.rolling_restart.CONFIG", tmp_path / "haproxy.cfg")
    with pytest.raises(SettingsError, match=r"no .*haproxy\.cfg"):
        haproxy_program()
