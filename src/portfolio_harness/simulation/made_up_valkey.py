"""A Valkey in memory: the commands that the services use, and the product's own Lua scripts.

A command runs without interruption, as in a real Valkey. `tests/simulation` compares its answers with those
of a real one, command by command.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from copy import copy as shallow_copy
from typing import Any, Final, cast

from lupa import lua51
from redis.exceptions import NoScriptError, ResponseError

Answer = Any  # bytes, int, None, or a list of these
_SCRIPTS: Final = cast("Any", lua51.LuaRuntime)(encoding=None, unpack_returned_tuples=False)
planted: Final[dict[bytes, bytes]] = {}  # text of scripts -> its replacement, while a mutant is planted


class SortedSet(dict[bytes, float]):
    """Member -> score."""

    def ordered(self) -> list[bytes]:
        """The members by score, then by name."""
        return sorted(self, key=lambda member: (self[member], member))


class Stream(list[tuple[bytes, tuple[bytes, ...]]]):
    """Entries: id, and its fields and values. An emptied stream still knows its newest id."""

    newest: tuple[int, int] = (0, 0)


class MadeUpValkey:
    """One server. `now_ms` is its clock; `publish` delivers a message and returns the number of receivers.

    `overheard` is called with every command and its arguments.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._began_ms = now_ms()
        self._values: dict[bytes, Any] = {}
        self._expiry_ms: dict[bytes, int] = {}
        self._scripts: dict[bytes, bytes] = {}
        self._api = _SCRIPTS.table_from({b"call": self._call_of_script})
        self.overheard: Callable[[list[bytes]], None] = lambda _: None
        self.publish: Callable[[bytes, bytes], int] = lambda _channel, _payload: 0

    def copy(self) -> tuple[dict[bytes, Any], dict[bytes, int]]:
        """A copy of all keys and expiry times, as a replica has it."""
        values = {key: shallow_copy(value) for key, value in self._values.items()}
        return values, dict(self._expiry_ms)

    def become(self, copied: tuple[dict[bytes, Any], dict[bytes, int]]) -> None:
        """Replace everything by a copy, as when a replica with this state becomes the primary."""
        values, expiry_ms = copied
        self._values = {key: shallow_copy(value) for key, value in values.items()}
        self._expiry_ms = dict(expiry_ms)
        self._scripts.clear()

    def restart_empty(self) -> None:
        """Lose everything, as when the process ends and is started again."""
        self.become(({}, {}))
        self._began_ms = self._now_ms()

    def do(self, *command: Any) -> Answer:
        """Run one command and return the answer. Raises redis.ResponseError."""
        parts = [part if type(part) is bytes else _raw(part) for part in command]
        self.overheard(parts)
        name, *arguments = parts
        if arguments:
            self._expire(arguments[0])
        return _method(type(self), name)(self, *arguments)

    def _expire(self, key: bytes) -> None:
        expiry_ms = self._expiry_ms.get(key)
        if expiry_ms is not None and expiry_ms <= self._now_ms():
            self._delete(key)

    def _delete(self, key: bytes) -> int:
        self._expiry_ms.pop(key, None)
        return int(self._values.pop(key, None) is not None)

    def _read(self, key: bytes, kind: type[Any]) -> Any:
        self._expire(key)
        value = self._values.get(key)
        if value is not None and type(value) is not kind:
            raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def _hash(self, key: bytes) -> dict[bytes, bytes]:
        return self._read(key, dict) or {}

    # Strings

    def do_ping(self) -> Answer:
        return b"PONG"

    def do_time(self) -> Answer:
        now_ms = self._now_ms()
        return [b"%d" % (now_ms // 1000), b"%d" % (now_ms % 1000 * 1000)]

    def do_get(self, key: bytes) -> Answer:
        return self._read(key, bytes)

    def do_set(self, key: bytes, value: bytes, *options: bytes) -> Answer:
        words = [option.upper() for option in options]
        before = self._read(key, bytes) if b"GET" in words else self._values.get(key)
        if b"NX" not in words or before is None:
            self._values[key] = value
            self._expiry_ms.pop(key, None)
            if b"PX" in words:
                self._expiry_ms[key] = self._now_ms() + int(options[words.index(b"PX") + 1])
        elif b"GET" not in words:
            return None
        return before if b"GET" in words else b"OK"

    def do_mget(self, *keys: bytes) -> Answer:
        return [self._read(key, bytes) for key in keys]

    def do_exists(self, key: bytes) -> Answer:
        return int(key in self._values)

    def do_del(self, key: bytes) -> Answer:
        return self._delete(key)

    def do_info(self, _section: bytes) -> Answer:
        return b"uptime_in_seconds:%d\r\n" % ((self._now_ms() - self._began_ms) // 1000)

    def do_expire(self, key: bytes, seconds: bytes) -> Answer:
        return self.do_pexpire(key, b"%d" % (1000 * int(seconds)))

    def do_pexpire(self, key: bytes, ms: bytes) -> Answer:
        if key not in self._values:
            return 0
        self._expiry_ms[key] = self._now_ms() + int(ms)
        return 1

    def do_pexpiretime(self, key: bytes) -> Answer:
        return self._expiry_ms.get(key, -1) if key in self._values else -2

    def do_flushall(self) -> Answer:
        self._values.clear()
        self._expiry_ms.clear()
        return b"OK"

    # Hashes

    def do_hget(self, key: bytes, field: bytes) -> Answer:
        return self._hash(key).get(field)

    def do_hmget(self, key: bytes, *fields: bytes) -> Answer:
        held = self._hash(key)
        return [held.get(field) for field in fields]

    def do_hexists(self, key: bytes, field: bytes) -> Answer:
        return int(field in self._hash(key))

    def do_hlen(self, key: bytes) -> Answer:
        return len(self._hash(key))

    def do_hkeys(self, key: bytes) -> Answer:
        return list(self._hash(key))

    def do_hvals(self, key: bytes) -> Answer:
        return list(self._hash(key).values())

    def do_hgetall(self, key: bytes) -> Answer:
        return [part for pair in self._hash(key).items() for part in pair]

    def do_hscan(self, key: bytes, _cursor: bytes, *_options: bytes) -> Answer:
        return [b"0", self.do_hgetall(key)]

    def do_hset(self, key: bytes, *pairs: bytes) -> Answer:
        held = self._read(key, dict)
        if held is None:
            held = self._values[key] = {}
        before = len(held)
        held.update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(held) - before

    def do_hsetnx(self, key: bytes, field: bytes, value: bytes) -> Answer:
        return 0 if field in self._hash(key) else self.do_hset(key, field, value)

    def do_hdel(self, key: bytes, *fields: bytes) -> Answer:
        held = self._hash(key)
        gone = [held.pop(field) for field in fields if field in held]
        if not held:
            self._delete(key)
        return len(gone)

    # Sorted sets

    def _sorted(self, key: bytes) -> SortedSet:
        return self._read(key, SortedSet) or SortedSet()

    def do_zadd(self, key: bytes, *pairs: bytes) -> Answer:
        held = self._sorted(key)
        self._values[key] = held
        before = len(held)
        held.update((member, float(score)) for score, member in zip(pairs[::2], pairs[1::2], strict=True))
        return len(held) - before

    def do_zrem(self, key: bytes, *members: bytes) -> Answer:
        held = self._sorted(key)
        gone = [held.pop(member) for member in members if member in held]
        if not held:
            self._delete(key)
        return len(gone)

    def do_zremrangebyscore(self, key: bytes, _low: bytes, high: bytes) -> Answer:
        held = self._sorted(key)
        return self.do_zrem(key, *[member for member, score in held.items() if score <= float(high)])

    def do_zcard(self, key: bytes) -> Answer:
        return len(self._sorted(key))

    def do_zrange(self, key: bytes, _first: bytes, _last: bytes) -> Answer:
        return self._sorted(key).ordered()

    def do_zscore(self, key: bytes, member: bytes) -> Answer:
        score = self._sorted(key).get(member)
        return None if score is None else _raw(score)

    def do_zrangebyscore(self, key: bytes, _low: bytes, high: bytes) -> Answer:
        held = self._sorted(key)
        return [member for member in held.ordered() if held[member] <= float(high)]

    # Streams

    def do_xadd(self, key: bytes, *rest: bytes) -> Answer:
        limit = rest[0] if rest[0] in (b"MAXLEN", b"MINID") else b""
        bound, (entry_id, *fields) = (rest[1], rest[2:]) if limit else (b"", rest)
        found = self._read(key, Stream)
        held = Stream() if found is None else found
        newest = held.newest
        if entry_id == b"*":
            now_ms = self._now_ms()
            wanted = (now_ms, 0) if now_ms > newest[0] else (newest[0], newest[1] + 1)
        else:
            wanted = _id_parts(entry_id)
        if wanted <= newest:
            raise ResponseError(
                "The ID specified in XADD is equal or smaller than the target stream top item"
            )
        name = b"%d-%d" % wanted
        held.append((name, tuple(fields)))
        held.newest = wanted
        if limit == b"MAXLEN":
            del held[: -int(bound)]
        elif limit:
            held[:] = [entry for entry in held if _id_parts(entry[0]) >= _id_parts(bound)]
        self._values[key] = held
        return name

    def do_xread(self, _count: bytes, count: bytes, _streams: bytes, key: bytes, after: bytes) -> Answer:
        entries = self._read(key, Stream) or Stream()
        newer = [[name, list(fields)] for name, fields in entries if _id_parts(name) > _id_parts(after)]
        return [[key, newer[: int(count)]]] if newer else None

    def do_xrange(self, key: bytes, first: bytes, _last: bytes, *count: bytes) -> Answer:
        entries, after = self._read(key, Stream) or Stream(), first.startswith(b"(")
        least = _id_parts(first.removeprefix(b"("))
        found = [one for one in entries if (at := _id_parts(one[0])) > least or (at == least and not after)]
        return [[name, list(fields)] for name, fields in found[: int(count[1]) if count else None]]

    def do_xrevrange(self, key: bytes, _last: bytes, _first: bytes, _count: bytes, count: bytes) -> Answer:
        entries = self._read(key, Stream) or Stream()
        return [[name, list(fields)] for name, fields in entries[: -int(count) - 1 : -1]]

    # Messages and scripts

    def do_publish(self, channel: bytes, payload: bytes) -> Answer:
        return self.publish(channel, payload)

    def do_eval(self, text: bytes, key_count: bytes, *rest: bytes) -> Answer:
        self._scripts[hashlib.sha1(text).hexdigest().encode()] = text  # noqa: S324  # as Valkey names scripts
        count = int(key_count)
        return self._run(text, rest[:count], rest[count:])

    def do_evalsha(self, digest: bytes, key_count: bytes, *rest: bytes) -> Answer:
        text = self._scripts.get(digest)
        if text is None:
            raise NoScriptError("No matching script.")
        count = int(key_count)
        return self._run(text, rest[:count], rest[count:])

    def _run(self, text: bytes, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Answer:
        for old, new in planted.items():
            text = text.replace(old, new)
        names, values = _SCRIPTS.table_from(keys), _SCRIPTS.table_from(arguments)
        return _from_lua(_compiled(text)(names, values, self._api))

    def _call_of_script(self, *command: Any) -> Any:
        answer = self.do(*command)
        return answer if type(answer) is bytes else _to_lua(answer)


@functools.cache
def _compiled(text: bytes) -> Any:
    return _SCRIPTS.execute(b"return function(KEYS, ARGV, redis)\n" + text + b"\nend")


@functools.cache
def _method(kind: type[Any], name: bytes) -> Callable[..., Answer]:
    return getattr(kind, "do_" + name.decode().lower().replace(" ", "_"))


def _id_parts(entry_id: bytes) -> tuple[int, int]:
    ms, _, number = entry_id.partition(b"-")
    return int(ms), int(number or 0)


def _to_lua(answer: Answer) -> Any:
    if answer is None:
        return False
    if isinstance(answer, list):
        return _SCRIPTS.table_from([_to_lua(part) for part in cast("list[Any]", answer)])
    return answer


def _raw(part: Any) -> bytes:
    if type(part) is str:
        return part.encode()
    if isinstance(part, bytes):
        return part
    if isinstance(part, float):
        return repr(int(part) if part.is_integer() else part).encode()
    return str(part).encode()


def _from_lua(value: Any) -> Answer:
    if value is False or value is None:
        return None
    if value is True:
        return 1
    if isinstance(value, float):
        return int(value)
    if lua51.lua_type(value) == "table":
        return [_from_lua(value[index]) for index in range(1, len(value) + 1)]
    return value
