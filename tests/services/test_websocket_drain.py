"""How servers begin, leave service, and are several on one port: real processes, real signals."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator

import pytest
from websockets.exceptions import ConnectionClosed

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.state import State
from portfolio_realtime.state.embedded import free_port
from tests.conftest import Until
from tests.support.server_processes import Remote, children, started
from tests.support.websocket_servers import (
    Calculator,
    closed,
    keep_giving_signs,
    receive,
    write_accounts,
)

START_S_MAX = 30.0


@pytest.fixture
async def remote(state: State) -> AsyncGenerator[Remote]:
    """Where the server of the test will be; calculators live."""
    served = Remote(free_port())
    signs = asyncio.create_task(keep_giving_signs(state))
    yield served
    await cancel_until_ended([signs])
    await served.http.aclose()


async def exit_code(process: "subprocess.Popen[bytes]") -> int:
    return await asyncio.to_thread(process.wait, 20)


async def test_a_server_leaves_service_by_degrees(
    remote: Remote, valkey_url: str, state: State, until: Until
) -> None:
    """/ready says no; in the grace time clients still come and get values; then 4001; exit code 0."""
    await write_accounts(state, "a")
    calculator = Calculator(state)
    await calculator.publish("a", 1)
    with started(valkey_url, remote.port, DRAIN_GRACE_SECONDS="3") as process:
        await until(remote.ready, "the server is ready", START_S_MAX)
        async with remote.open("/ws/portfolio/a") as client:
            assert (await receive(client))["sequence"] == 1
            process.terminate()

            async def is_draining() -> bool:
                answer = await remote.http.get("/ready")
                return (answer.status_code, answer.json()["status"]) == (503, "draining")

            await until(is_draining, "/ready says no")
            async with remote.open("/ws/portfolio/a") as late:
                assert (await receive(late))["sequence"] == 1
                await calculator.publish("a", 2)
                assert (await receive(client))["sequence"] == 2
                assert [await closed(client), await closed(late)] == [4001, 4001]
        assert await exit_code(process) == 0


async def test_the_second_signal_ends_a_server_at_once(remote: Remote, valkey_url: str, until: Until) -> None:
    """Also in the midst of a drain that would take a minute; clients are still told."""
    with started(valkey_url, remote.port, DRAIN_GRACE_SECONDS="60") as process:
        await until(remote.ready, "the server is ready", START_S_MAX)
        async with remote.open("/ws") as client:
            process.send_signal(signal.SIGINT)

            async def is_draining() -> bool:
                return not await remote.ready()

            await until(is_draining, "/ready says no")
            process.send_signal(signal.SIGTERM)
            assert await closed(client) == 4001
        assert await exit_code(process) == 0


async def test_several_processes_serve_one_port_and_one_that_dies_is_started_again(
    remote: Remote, valkey_url: str, state: State, until: Until
) -> None:
    """WEBSOCKET_WORKERS: each is fed, each has its metrics; one signal ends them all."""
    await write_accounts(state, "a")
    calculator = Calculator(state)
    settings = {"WEBSOCKET_WORKERS": "2", "DRAIN_GRACE_SECONDS": "0"}
    with started(valkey_url, remote.port, **settings) as process:
        await until(remote.ready, "a process is ready", START_S_MAX)

        async def serving_instances() -> set[str]:
            lines = (await remote.http.get("/metrics")).text.splitlines()
            own = [line for line in lines if line.startswith("portfolio_realtime_connections{")]
            return {line.split('instance="')[1].split('"')[0] for line in own}

        async def are_both_seen() -> bool:
            return len(await serving_instances()) == 2

        await until(are_both_seen, "both processes are seen", START_S_MAX)
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(remote.open("/ws/portfolio/a")) for _ in range(16)]
            await calculator.publish("a", 1)
            assert {(await receive(client))["sequence"] for client in clients} == {1}
            before = children(process.pid)
            os.kill(before[0], signal.SIGKILL)

            def is_replaced() -> bool:
                now = children(process.pid)
                return len(now) == 2 and before[0] not in now

            await until(is_replaced, "another process takes its place")
            await calculator.publish("a", 2)
            received = await asyncio.gather(*map(receive, clients), return_exceptions=True)
            cut = sum(isinstance(one, ConnectionClosed) for one in received)
            assert 0 < cut < len(clients), "the kernel spreads connections over both"
        process.terminate()
        assert await exit_code(process) == 0
        assert not await remote.ready()


def test_several_processes_need_a_valkey_to_share(valkey_url: str) -> None:
    """Each would have one of its own: that is refused, with the remedy."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REDIS_")}
    done = subprocess.run(
        [sys.executable, "-m", "portfolio_realtime.websocket_server"],
        env={**environment, "WEBSOCKET_WORKERS": "2"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "set REDIS_HOST" in done.stderr


def test_the_server_starts_without_what_only_calculators_need() -> None:
    """After a crash thousands of clients wait for the new process: each import counts."""
    program = "import sys, portfolio_realtime.websocket_server; print('scipy' in sys.modules)"
    found = subprocess.run((sys.executable, "-c", program), check=True, capture_output=True, text=True)
    assert found.stdout == "False\n"
