"""The embedded Valkey: a real server that starts by itself and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from portfolio_realtime.state import open_state
from portfolio_realtime.state.embedded import EmbeddedServer
from tests.conftest import SHARDS, Until
from tests.support.processes import is_running

PARENT = """
import asyncio
from portfolio_realtime.state.embedded import EmbeddedServer

async def main():
    server = EmbeddedServer()
    await server.start()
    print(server.pid, server.url, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


async def test_it_starts_answers_and_ends(temporary: Path) -> None:
    """A free loopback port, in memory only; after the end there is no process and no file."""
    server = EmbeddedServer()
    await server.start()
    pid = server.pid
    state = open_state(server.url, holder="test", shards=SHARDS, lease_ms=1000)
    assert await state.leases.acquire("work") is not None
    assert await state.connection.commands.config_get("bind", "save") == {"bind": "127.0.0.1", "save": ""}
    await state.close()
    await server.stop()
    assert not is_running(pid)
    assert list(temporary.iterdir()) == []


async def test_a_restart_keeps_the_port(temporary: Path) -> None:
    """Killed and started again: the same URL, an empty database."""
    server = EmbeddedServer()
    await server.start()
    url = server.url
    os.kill(server.pid, signal.SIGKILL)
    assert await server.wait() == -signal.SIGKILL
    await server.start()
    assert server.url == url
    await server.stop()
    await server.stop()
    assert list(temporary.iterdir()) == []


async def test_it_reads_nobodys_dump(temporary: Path) -> None:
    """A dump that some other server left in the temporary folder is not taken in."""
    first = EmbeddedServer()
    await first.start()
    state = open_state(first.url, holder="test", shards=SHARDS, lease_ms=1000)
    await state.accounts.write_cursor("foreign")
    await state.connection.commands.save()
    await state.close()
    await first.stop()
    (dump,) = temporary.iterdir()
    dump.rename(temporary / "dump.rdb")  # the name that every server looks for by default
    second = EmbeddedServer()
    await second.start()
    state = open_state(second.url, holder="test", shards=SHARDS, lease_ms=1000)
    assert await state.accounts.read_cursor() is None
    await state.close()
    await second.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
async def test_it_ends_with_a_parent_that_was_killed(tmp_path: Path, until: Until) -> None:
    """SIGKILL leaves the parent no time to clean up; the server ends all the same and leaves no file."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline().split()[0])
    assert is_running(pid)
    parent.kill()
    parent.wait(5)
    await until(lambda: not is_running(pid), "the server has ended with its parent")
    assert list(tmp_path.iterdir()) == []
