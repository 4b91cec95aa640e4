"""What `wire` does: which version of the wire each process reads and writes, and holding one."""

import asyncio
from typing import Final

from portfolio_realtime.cli.users import opened_state
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.state.agreement import NEWEST, OLDEST, WAITING, WireProcess

POLL_S: Final = 1.0
HELD_S_MAX: Final = 20.0  # processes hear of it within 2 s, those that have ended count for 15 s


async def processes(settings: Settings) -> list[WireProcess]:
    """All processes, by name. Raises SettingsError, StateUnavailable."""
    async with opened_state(settings) as state:
        return sorted([*await state.wire.read(), *await state.agreement.earlier()])


async def hold(settings: Settings, version: int, hours: float) -> list[WireProcess]:
    """Let nobody write a version above this one for some hours.

    Returns the processes once all of them write it, at the latest after HELD_S_MAX. Raises SettingsError,
    StateUnavailable.
    """
    if not OLDEST <= version <= NEWEST:
        raise SettingsError(f"--hold {version}: this release writes the versions {OLDEST} to {NEWEST}")
    async with opened_state(settings) as state:
        await state.wire.hold(version, hours)
    waited_s = 0.0
    while is_above(found := await processes(settings), version) and waited_s < HELD_S_MAX:
        await asyncio.sleep(POLL_S)
        waited_s += POLL_S
    return found


async def release(settings: Settings) -> list[WireProcess]:
    """End what `hold` began; return all processes. Raises SettingsError, StateUnavailable."""
    async with opened_state(settings) as state:
        await state.wire.release()
    return await processes(settings)


def is_above(found: list[WireProcess], version: int) -> bool:
    """Whether any process writes a higher version."""
    return any(one.writes > version for one in found)


def line(one: WireProcess) -> str:
    """A process as one line for people."""
    writes = "waits" if one.writes == WAITING else f"writes {one.writes}"
    return f"{one.name:60} reads {one.oldest} to {one.newest}   {writes}"
