"""What every service relies on: parts that end together, attempts that go on, work under a lease."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest
from prometheus_client import CollectorRegistry

from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime import backoff, cancellation, exit_codes, service
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import (
    BrokerRefused,
    FeedUnavailable,
    LeaseLost,
    SettingsError,
    StateRefused,
    StateUnavailable,
)
from portfolio_realtime.service import Context, keep_lease, keep_running, together, under_lease
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.state.leases import Lease

from .conftest import LEASE_MS, SHARDS, Until

CLOCK = SystemClock()
ENDS_S_MAX = 10.0


def context_of(state: State) -> Context:
    """A service's context on this state, that renews leases often."""
    settings = Settings(lease_ms=LEASE_MS, lease_renew_ms=100, _env_file=None)  # type: ignore[call-arg]  # pydantic-settings' own
    return Context(settings, state, CLOCK, CollectorRegistry(), "test")


class Part:
    """A coroutine that waits for ever and says whether it was cancelled."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.is_cancelled = False

    async def run(self) -> None:
        """Wait until cancelled."""
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise


# together


async def test_a_failing_part_ends_the_others_and_is_raised() -> None:
    """Nobody is left behind working for nobody."""
    part = Part()

    async def fail() -> None:
        await part.started.wait()
        raise FeedUnavailable("cut")

    with pytest.raises(FeedUnavailable, match="cut"):
        await together(part.run(), fail())
    assert part.is_cancelled


async def test_a_part_that_ends_well_ends_the_others_too() -> None:
    """Without a failure there is nothing to raise."""
    part = Part()
    await together(part.run(), part.started.wait())
    assert part.is_cancelled


async def test_cancelling_reaches_all_parts() -> None:
    """A clean end is passed on, and waited for."""
    first, second = Part(), Part()
    work = asyncio.create_task(together(first.run(), second.run()))
    await second.started.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert first.is_cancelled
    assert second.is_cancelled


async def test_a_part_that_is_slow_to_end_is_not_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for it is cancelled again meanwhile; its late failure is seen, and told to nobody."""
    monkeypatch.setattr(cancellation, "CANCEL_AGAIN_S", 0.01)
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    started, cancelled_count, has_ended = asyncio.Event(), 0, False

    async def end_slowly() -> None:
        nonlocal cancelled_count, has_ended
        started.set()
        while cancelled_count < 5:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled_count += 1
        has_ended = True
        raise FeedUnavailable("cut")

    work = asyncio.create_task(together(together(end_slowly())))
    await started.wait()
    work.cancel()
    async with asyncio.timeout(ENDS_S_MAX):
        with pytest.raises(asyncio.CancelledError):
            await work
    assert has_ended
    del work
    gc.collect()
    assert told == []


# keep_running


class Pauses:
    """asyncio.sleep of the service module, noted and over at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked_s: list[float] = []
        monkeypatch.setattr(backoff.random, "uniform", lambda _low, high: high)  # type: ignore[reportUnknownLambdaType]  # as random's
        monkeypatch.setattr(service.asyncio, "sleep", self._sleep)

    async def _sleep(self, pause_s: float) -> None:
        self.asked_s.append(pause_s)


async def attempts(failures: Sequence[Exception | None]) -> int:
    """How many attempts keep_running makes of these outcomes; after the last it is refused for good."""
    count = 0

    async def attempt() -> None:
        nonlocal count
        count += 1
        if count > len(failures):
            raise BrokerRefused("for good")
        failure = failures[count - 1]
        if failure is not None:
            raise failure

    with pytest.raises(BrokerRefused):
        await keep_running(attempt, CLOCK, "test")
    return count


async def test_recoverable_failures_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The world's failures, and an end, start the next attempt; what waiting cannot help is raised."""
    pauses = Pauses(monkeypatch)
    failures = [StateUnavailable("x"), LeaseLost("x"), FeedUnavailable("x"), None]
    assert await attempts(failures) == 5
    assert len(pauses.asked_s) == 4


async def test_pauses_grow_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as long each time, never longer than PAUSE_S_MAX."""
    pauses = Pauses(monkeypatch)
    await attempts([StateUnavailable("x")] * 8)
    expected_s = [min(service.PAUSE_S_MIN * 2**n, service.PAUSE_S_MAX) for n in range(8)]
    assert pauses.asked_s == expected_s
    assert expected_s[-1] == service.PAUSE_S_MAX


async def test_a_bug_of_ours_is_not_tried_again() -> None:
    """An assertion ends the process; the supervisor starts it from state."""

    async def attempt() -> None:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        await keep_running(attempt, CLOCK, "test")


# under_lease


async def test_work_is_done_under_the_lease_and_gives_it_back(state: State) -> None:
    """While it works the lease is held; afterwards it is free at once."""
    held: list[Any] = []

    async def work(lease: Lease) -> None:
        held.append(await state.connection.commands.get(keys.lease("work")))
        assert held[0] == lease.value.encode()

    await under_lease(context_of(state), "work", work)
    assert len(held) == 1
    assert await state.connection.commands.get(keys.lease("work")) is None


async def test_who_stands_by_says_so_and_takes_over(state: State, valkey_url: str, until: Until) -> None:
    """A second process waits, and works as soon as the first has gone."""
    other = open_state(valkey_url, holder="other", shards=SHARDS, lease_ms=60_000)
    theirs = await other.leases.acquire("work")
    assert theirs is not None
    waiting, worked = Part(), Part()

    async def work(_: Lease) -> None:
        assert waiting.is_cancelled
        await worked.run()

    async def wait() -> NoReturn:
        await waiting.run()
        raise AssertionError("it runs until it is cancelled")

    task = asyncio.create_task(under_lease(context_of(state), "work", work, wait))
    await until(waiting.started.is_set, "it stands by")
    assert not worked.started.is_set()
    await other.leases.release(theirs)
    await asyncio.wait_for(worked.started.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert worked.is_cancelled
    assert await other.leases.acquire("work") is not None
    await other.close()


async def test_work_ends_when_the_lease_is_lost(state: State) -> None:
    """Somebody else holds it now: the work is cancelled, and their lease is left alone."""
    work = Part()

    async def lose(_: Lease) -> None:
        await state.connection.commands.set(keys.lease("work"), "other 9", px=60_000)
        await work.run()

    with pytest.raises(LeaseLost):
        await under_lease(context_of(state), "work", lose)
    assert work.is_cancelled
    assert await state.connection.commands.get(keys.lease("work")) == b"other 9"


async def test_a_failure_of_the_work_gives_the_lease_back(state: State) -> None:
    """The next attempt, here or elsewhere, need not wait for it to run out."""

    async def fail(_: Lease) -> None:
        raise FeedUnavailable("cut")

    with pytest.raises(FeedUnavailable):
        await under_lease(context_of(state), "work", fail)
    assert await state.connection.commands.get(keys.lease("work")) is None


async def test_a_lease_runs_out_while_the_state_is_out_of_reach(mortal_valkey: Valkeys) -> None:
    """Renewing fails for longer than the lease lasts: the owner must believe that it is lost, not sooner."""
    state = open_state(mortal_valkey.url, holder="test", shards=SHARDS, lease_ms=LEASE_MS)
    lease = await state.leases.acquire("work")
    assert lease is not None
    await mortal_valkey.kill()
    began_s = CLOCK.monotonic_s()
    with pytest.raises(LeaseLost, match="did not answer"):
        await asyncio.wait_for(keep_lease(context_of(state), lease), 30)
    assert CLOCK.monotonic_s() - began_s >= LEASE_MS / 1000
    await state.close()


# main


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (None, 0),
        (BrokerRefused("no permission"), exit_codes.FAILED),
        (StateRefused("no rights"), exit_codes.SETTINGS),
        (SettingsError("the port is in use"), exit_codes.SETTINGS),
    ],
)
def test_the_exit_code_says_why(
    valkey_now: str, monkeypatch: pytest.MonkeyPatch, outcome: Exception | None, code: int
) -> None:
    """0 for an end, 1 for a failure, 2 for what a new start cannot help."""
    monkeypatch.setattr(service.logs, "configure", _ignore)

    async def run(context: Context) -> None:
        await context.state.connection.ping()
        if outcome is not None:
            raise outcome

    with pytest.raises(SystemExit) as ended:
        service.main("test", run, redis_url=valkey_now, key_prefix="exit-codes:", _env_file=None)
    assert ended.value.code == code


def test_one_signal_ends_a_service_that_still_waits_for_valkey(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that ends by itself: it has not begun."""
    monkeypatch.setattr(service.logs, "configure", _ignore)
    monkeypatch.setattr(service, "STATE_WAIT_S", 1.0)
    signals = iter([signal.SIGTERM])

    def send(_: Exception) -> None:
        for number in signals:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(service, "tell_away", send)
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    with pytest.raises(SystemExit) as ended:
        service.main("test", _never, ends_itself=True, redis_url=nobody, _env_file=None)
    assert ended.value.code == exit_codes.OK


def test_wrong_settings_end_with_their_own_code(capsys: pytest.CaptureFixture[str]) -> None:
    """2, with the reason on stderr."""
    run: Callable[[Context], Awaitable[None]] = _never
    with pytest.raises(SystemExit) as ended:
        service.main("test", run, shards=0, _env_file=None)
    assert ended.value.code == exit_codes.SETTINGS
    assert "SHARDS=0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "is_told"),
    [
        (ConnectionResetError(), False),  # uvloop's own, of a TLS handshake that is cut
        (socket.gaierror(-2, "Name or service not known"), False),  # uvloop's own, of an attempt given up
        (RuntimeError("unable to perform operation on <X>; the handler is closed"), False),
        (ValueError("a bug of ours"), True),
    ],
)
async def test_only_what_the_world_does_not_do_leaves_a_traceback(error: Exception, is_told: bool) -> None:
    """Of exceptions that nobody awaits."""
    told: list[Any] = []
    loop = SimpleNamespace(default_exception_handler=told.append)
    service.tell_failure(cast("asyncio.AbstractEventLoop", loop), {"exception": error})
    assert bool(told) == is_told


@pytest.fixture
def valkey_now(session_valkey: Valkeys) -> str:
    """URL of the shared Valkey, for a test with an event loop of its own."""
    return session_valkey.url


def _ignore(*_: Any) -> None:
    """Leave the logs as they are."""


async def _never(_: Context) -> None:
    raise AssertionError("must not run")
