"""`portfolio-realtime wire` shows which versions of the wire are read and written, and holds one."""

import asyncio
import os
import subprocess
import sys

import pytest

from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.agreement import AGREED_MS, HOLD, NEWEST, OLDEST, WIRE
from tests.conftest import SHARDS

SETTINGS, UNPROVEN = 2, 3


async def run(url: str, *options: str) -> tuple[int, str]:
    """The command's exit code and what it prints."""
    command = [sys.executable, "-m", "portfolio_realtime", "wire", *options]
    environment = {"PATH": os.environ["PATH"], "REDIS_URL": url}
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False, timeout=90
    )
    return done.returncode, done.stdout + done.stderr


async def test_processes_are_shown(state: State, valkey_url: str) -> None:
    """Those that say it, and one of an earlier release."""
    await state.connection.commands.delete(keys.wire(), keys.settings())
    other = open_state(valkey_url, holder="websocket_server:host", shards=SHARDS, lease_ms=1000)
    assert await other.wire.begin(0.0) is None
    await other.close()
    await state.connection.commands.set(keys.settings(), f"{WIRE}=3", px=AGREED_MS)
    code, shown = await run(valkey_url)
    assert code == 0
    earlier, server = shown.splitlines()
    assert earlier.startswith("a process of an earlier release ")
    assert earlier.endswith("reads 3 to 3   writes 3")
    assert server.startswith("websocket_server:host ")
    assert server.endswith(f"reads {OLDEST} to {NEWEST}   writes {NEWEST}")
    await state.connection.commands.delete(keys.wire(), keys.settings())


async def test_a_version_is_held_until_it_is_released(state: State, valkey_url: str) -> None:
    """It says whether all follow; one that nobody here can write is refused."""
    await state.connection.commands.delete(keys.wire())
    code, shown = await run(valkey_url, "--hold", str(OLDEST), "--hours", "2")
    assert code == 0
    assert shown.split()[0] == HOLD
    assert [one.name for one in await state.wire.read()] == [HOLD]
    entry = f"{NEWEST} {NEWEST} {NEWEST + 1} 9999999999999"  # one that does not hear of it
    await state.connection.commands.hset(keys.wire(), "deaf", entry)
    code, _ = await run(valkey_url, "--hold", str(OLDEST))
    assert code == UNPROVEN
    code, _ = await run(valkey_url, "--release")
    assert code == 0
    assert HOLD not in {one.name for one in await state.wire.read()}
    code, shown = await run(valkey_url, "--hold", str(NEWEST + 1))
    assert code == SETTINGS
    assert f"versions {OLDEST} to {NEWEST}" in shown
    await state.connection.commands.delete(keys.wire())


@pytest.mark.parametrize(
    "options",
    [
        ("--hold", "4", "--release"),
        ("--hours", "2"),
        ("--hold", "4", "--hours", "nan"),
        ("--hold", "4", "--hours", "inf"),
        ("--hold", "4", "--hours", "1e9"),
        ("--hold", "4", "--hours", "-1"),
        ("--hold", "0"),
        ("--hold", "-1"),
    ],
)
async def test_what_cannot_be_meant_is_refused(valkey_url: str, options: tuple[str, ...]) -> None:
    """Before anything is written, in words."""
    code, shown = await run(valkey_url, *options)
    assert code == SETTINGS
    assert "Traceback" not in shown
    assert "--ho" in shown


async def test_a_refusal_of_valkey_is_no_failure_to_try_again(valkey_url: str) -> None:
    """As of the services: trying again does not help."""
    wrong = valkey_url.replace("redis://", "redis://nobody:wr0ng-pw@")
    code, shown = await run(wrong)
    assert code == SETTINGS
    assert "REDIS_URL" in shown
    assert "wr0ng-pw" not in shown
