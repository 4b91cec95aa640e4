"""Services are forked from one process that has imported what they share; each stays a process of its own."""

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from portfolio_harness.system import System, running, settings_for
from portfolio_realtime import preloading
from portfolio_realtime.exit_codes import INTERRUPTED, OK
from portfolio_realtime.forking import Forked, Preloaded, PreloadedEnded
from portfolio_realtime.preloading import MODULE
from portfolio_realtime.processes import end_all
from portfolio_realtime.state.embedded import free_port
from tests.conftest import Until
from tests.support.processes import are_back, is_running, kill

pytestmark = pytest.mark.skipif(not preloading.is_possible(), reason="services are forked on Linux only")

SECRET = "not-for-the-preloaded-process"  # a word to search for
SOON_S_MAX = 30.0
PROGRAM = """
import json, os, signal, sys, threading, time
if "DEAF" in os.environ:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
told = {
    "name": __name__, "arguments": sys.argv[1:], "environment": dict(os.environ), "pid": os.getpid(),
    "is_leader": os.getsid(0) == os.getpid(), "input": sys.stdin.read(), "threads": threading.active_count(),
    "descriptors": len(os.listdir("/proc/self/fd")), "has_numpy": "numpy" in sys.modules,
    "handlers": [signal.getsignal(each) == signal.SIG_DFL for each in (signal.SIGTERM, signal.SIGINT)],
    "random": __import__("random").random(),
}
with open(os.environ["TOLD"] + ".new", "w") as file:
    json.dump(told, file)
os.rename(os.environ["TOLD"] + ".new", os.environ["TOLD"])
if code := os.environ.get("CODE"):
    sys.exit(int(code))
time.sleep(600)
"""


@pytest_asyncio.fixture
async def preloaded(tmp_path: Path) -> AsyncGenerator[Preloaded]:
    """A preloaded process that finds the module `told`."""
    (tmp_path / "told.py").write_text(PROGRAM)
    one = Preloaded(
        preloading.begin({**os.environ, "PYTHONPATH": str(tmp_path), "BROKER_SECRET_KEY": SECRET})
    )
    yield one
    await one.stop()


def environment(tmp_path: Path, number: int = 0, **others: str) -> dict[str, str]:
    """Of a process that tells of itself in `told-{number}`."""
    return {"PATH": os.environ["PATH"], "TOLD": str(tmp_path / f"told-{number}"), **others}


async def told(tmp_path: Path, until: Until, number: int = 0) -> dict[str, object]:
    """What the process has told of itself."""
    file = tmp_path / f"told-{number}"
    await until(file.exists, "the fork has told of itself", SOON_S_MAX)
    return json.loads(file.read_text())


async def ended(forked: Forked) -> int:
    """Its exit code."""
    async with asyncio.timeout(SOON_S_MAX):
        return await forked.wait()


async def test_a_fork_is_what_the_module_is_when_started_alone(
    preloaded: Preloaded, tmp_path: Path, until: Until
) -> None:
    """Its environment, session, signals, standard input and name; nothing of the preloaded process's."""
    given = environment(tmp_path, RATE="17", NAME="Zo\udce9")  # a byte that is no UTF-8

    forked = await preloaded.start("told", given)

    seen = await told(tmp_path, until)
    assert seen["environment"] == given
    assert seen["name"] == "__main__"
    assert seen["arguments"] == []
    assert seen["pid"] == forked.pid
    assert seen["is_leader"]
    assert seen["input"] == ""
    assert seen["threads"] == 1
    assert seen["handlers"] == [True, True]
    assert seen["has_numpy"]
    assert seen["descriptors"] == 4, "the standard ones, and the folder that is listed"
    command = Path(f"/proc/{forked.pid}/cmdline").read_bytes().rstrip(b"\0").decode()
    assert command == f"{sys.executable} -m told"


async def test_forks_differ_where_processes_do(preloaded: Preloaded, tmp_path: Path, until: Until) -> None:
    """Each has its own random numbers, and only the environment of its own request."""
    await preloaded.start("told", environment(tmp_path, 1, ONLY_HERE="1"))
    await preloaded.start("told", environment(tmp_path, 2))

    first, second = await told(tmp_path, until, 1), await told(tmp_path, until, 2)
    assert first["random"] != second["random"]
    assert "ONLY_HERE" not in json.dumps(second)


@pytest.mark.parametrize("code", [0, 1, 2, 77])
async def test_the_exit_code_of_a_fork_is_known(preloaded: Preloaded, tmp_path: Path, code: int) -> None:
    """As it ends, with nobody asking."""
    forked = await preloaded.start("told", environment(tmp_path, CODE=str(code)))

    assert await ended(forked) == forked.returncode == code
    with pytest.raises(ProcessLookupError):
        forked.terminate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_signal_ends_one_fork(
    preloaded: Preloaded, tmp_path: Path, until: Until, number: signal.Signals
) -> None:
    """The other one goes on."""
    first = await preloaded.start("told", environment(tmp_path, 1))
    second = await preloaded.start("told", environment(tmp_path, 2))
    await told(tmp_path, until, 1)

    first.terminate() if number == signal.SIGTERM else first.kill()

    assert await ended(first) == -number
    assert second.returncode is None
    assert is_running(second.pid)


async def test_the_preloaded_process_stays_clean(preloaded: Preloaded, tmp_path: Path, until: Until) -> None:
    """One thread, no setting, no descriptor but its socket and those that watch its forks."""
    await preloaded.start("told", environment(tmp_path))
    await told(tmp_path, until)

    folder = Path(f"/proc/{preloaded.pid}")
    assert "Threads:\t1\n" in (folder / "status").read_text()
    assert SECRET.encode() not in (folder / "environ").read_bytes()
    opened = [str(each.readlink()) for each in (folder / "fd").iterdir()]
    assert sum(name.startswith("socket:") for name in opened) == 1
    assert len(opened) == 5, "socket, standard output and error, epoll and one fork's pidfd"


async def test_a_signal_to_all_does_not_end_the_preloaded_process(
    preloaded: Preloaded, tmp_path: Path, until: Until
) -> None:
    """A signal to all processes at once leaves the preloaded one: it ends last, with its socket."""
    await preloaded.start("told", environment(tmp_path))
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(preloaded.pid, number)

    forked = await preloaded.start("told", environment(tmp_path, CODE="3"))

    assert await ended(forked) == 3


async def test_forks_end_with_the_preloaded_process(
    preloaded: Preloaded, tmp_path: Path, until: Until
) -> None:
    """None is left that nobody looks after, and no further one is promised."""
    forked = await preloaded.start("told", environment(tmp_path))
    await told(tmp_path, until)

    os.kill(preloaded.pid, signal.SIGKILL)

    assert await ended(forked) == -signal.SIGTERM
    assert not is_running(forked.pid)
    with pytest.raises(PreloadedEnded):
        await preloaded.start("told", environment(tmp_path))


async def test_a_fork_that_does_not_end_is_killed(preloaded: Preloaded, tmp_path: Path, until: Until) -> None:
    """`end_all` treats forks like other processes."""
    forked = await preloaded.start("told", environment(tmp_path, DEAF="1"))
    await told(tmp_path, until)

    await end_all([forked])

    assert forked.returncode == -signal.SIGKILL


@pytest_asyncio.fixture
async def system() -> AsyncGenerator[System]:
    """A small system."""
    overrides = {"LOG_LEVEL": "error"}
    async with running(("--accounts", "3", "--symbols", "5"), port=0, overrides=overrides) as one:
        yield one


async def test_killed_services_come_back(system: System, until: Until) -> None:
    """Forked again; and without the preloaded process as well, of which the next one is begun."""
    dead = kill(system, "symbol_collector", "websocket_server")
    await until(lambda: are_back(system, dead), "the services are back", SOON_S_MAX)

    parent = parent_of(system.pids["portfolio_calculator"])
    assert parent not in (os.getpid(), 1)
    services = ("websocket_server", "symbol_collector", "market_data_consumer", "portfolio_calculator")
    dead = {name: system.pids_of(name) for name in services}
    os.kill(parent, signal.SIGKILL)

    await until(lambda: are_back(system, dead), "all services are back", SOON_S_MAX)


async def test_run_services_forks_it_clean_as_well(tmp_path: Path, until: Until) -> None:
    """From `run_services` itself, before that reads its settings: no thread, no secret, no terminal."""
    async with services(tmp_path, BROKER_SECRET_KEY=SECRET) as process:
        await until(lambda: MODULE in children(process.pid), "it has begun", SOON_S_MAX)
        preloaded = next(pid for pid, command in children_of(process.pid).items() if MODULE in command)
        folder = Path(f"/proc/{preloaded}")
        await until(lambda: "websocket_server" in children(preloaded), "services run", SOON_S_MAX)

        assert "Threads:\t1\n" in (folder / "status").read_text()
        assert SECRET.encode() not in (folder / "environ").read_bytes()
        assert os.getsid(preloaded) == preloaded
        (mask,) = re.findall(r"SigIgn:\t(\w+)", (folder / "status").read_text())
        ignored = int(mask, 16)
        assert ignored & 1 << signal.SIGINT - 1
        assert ignored & 1 << signal.SIGTERM - 1
        assert SECRET.encode() in Path(f"/proc/{process.pid}/environ").read_bytes(), "where it was given"


def parent_of(pid: int) -> int:
    """The process that has started this one (proc(5))."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.2, 0.4, 0.8])
async def test_ctrl_c_in_the_first_second_ends_quietly(after_s: float, tmp_path: Path, until: Until) -> None:
    """Whatever has been started by then: no traceback, no process left."""
    async with services(tmp_path) as process:
        await until(lambda: MODULE in children(process.pid), "it has begun", SOON_S_MAX)
        await asyncio.sleep(after_s)  # which part of the start it meets depends on the machine
        process.send_signal(signal.SIGINT)

        # It returns when no process has stderr any more.
        _, said = await asyncio.to_thread(process.communicate, None, SOON_S_MAX)

        assert b"Traceback" not in said
        assert process.returncode in (OK, INTERRUPTED), said.decode()


@contextlib.asynccontextmanager
async def services(folder: Path, **settings: str) -> AsyncGenerator[subprocess.Popen[bytes]]:
    """`run_services` of a broker that does not answer."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "portfolio_realtime.run_services"],
        env={
            **os.environ,
            **settings_for(f"http://127.0.0.1:{free_port()}", port, secrets.token_urlsafe(48)),
            "LOG_LEVEL": "error",
            "RUN_SERVICES_PORT": str(port),
            **settings,
        },
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=folder,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            await asyncio.to_thread(process.communicate, None, SOON_S_MAX)


def children(pid: int) -> str:
    """The command lines of what a process has started."""
    return " ".join(children_of(pid).values())


def children_of(pid: int) -> dict[int, str]:
    """Process id -> command line, of what a process has started."""
    found: dict[int, str] = {}
    for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found[int(one)] = Path(f"/proc/{one}/cmdline").read_bytes().decode()
    return found
