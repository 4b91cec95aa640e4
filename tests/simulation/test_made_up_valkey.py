"""The Valkey of the simulation answers as the real one does, command by command."""

import hashlib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.exceptions import ResponseError

from portfolio_harness.simulation.made_up_valkey import MadeUpValkey
from portfolio_harness.valkey_kinds import Valkeys

KEYS = st.sampled_from(["a", "b", "c"])
FIELDS = st.sampled_from(["x", "y", "z"])
VALUES = st.sampled_from(["1", "two", ""])
SCORES = st.integers(0, 5)
ENTRIES = st.sampled_from(["1-0", "2-0", "2-1", "3-0"])
COMMANDS = st.one_of(
    st.tuples(st.just("GET"), KEYS),
    st.tuples(st.just("SET"), KEYS, VALUES),
    st.tuples(st.just("SET"), KEYS, VALUES, st.just("NX")),
    st.tuples(st.just("SET"), KEYS, VALUES, st.just("NX"), st.just("GET")),
    st.tuples(st.just("SET"), KEYS, VALUES, st.just("PX"), st.just(60_000)),
    st.tuples(st.just("EXISTS"), KEYS),
    st.tuples(st.just("DEL"), KEYS),
    st.tuples(st.just("PEXPIRE"), KEYS, st.just(60_000)),
    st.tuples(st.just("HSET"), KEYS, FIELDS, VALUES),
    st.tuples(st.just("HGET"), KEYS, FIELDS),
    st.tuples(st.just("HMGET"), KEYS, FIELDS, FIELDS),
    st.tuples(st.just("HEXISTS"), KEYS, FIELDS),
    st.tuples(st.just("HLEN"), KEYS),
    st.tuples(st.just("HGETALL"), KEYS),
    st.tuples(st.just("HDEL"), KEYS, FIELDS),
    st.tuples(st.just("ZADD"), KEYS, SCORES, FIELDS),
    st.tuples(st.just("ZREM"), KEYS, FIELDS),
    st.tuples(st.just("ZREMRANGEBYSCORE"), KEYS, st.just("-inf"), SCORES),
    st.tuples(st.just("ZCARD"), KEYS),
    st.tuples(st.just("ZRANGE"), KEYS, st.just(0), st.just(-1)),
    st.tuples(st.just("ZSCORE"), KEYS, FIELDS),
    st.tuples(st.just("ZRANGEBYSCORE"), KEYS, st.just("-inf"), SCORES),
    st.tuples(st.just("XADD"), KEYS, st.just("MAXLEN"), st.just(2), ENTRIES, st.just("ids"), VALUES),
    st.tuples(st.just("XADD"), KEYS, st.just("MINID"), ENTRIES, ENTRIES, st.just("ids"), VALUES),
    st.tuples(st.just("XADD"), KEYS, ENTRIES, st.just("ids"), VALUES),
    st.tuples(st.just("XREAD"), st.just("COUNT"), st.just(2), st.just("STREAMS"), KEYS, ENTRIES),
    st.tuples(st.just("HSETNX"), KEYS, FIELDS, VALUES),
    st.tuples(st.just("EXPIRE"), KEYS, st.just(60)),
    st.tuples(st.just("XRANGE"), KEYS, ENTRIES, st.just("+")),
    st.tuples(st.just("XRANGE"), KEYS, ENTRIES.map("({}".format), st.just("+")),
    st.tuples(st.just("XRANGE"), KEYS, ENTRIES, st.just("+"), st.just("COUNT"), st.just("1")),
    st.tuples(st.just("XREVRANGE"), KEYS, st.just("+"), st.just("-"), st.just("COUNT"), st.just(1)),
    st.tuples(st.just("FLUSHALL")),
)


@example([("XADD", "a", "MINID", "2-0", "1-0", "ids", "x"), ("XADD", "a", "MAXLEN", 2, "1-0", "ids", "x")])
@given(st.lists(COMMANDS, max_size=30))
@settings(max_examples=150, deadline=None)
def test_it_answers_as_the_real_one(real_url: str, commands: list[tuple[Any, ...]]) -> None:
    """Errors included; a hash has no order."""
    made_up = MadeUpValkey(lambda: 0)
    client: Any
    with Redis.from_url(real_url, protocol=2) as client:
        client.response_callbacks.clear()
        client.execute_command("FLUSHALL")
        for command in commands:
            assert answer(lambda: made_up.do(*command), command) == answer(  # noqa: B023  # called at once
                lambda: client.execute_command(*command),  # noqa: B023  # called at once
                command,
            ), commands


def test_a_script_has_the_same_types(real_url: str) -> None:
    """Numbers, bytes, what is missing, and what a command inside it answers."""
    text = "return {ARGV[1], #KEYS, redis.call('exists', KEYS[1]), redis.call('hget', KEYS[1], 'x'), 'end'}"
    made_up = MadeUpValkey(lambda: 0)
    with Redis.from_url(real_url, protocol=2) as client:
        client.response_callbacks.clear()
        client.execute_command("FLUSHALL")
        for one in (made_up.do, client.execute_command):
            one("HSET", "a", "y", "1")
        for call in (("EVAL", text), ("EVALSHA", hashlib.sha1(text.encode()).hexdigest())):  # noqa: S324  # as Valkey names scripts
            asked = (*call, 1, "a", "given")
            assert made_up.do(*asked) == client.execute_command(*asked)


@pytest.fixture(scope="module")
def real_url(session_valkey: Valkeys) -> str:
    """URL of the real one."""
    return session_valkey.url


def answer(ask: Any, command: tuple[Any, ...]) -> Any:
    """What it says, in a form that can be compared."""
    try:
        said = ask()
    except ResponseError as error:
        return str(error).split()[0]
    if command[0] == "HGETALL":
        return sorted(zip(said[::2], said[1::2], strict=True))
    return said


def test_it_tells_when_a_key_expires(real_url: str) -> None:
    """By its own clock; -1 for a key that stays, -2 for one that is not there."""
    made_up = MadeUpValkey(lambda: 1_000)
    with Redis.from_url(real_url, protocol=2) as client:
        client.execute_command("FLUSHALL")
        for one in (made_up.do, client.execute_command):
            one("SET", "kept", "1")
            one("SET", "passing", "1", "PX", 60_000)
            assert [one("PEXPIRETIME", key) for key in ("missing", "kept")] == [-2, -1]
        seconds, _ = client.time()
        expiry_ms: Any = client.execute_command("PEXPIRETIME", "passing")
        assert made_up.do("PEXPIRETIME", "passing") == 61_000
        assert 0 <= expiry_ms - 1000 * seconds <= 61_000
