"""Every error answer of Valkey x four services x /ready x doctor: what passes is waited out, no other."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import httpx
import pytest

from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime import logs, service
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.cli.doctor import machine
from portfolio_realtime.cli.doctor.findings import Status
from portfolio_realtime.errors import StateRefused
from portfolio_realtime.state.error_answers import PASSING, STAYING, STAYING_ERR
from tests.conftest import Until

from .lone_services import SERVICES, settings_of
from .valkey_proxy import ValkeyProxy

PASSES: Final = {
    "LOADING": "LOADING Valkey is loading the dataset in memory",
    "BUSY": "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "MASTERDOWN": "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN": "CLUSTERDOWN The cluster is down",
    "TRYAGAIN": "TRYAGAIN Multiple keys request during rehashing of slot",
    "READONLY": "READONLY You can't write against a read only replica.",
    "UNBLOCKED": "UNBLOCKED force unblock from blocking operation, instance state changed",
    "NOREPLICAS": "NOREPLICAS Not enough good replicas to write.",
    "MISCONF": "MISCONF Errors writing to the AOF file: No space left on device",
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "EXECABORT": "EXECABORT Transaction discarded because of previous errors.",
    "clients": "ERR max number of clients reached",
    "proxy": "upstream failure",
}
STAYS: Final = {
    "NOAUTH": ("NOAUTH Authentication required.", "set REDIS_PASSWORD"),
    "WRONGPASS": ("WRONGPASS invalid username-password pair or user is disabled.", "REDIS_PASSWORD"),
    "NOPERM": ("NOPERM User x has no permissions to run the 'evalsha' command", "docs/security.md"),
    "CROSSSLOT": ("CROSSSLOT Keys in request don't hash to the same slot", "cluster"),
    "MOVED": ("MOVED 3999 127.0.0.1:7001", "cluster"),
    "DENIED": ("DENIED Redis is running in protected mode", "REDIS_PASSWORD"),
    "NOPROTO": ("NOPROTO unsupported protocol version", "Redis 7"),
    "WRONGTYPE": ("WRONGTYPE Operation against a key holding the wrong kind of value", "KEY_PREFIX"),
    "unknown": ("ERR unknown command 'EVALSHA', with args beginning with: ", "Redis 7"),
    "database": ("ERR DB index is out of range", "REDIS_DB=0"),
    "superfluous": ("ERR AUTH <password> called without any password", "unset REDIS_PASSWORD"),
}
NOT_VALKEY: Final = {"no Valkey": "HTTP/1.1 400 Bad Request", "OK to everything": "+OK"}


class Running:
    """One service in this process, and what stands between it and Valkey."""

    def __init__(self, name: str, proxy: ValkeyProxy) -> None:
        self.name, self.proxy = name, proxy
        self.settings = settings_of(proxy.url)
        work = service.with_state(name, self.settings, SERVICES[name], asyncio.Event())
        self.task = asyncio.create_task(work)

    async def end(self) -> None:
        """Cancel it."""
        await cancel_until_ended([self.task])


@contextlib.asynccontextmanager
async def all_services(port: int, answer: bytes = b"") -> AsyncGenerator[dict[str, Running]]:
    """The four services, each behind a proxy of its own, which gives `answer` from the start."""
    async with contextlib.AsyncExitStack() as stack:
        running: dict[str, Running] = {}
        for name in SERVICES:
            proxy = await stack.enter_async_context(ValkeyProxy(port))
            proxy.answer, proxy.refuses_handshake = answer, bool(answer)
            running[name] = Running(name, proxy)
            stack.push_async_callback(running[name].end)
        yield running


async def ready(running: Running) -> int:
    """The status of /ready; 0 where nobody answers."""
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            answer = await http.get(f"http://127.0.0.1:{running.settings.websocket_port}/ready")
            return answer.status_code
    except httpx.HTTPError:
        return 0


async def test_what_passes_is_waited_out(
    mortal_server: ValkeyNode,
    until: Until,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No service ends; /ready says no, and yes again afterwards; one line in the log for each answer."""
    assert PASSING.keys() - PASSES.keys() == set()
    monkeypatch.setattr(service, "PAUSE_S_MAX", 0.2)  # the test has many outages, one after the other
    logs.configure("test", "info", "json")
    async with all_services(mortal_server.port) as running:
        web = running["websocket_server"]
        for word, text in PASSES.items():
            await until(lambda: is_ready(web), f"ready before {word}")
            before = {name: one.proxy.refused for name, one in running.items()}
            for one in running.values():
                one.proxy.answer = b"-" + text.encode()

            def all_were_refused(before: dict[str, int] = before) -> bool:
                return all(one.proxy.refused > before[name] + 2 for name, one in running.items())

            await until(all_were_refused, f"every service was answered {word}")
            assert await ready(web) == 503, word
            found = await machine.state(web.settings)
            assert (found.check, found.status) == ("Valkey", Status.FAIL), word
            assert text.removeprefix("ERR ") in found.found
            for one in running.values():
                one.proxy.answer = b""
            assert [one.name for one in running.values() if one.task.done()] == [], word
        await until(lambda: is_ready(web), "ready at the end")
        passed = {name: one.proxy.passed for name, one in running.items()}
        await until(
            lambda: all(one.proxy.passed > passed[name] for name, one in running.items()), "all go on"
        )
        assert [one.name for one in running.values() if one.task.done()] == []
    said = capfd.readouterr().err
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if "waiting for Valkey" in line]
    for word in PASSING:
        assert len([line for line in lines if f"answers {word} " in line]) == 1, word


async def is_ready(running: Running) -> bool:
    """Does it say so?"""
    return await ready(running) == 200


@pytest.mark.parametrize("word", [*STAYS, *NOT_VALKEY])
async def test_what_stays_ends_with_the_remedy(mortal_server: ValkeyNode, word: str) -> None:
    """Every service says why at once, in one line; so does the doctor."""
    text, remedy = STAYS.get(word) or (NOT_VALKEY[word], "REDIS_PORT")
    answer = text.encode() if word in NOT_VALKEY else b"-" + text.encode()
    async with all_services(mortal_server.port, answer) as running:
        for one in running.values():
            with pytest.raises(StateRefused) as refused:
                async with asyncio.timeout(30):
                    await one.task
            told = str(refused.value)
            assert remedy in told
            assert "\n" not in told
        found = await machine.state(running["websocket_server"].settings)
    assert found.status is Status.FAIL
    assert remedy in found.remedy + found.found


async def test_what_stays_ends_a_running_service(mortal_server: ValkeyNode, until: Until) -> None:
    """Rights that are taken away: each says which, and ends, though it has run well before."""
    async with all_services(mortal_server.port) as running:
        await until(lambda: is_ready(running["websocket_server"]), "ready")
        for one in running.values():
            one.proxy.answer = b"-" + STAYS["NOPERM"][0].encode()
        for one in running.values():
            with pytest.raises(StateRefused, match=r"docs/security\.md"):
                async with asyncio.timeout(30):
                    await one.task


def test_the_page_of_the_documents_has_every_answer() -> None:
    """docs/valkey.md: each word, with what we do and the same remedy."""
    page = Path("docs/valkey.md").read_text()
    for word, meaning in {**PASSING, **STAYING, **STAYING_ERR}.items():
        assert f"| `{word}` |" in page or f"| `ERR {word} …` |" in page, word
        assert meaning in page, word
