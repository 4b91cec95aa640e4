"""What operators type about users reaches the state, or says what to do."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from portfolio_realtime import config
from portfolio_realtime.cli import users
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.state import State
from portfolio_realtime.state.revocations import SubjectRevocation, TokenRevocation


def settings(state: State | None, **more: Any) -> config.Settings:
    url = state.connection.url if state else ""
    return config.load(**{"_env_file": None, "redis_url": url, "redis_host": "", **more})


async def test_the_command_revokes(state: State, tmp_path: Path) -> None:
    """It prints what it has written."""
    command = [sys.executable, "-m", "portfolio_realtime", "revoke", "--subject", "alice"]
    environment = {**os.environ, "REDIS_URL": state.connection.url}
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, cwd=tmp_path, env=environment, timeout=60, check=True
    )
    _, (found,) = await state.revocations.read_after("0")
    assert isinstance(found, SubjectRevocation)
    assert found.subject == "alice"
    assert json.loads(done.stdout)["issued_until_s"] == found.issued_until_s


async def test_a_token_is_revoked_under_its_issuer(state: State) -> None:
    """JWT_ISSUER, or the one that is named."""
    await users.revoke(settings(state, jwt_issuer="bank"), token_id="t-1")
    await users.revoke(settings(state, jwt_issuer="bank"), token_id="t-1", issuer="other")
    _, found = await state.revocations.read_after("0")
    assert found == [TokenRevocation("bank", "t-1"), TokenRevocation("other", "t-1")]


@pytest.mark.parametrize("what", [{}, {"subject": "alice", "token_id": "t-1"}])
async def test_what_to_revoke_must_be_said(state: State, what: dict[str, str]) -> None:
    """Exactly one of two."""
    with pytest.raises(SettingsError, match="--subject SUBJECT or --token-id JTI"):
        await users.revoke(settings(state), **what)


async def test_an_embedded_valkey_cannot_be_reached_from_outside() -> None:
    """It would be another one."""
    with pytest.raises(SettingsError, match="REDIS_HOST or REDIS_URL"):
        await users.revoke(settings(None), subject="alice")


async def test_entitlements_that_nobody_reads_are_not_written(state: State) -> None:
    """With the setting that makes them count they are, and none means nothing."""
    with pytest.raises(SettingsError, match="ACCOUNT_ACCESS=entitlements"):
        await users.entitle(settings(state), "alice", ["a"])
    counting = settings(state, account_access="entitlements")
    await users.entitle(counting, "alice", ["a", "b"])
    assert await state.entitlements.read(["alice"]) == {"alice": frozenset({"a", "b"})}
    await users.entitle(counting, "alice", [])
    assert await state.entitlements.read(["alice"]) == {"alice": frozenset()}
