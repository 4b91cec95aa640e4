"""What every test may use: a real Valkey, a real simulator, and waiting that ends."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
import hypothesis
import pytest
import pytest_asyncio
import structlog

from portfolio_harness.valkey_kinds import ValkeyKind, Valkeys, valkeys
from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.__main__ import COMMANDS
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.state import State, keys, open_state
from tests.support.simulators.forked import ForkedSimulator

collect_ignore = ["cloudflare"]  # beside the SDK, in an environment of its own: make cloudflare-check
SHARDS: Final = 4
LEASE_MS: Final = 1500
DEADLINE_S: Final = 30.0  # of what should take a moment: a busy machine takes longer
SIMULATOR_START_S_MAX: Final = 30
SERVICE_END_S_MAX: Final = 5.0


hypothesis.settings.register_profile("any_machine", deadline=None)  # no test depends on the machine's speed
hypothesis.settings.load_profile("any_machine")


def pytest_configure() -> None:
    """Refuse an environment whose installed commands are older than pyproject.toml."""
    if not entry_points(group=COMMANDS):
        raise pytest.UsageError("what is installed in .venv is older than pyproject.toml: run `make install`")
    try:
        _ = KIND.program
    except SettingsError as missing:
        raise pytest.UsageError(f"{TEST_VALKEY}={KIND}: {missing}") from None


def _kind() -> ValkeyKind:
    wanted = os.environ.get(TEST_VALKEY, ValkeyKind.EMBEDDED)
    try:
        return ValkeyKind(wanted)
    except ValueError:
        raise pytest.UsageError(f"{TEST_VALKEY}={wanted}: choose one of {', '.join(ValkeyKind)}") from None


TEST_VALKEY: Final = "TEST_VALKEY"  # names what the tests run on; see CONTRIBUTING.md
KIND: Final = _kind()
ONE_KIND: Final = ValkeyKind.REDIS if KIND.program else ValkeyKind.EMBEDDED


TESTS: Final = Path(__file__).parent
FAST_FOLDERS: Final = frozenset(
    (
        *("alpaca_sim", "harness", "house", "market_data_consumer"),
        *("symbol_collector", "valuation", "websocket_server"),
    )
)
FAST_FILES: Final = frozenset(
    (
        "test_backoff.py",
        "test_clock.py",
        "test_config.py",
        "test_documentation.py",
        "test_pace.py",
        "test_requirements.py",
    )
)
SLOW_FILES: Final = frozenset(  # whole systems, processes, wheels and benchmarks in folders that are fast
    (
        *("test_benchmarks.py", "test_chart.py", "test_command_line.py", "test_isolation.py"),
        *("test_odd_sweep.py", "test_planted_fault.py", "test_scaleout.py"),
        *("test_tape.py", "test_valkey_cluster.py", "test_wheel.py"),
    )
)
SLOW_TESTS: Final = frozenset(  # many examples, of which one file has a few cheap ones beside
    (
        "test_a_hundred_thousand_published_figures_equal_the_oracle",
        "test_any_published_figure_equals_the_oracle",
        "test_every_deadline_comes_when_the_model_says_and_for_a_reason_that_it_gives",
        "test_the_error_bound_bounds",
        "test_the_service_needs_no_pandas",
        "test_the_table_says_what_the_library_says",
        "test_every_client_ends_with_the_newest_and_never_goes_back",
        "test_the_same_seed_gives_the_same_bytes_in_virtual_time",
    )
)
LONG_FILES: Final = (  # begin first: else one worker is still at the last of them when all others have ended
    "upgrade/test_upgrade.py",
    "simulation/test_core.py",
    "frontend/test_app.py",
    "frontend/test_page.py",
)
SERVERS: Final = frozenset(  # fixtures that start a server, a browser or a whole system
    (
        "mortal_server",
        "mortal_valkey",
        "session_valkey",
        "simulator",
        "start",
        "browser",
        "stage",
        "running",
        "server",
    )
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder and by fixtures what `make test-fast` runs: no server, no browser, no whole system.

    The files that take longest come first.
    """
    items.sort(key=lambda item: item.path.relative_to(TESTS).as_posix() not in LONG_FILES)
    for item in items:
        assert isinstance(item, pytest.Function)
        if item.path.name in SLOW_FILES or item.originalname in SLOW_TESTS:
            item.add_marker("slow")
        is_slow = item.get_closest_marker("slow") is not None
        if is_of_fast_file(item.path) and not is_slow and not SERVERS & set(item.fixturenames):
            item.add_marker("fast")


def is_of_fast_file(path: Path) -> bool:
    """Do tests of this file, or folder, belong to `make test-fast` unless they are slow?"""
    folders = path.relative_to(TESTS).parts[:1]
    return path.name in FAST_FILES or bool(FAST_FOLDERS.intersection(folders) and path.name not in SLOW_FILES)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m fast`, do not even import files without a fast test: that takes seconds in each process."""
    if config.option.markexpr != "fast" or collection_path == TESTS or TESTS not in collection_path.parents:
        return None
    is_on_the_way = collection_path.is_dir() and any(
        next(collection_path.rglob(name), None) for name in FAST_FILES
    )
    return None if is_of_fast_file(collection_path) or is_on_the_way else True


class Until(Protocol):
    """Waits until a predicate holds."""

    async def __call__(
        self, predicate: Callable[[], Any], description: str, deadline_s: float = DEADLINE_S
    ) -> Any: ...  # the predicate may be async and return anything


@pytest.fixture(autouse=True)
def _process_as_it_was() -> Generator[None]:
    """A service that a test runs here may have set this process's log and prefix of keys."""
    yield
    keys.use_prefix("")
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def until() -> Until:
    """`await until(predicate, description, deadline_s)`: the predicate's first true result, or a failure."""

    async def wait(predicate: Callable[[], Any], description: str, deadline_s: float = DEADLINE_S) -> Any:
        give_up = time.monotonic() + deadline_s
        while True:
            result = predicate()
            if isinstance(result, Awaitable):
                result = await result
            if result:
                return result
            assert time.monotonic() < give_up, f"waited {deadline_s} s in vain until {description}"
            await asyncio.sleep(0.02)

    return wait


@contextlib.asynccontextmanager
async def own_valkey() -> AsyncGenerator[Valkeys]:
    """A real one of the kind that TEST_VALKEY names, which may be killed and started again."""
    own = valkeys(KIND)
    await own.start()
    try:
        yield own
    finally:
        await own.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session_valkey() -> AsyncGenerator[Valkeys]:
    """One real Valkey for all tests that do not kill it."""
    async with own_valkey() as own:
        yield own


@pytest.fixture
async def mortal_valkey() -> AsyncGenerator[Valkeys]:
    """A real Valkey of the test's own, to be killed and started again."""
    async with own_valkey() as own:
        yield own


@contextlib.asynccontextmanager
async def one_server() -> AsyncGenerator[ValkeyNode]:
    """One server, never a cluster: for what stands before it, or is of one server alone."""
    own = ValkeyNode(program=ONE_KIND.program)
    await own.start()
    try:
        yield own
    finally:
        await own.stop()


@pytest.fixture
async def mortal_server() -> AsyncGenerator[ValkeyNode]:
    """One server of the test's own, never a cluster."""
    async with one_server() as own:
        yield own


@contextlib.asynccontextmanager
async def opened(url: str, holder: str = "test", lease_ms: int = LEASE_MS) -> AsyncGenerator[State]:
    """A state that is closed also when what comes next fails: else a later test fails for its connections."""
    state = open_state(url, holder=holder, shards=SHARDS, lease_ms=lease_ms)
    try:
        yield state
    finally:
        await state.close()


async def emptied(valkey: Valkeys) -> str:
    """Its URL, once it is empty."""
    await valkey.flush()
    async with opened(valkey.url) as state:
        await state.revocations.confirm()  # a system that has been running for long
    return valkey.url


@pytest.fixture
async def valkey_url(session_valkey: Valkeys) -> str:
    """URL of a real, empty Valkey."""
    return await emptied(session_valkey)


@pytest.fixture
async def state(valkey_url: str) -> AsyncGenerator[State]:
    """The state on a real, empty Valkey with SHARDS shards."""
    async with opened(valkey_url) as state:
        yield state


class Simulator:
    """A simulated Alpaca in a process of its own."""

    def __init__(self, forked: ForkedSimulator, url: str) -> None:
        self._forked = forked
        self.url = url
        self.ws_url = url.replace("http", "ws", 1)
        self._client = httpx.AsyncClient(base_url=url, timeout=30)

    async def get(self, path: str) -> Any:
        """The JSON answer of a GET of the control endpoints (`/_sim/…`)."""
        answer = await self._client.get(path)
        answer.raise_for_status()
        return answer.json()

    async def post(self, path: str, json: dict[str, Any] | None = None) -> Any:
        """The JSON answer of a POST to the control endpoints (`/_sim/…`)."""
        answer = await self._client.post(path, json=json or {})
        answer.raise_for_status()
        return answer.json() if answer.content else None

    @property
    def environment(self) -> dict[str, str]:
        """The settings that point the product at this simulator."""
        return {
            "BROKER_API_KEY": "sim-key",
            "BROKER_SECRET_KEY": "sim-secret",
            "ALPACA_BROKER_URL": self.url,
            "ALPACA_TRADING_URL": self.url,
            "ALPACA_DATA_URL": self.url,
            "ALPACA_STREAM_URL": self.ws_url,
        }

    async def close(self) -> None:
        """End the process."""
        await self._client.aclose()
        self._forked.end()


def end(process: subprocess.Popen[Any]) -> None:
    """Ask a process of ours to end, then make it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


@contextlib.asynccontextmanager
async def running_service(work: Awaitable[None]) -> AsyncGenerator[asyncio.Task[None]]:
    """A service as a task; it must not have failed when the test ends it."""
    task = asyncio.ensure_future(work)
    try:
        yield task
        assert not task.done(), task
    finally:
        async with asyncio.timeout(SERVICE_END_S_MAX):
            await cancel_until_ended([task])


StartSimulator = Callable[..., Awaitable[Simulator]]


@pytest.fixture
async def simulator() -> AsyncGenerator[StartSimulator]:
    """`await simulator(accounts=20, symbols=50, seed=7, **options)` starts one; it ends with the test."""
    started: list[Simulator] = []

    async def start(**options: Any) -> Simulator:
        merged = {"port": 0, "accounts": 20, "symbols": 50, "seed": 7, **options}
        flags = [
            word for name, value in merged.items() for word in (f"--{name.replace('_', '-')}", str(value))
        ]
        forked = await asyncio.to_thread(ForkedSimulator, flags)
        try:
            url = await asyncio.wait_for(asyncio.to_thread(forked.ready_url), SIMULATOR_START_S_MAX)
        except BaseException:
            forked.end()
            raise
        started.append(Simulator(forked, url))
        return started[-1]

    yield start
    for running in started:
        await running.close()
