"""What processes count together: memory that each writes a part of and all read."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime import config
from portfolio_realtime.websocket_server.access import limits, shared_counters
from portfolio_realtime.websocket_server.access.limits import Limits, OpenConnections, SharedRate
from portfolio_realtime.websocket_server.access.shared_counters import SharedCounter, SharedCounters
from portfolio_realtime.websocket_server.workers import Workers
from tests.conftest import Until

PROCESSES = 3
KEYS = "abcd"


@pytest.fixture
def shared() -> Generator[SharedCounters]:
    """The memory of PROCESSES processes."""
    found = SharedCounters.create(PROCESSES)
    yield found
    os.close(found.file)


def users(shared: SharedCounters) -> list[SharedCounter]:
    """What each process has of users; each opens the memory anew, as in a process of its own."""
    return [SharedCounters(shared.file, PROCESSES).counter(index, "user") for index in range(PROCESSES)]


@given(
    st.lists(st.tuples(st.integers(0, PROCESSES - 1), st.sampled_from(KEYS), st.integers(0, 5))),
    st.sets(st.integers(0, PROCESSES - 1)),
)
def test_each_process_hears_what_the_others_have(story: list[tuple[int, str, int]], killed: set[int]) -> None:
    """Whatever is told in whatever order; who is killed has nothing."""
    shared = SharedCounters.create(PROCESSES)
    try:
        told, parts = [Counter[str]() for _ in range(PROCESSES)], users(shared)
        for process, key, count in story:
            parts[process].tell(key, count)
            told[process][key] = count
        for process in killed:
            shared.clear(process)
            told[process].clear()
        for process, part in enumerate(parts):
            for key in KEYS:
                elsewhere = sum(told[other][key] for other in range(PROCESSES) if other != process)
                assert part.elsewhere(key) == elsewhere
    finally:
        os.close(shared.file)


def test_another_process_hears_it_too(shared: SharedCounters) -> None:
    """By the descriptor that it inherits."""
    users(shared)[0].tell("alice", 7)
    program = (
        "import sys; from portfolio_realtime.websocket_server.access.shared_counters import SharedCounters; "
        "print(SharedCounters(int(sys.argv[1]), 3).counter(1, 'user').elsewhere('alice'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(shared.file)],
        pass_fds=(shared.file,),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "7"


def test_kinds_are_counted_apart(shared: SharedCounters) -> None:
    """A user may be called like an address."""
    shared.counter(0, "user").tell("192.0.2.7", 2)
    assert shared.counter(1, "address").elsewhere("192.0.2.7") == 0


def test_where_keys_crowd_the_rest_stays_unsaid(
    shared: SharedCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process still counts for itself; nothing is counted for a wrong key."""
    monkeypatch.setattr(shared_counters, "SLOTS", 1)
    one, other, _ = users(shared)
    for number in range(shared_counters.PROBED + 1):
        one.tell(str(number), 1)
    heard = [other.elsewhere(str(number)) for number in range(shared_counters.PROBED + 1)]
    assert heard == [1] * shared_counters.PROBED + [0]
    one.tell("0", 0)
    one.tell("late", 3)
    assert other.elsewhere("late") == 3


def test_a_user_has_as_many_places_at_all_processes_together(shared: SharedCounters) -> None:
    """Who leaves makes room everywhere; what a killed process had is free again."""
    first, second, third = (OpenConnections(3, shared) for shared in users(shared))
    assert [first.enter("a"), second.enter("a"), second.enter("a")] == [True] * 3
    assert not any(process.enter("a") for process in (first, second, third))
    assert third.enter("b")
    first.leave("a")
    assert third.enter("a")
    assert not first.has_room("a")
    shared.clear(1)
    assert [first.enter("a") for _ in range(3)] == [True, True, False]


def test_an_address_comes_as_often_in_a_minute_to_all_processes_together(shared: SharedCounters) -> None:
    """A process that is in another minute already counts for itself."""
    processes = [SharedRate(4, shared.counter(index, "minute")) for index in range(PROCESSES)]
    taken = [processes[index % PROCESSES].try_acquire("a", 1.0) for index in range(9)]
    assert taken == [True] * 4 + [False] * 5
    assert processes[0].try_acquire("b", 1.0)
    later_s = 1.0 + limits.MINUTE_S
    assert [processes[0].try_acquire("a", later_s) for _ in range(5)] == [True] * 4 + [False]
    assert [process.try_acquire("a", later_s) for process in processes] == [False] * PROCESSES


def test_a_user_comes_as_often_in_a_minute_to_all_processes_together(shared: SharedCounters) -> None:
    """Who leaves makes room among the open ones, and not in the minute."""
    settings = config.load(_env_file=None, connects_per_user=4, connections_per_user=2)
    processes = [Limits(settings, partial(shared.counter, index)) for index in range(PROCESSES)]
    first, second, third = processes
    assert [process.enter("a", 1.0) for process in (first, second, third)] == [True, True, False]
    first.connections_of_user.leave("a")
    assert third.enter("a", 1.0)
    second.connections_of_user.leave("a")
    assert [process.enter("a", 1.0) for process in (second, first, third)] == [True, False, False]
    third.connections_of_user.leave("a")
    assert [process.enter("a", 1.0) for process in processes] == [False] * PROCESSES
    assert first.enter("b", 1.0)


KILLED_ONCE = """
import os, pathlib, signal, sys
from portfolio_realtime.websocket_server.workers import counters_of
shared, lived = counters_of(sys.argv)("user"), pathlib.Path(sys.argv[1], sys.argv[3])
if not lived.exists():
    lived.touch()
    shared.tell("killed", 1)
    os.kill(os.getpid(), signal.SIGKILL)
shared.tell("living", 1)
signal.pause()
"""


async def test_what_a_killed_process_had_is_cleared_by_its_parent(tmp_path: Path, until: Until) -> None:
    """Its successor has never heard of it, so nobody else would."""
    workers = Workers((sys.executable, "-c", KILLED_ONCE, str(tmp_path)), dict(os.environ), PROCESSES - 1)
    running = asyncio.create_task(workers.run())
    try:
        shared = SharedCounters(workers._counters.file, PROCESSES - 1)
        parts = [shared.counter(index, "user") for index in range(PROCESSES - 1)]
        await until(lambda: [part.elsewhere("living") for part in parts] == [1, 1], "the second life of both")
        assert [part.elsewhere("killed") for part in parts] == [0, 0]
    finally:
        workers._signalled()
        assert await running == 0
