"""Losing Valkey entirely loses no revocation: it is written again, or nobody is let in on it.

Real servers and a real Valkey that is killed and comes back empty; the operator's commands are programs.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime.state import keys
from tests.conftest import Until
from tests.security.conftest import opened
from tests.support.websocket_servers import SECRET, Served, serving, write_accounts

AGE_S = 30  # of the tokens that were issued before


def issued(subject: str, age_s: int = AGE_S) -> dict[str, str]:
    """A token that was issued so long ago."""
    now_s = int(time.time())
    claims = {"sub": subject, "accounts": ["a"], "iat": now_s - age_s, "exp": now_s + 600}
    return {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}


async def status(server: Served, headers: dict[str, str]) -> int:
    """401, or 200: a ticket, which depends on nothing but the credentials."""
    return (await server.http.post("/v1/tickets", headers=headers)).status_code


async def operate(url: str, *arguments: str | Path, code: int = 0) -> str:
    """Run a command of `portfolio-realtime`; what it prints."""
    command = [sys.executable, "-m", "portfolio_realtime", *map(str, arguments)]
    environment = {"PATH": os.environ["PATH"], "REDIS_URL": url, "ACCOUNT_ACCESS": "entitlements"}
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


async def come_back_empty(valkey: Valkeys) -> None:
    """Killed, and another one in its place that holds nothing."""
    await valkey.kill()
    await valkey.start()
    async with opened(valkey.url) as state:
        # Not its size: a server that runs may have written to it already.
        assert (await state.connection.commands.info("persistence"))["rdb_last_load_keys_loaded"] == 0
        await write_accounts(state, "a")


@pytest.fixture
async def established(mortal_valkey: Valkeys) -> Valkeys:
    """A Valkey of which the operator has said that nothing was revoked before."""
    await operate(mortal_valkey.url, "revocations", "restore", "--none")
    return mortal_valkey


async def test_p12_a_revoked_token_stays_out_of_a_new_server(
    established: Valkeys, tmp_path: Path, until: Until
) -> None:
    """Nobody is let in on an older token until the saved file is written again; the revoked one never."""
    leaver, stayer = issued("leaver"), issued("stayer")
    url, saved = established.url, tmp_path / "revocations.json"
    async with serving(url, redis_url=url) as server:
        assert await status(server, leaver) == 200
        await operate(url, "revoke", "--subject", "leaver")
        await operate(url, "entitle", "owner", "a", "b")

        async def is_out() -> bool:
            return await status(server, leaver) == 401

        await until(is_out, "the running server has heard it")
        assert "1 revocations, 1 entitlements" in await operate(url, "revocations", "save", saved)
    assert saved.stat().st_mode & 0o777 == 0o600

    await come_back_empty(established)
    async with serving(url, redis_url=url) as server:
        assert await status(server, leaver) == 401
        assert await status(server, stayer) == 401, "nobody can tell"
        assert await status(server, issued("stayer", age_s=-1)) == 200, "who logs in again comes in"
        assert "revoke again what was revoked since" in await operate(url, "revocations", "restore", saved)

        async def is_in() -> bool:
            return await status(server, stayer) == 200

        await until(is_in, "it is known again what was revoked")
        assert await status(server, leaver) == 401
    async with opened(url) as state:
        assert await state.entitlements.read(["owner"]) == {"owner": frozenset({"a", "b"})}


async def test_p12_a_running_server_makes_good_what_valkey_has_lost(
    established: Valkeys, until: Until
) -> None:
    """It writes again what it knows; a new server beside it refuses the same, and lets the same in."""
    leaver, stayer = issued("leaver"), issued("stayer")
    url = established.url
    async with serving(url, redis_url=url) as server:
        await operate(url, "revoke", "--subject", "leaver")

        async def is_out() -> bool:
            return await status(server, leaver) == 401

        await until(is_out, "the running server has heard it")
        await come_back_empty(established)

        async def is_restored() -> bool:
            async with opened(url) as state:
                return len(await state.revocations.read_all()) == 1

        await until(is_restored, "the revocation is written again")
        async with serving(url, redis_url=url) as new:
            assert await status(new, leaver) == 401
            assert await status(new, stayer) == 200


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("", "was not written by `revocations save`"),
        ("{}", "was not written by `revocations save`"),
        ({"format": "other 2"}, "this version reads 'portfolio-realtime revocations 1'"),
        ({"revocations": [{"type": "token", "issuer": 5}]}, "was not written by `revocations save`"),
    ],
)
async def test_a_file_that_is_none_of_ours_changes_nothing(
    valkey_url: str, tmp_path: Path, content: Any, said: str
) -> None:
    """It is refused with its name, before anything is said to be complete."""
    path = tmp_path / "file.json"
    if isinstance(content, dict):
        whole = {
            "format": "portfolio-realtime revocations 1",
            "saved_s": 1,
            "revocations": [],
            "entitlements": {},
        }
        path.write_text(json.dumps({**whole, **content}))
    elif content is not None:
        path.write_text(content)
    async with opened(valkey_url) as state:
        await state.revocations.confirm(1234)
        printed = await operate(valkey_url, "revocations", "restore", path, code=2)

        assert said in printed and path.name in printed
        assert (await state.revocations.known()).since_s == 1234


async def test_entitlements_that_were_written_since_are_kept(valkey_url: str, tmp_path: Path) -> None:
    """A file is older than what the back end has written."""
    path = tmp_path / "file.json"
    async with opened(valkey_url) as state:
        await state.entitlements.write("owner", ["a", "b"])
        await operate(valkey_url, "revocations", "save", path)
        await state.connection.commands.delete(keys.entitlements())
        await state.entitlements.write("owner", ["a"])
        await state.entitlements.write("other", ["c"])
        assert "0 entitlements" in await operate(valkey_url, "revocations", "restore", path)

        assert await state.entitlements.read_all() == {"owner": frozenset({"a"}), "other": frozenset({"c"})}
