"""On what all processes that share a state agree: settings, and the version of the wire that they write.

Settings: the first process writes them; a process with other values is refused. The number of shards is fixed
for the life of the state. The other settings expire AGREED_MS after the last process that holds them has
ended, so that they can be changed by stopping all processes.

The wire is all entries and messages between services. A release reads the versions OLDEST to NEWEST: its own
and the one before. It writes the newest version that every running process reads. So the processes of a
system may be replaced one by one, in any order, and back again. Each process says every few seconds what it
reads and what it writes, in the hash `wire`.

- One that starts waits while another one writes what it cannot read. The others hear of it and write an
  older version.
- A version is lowered at once. It is raised when all have been able to read it for RAISE_S: a hash that was
  lost fills again meanwhile.
- A process says that it writes a higher version before it does. Who comes in between therefore waits.

To add a version: raise NEWEST; read both; write the new one where `WireVersions.writes` is high enough (ask
once for a flush, not for a message). What is stored must be readable by both, or be written again when
`writes` changes. Then raise OLDEST and drop what nobody writes any more.

Releases before this say nothing in the hash `wire`. They work only where their own version stands in the
settings. While one of them runs, the settings stay as it writes them.
"""

import re
from collections.abc import Awaitable, Sequence
from typing import Final, NamedTuple, cast

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

OLDEST: Final = 4
NEWEST: Final = 4
LIVING_MS: Final = 8_000  # of a process that was killed
RAISE_S: Final = 10.0
MS_PER_HOUR: Final = 3_600_000
ENTRY: Final = re.compile(rb"(\d+) (\d+) (\d+) (\d+)")  # as the script `tell_wire` reads it, too
HOLD: Final = "hold"  # stands among the processes, and reads one version only
WAITING: Final = 0  # in place of the version that a process writes: it has not begun
AGREED_MS: Final = 15_000
WIRE: Final = "WIRE"  # the version that is written
READS: Final = "READS"  # the versions that are read; earlier releases do not write it
EARLIER: Final = "a process of an earlier release"
UNNAMED: Final = "0"  # the version of a process that names none


class WireProcess(NamedTuple):
    """What a process says of itself: the versions that it reads, and the one that it writes, or WAITING."""

    name: str
    oldest: int
    newest: int
    writes: int


class WireChoice:
    """Decides which version one process writes. Knows no Valkey and no clock."""

    def __init__(self, oldest: int, newest: int) -> None:
        self.oldest = oldest
        self.newest = newest
        self.writes = newest
        self.announced = WAITING
        self._since_s: float | None = None  # since when a higher version could be written

    def begin(self, others: Sequence[WireProcess]) -> WireProcess | None:
        """Choose a version to begin with, to be announced; or return a process that writes none of ours."""
        self.announced = WAITING
        written = [one for one in others if one.writes != WAITING]
        for one in written:
            if not self.oldest <= one.writes <= self.newest:
                return one
        self.writes = self.announced = min([self._common(others), *(one.writes for one in written)])
        return None

    def follow(self, others: Sequence[WireProcess], now_s: float) -> None:
        """Lower or raise the version, after `announced` was told and the others were read.

        `now_s`: monotonic seconds.
        """
        common = self._common(others)
        if common <= self.writes:
            self.writes = self.announced = common
            self._since_s = None
        elif self.announced == common:
            self.writes, self._since_s = common, None
        else:
            self._since_s = now_s if self._since_s is None else self._since_s
            self.announced = common if now_s - self._since_s >= RAISE_S else self.writes

    def _common(self, others: Sequence[WireProcess]) -> int:
        """The newest version that all read, without those that wait for versions which nobody writes."""
        floor = max([self.oldest, *(one.oldest for one in others if one.writes != WAITING)])
        return min([self.newest, *(one.newest for one in others if one.newest >= floor)])


class WireVersions:
    """The hash `wire`, for one process: `name` is its own there."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._name = name
        self._connection = connection
        self._choice = WireChoice(OLDEST, NEWEST)
        self._tell = connection.script("tell_wire")

    @property
    def writes(self) -> int:
        """The version that this process writes now."""
        return self._choice.writes

    @property
    def announced(self) -> int:
        """The version that this process says it writes: `writes`, or the next one."""
        return self._choice.announced or self._choice.newest

    @property
    def reads(self) -> str:
        """The versions that this process reads, such as `4-5`."""
        return f"{self._choice.oldest}-{self._choice.newest}"

    async def begin(self, now_s: float, silent: Sequence[WireProcess] = ()) -> WireProcess | None:
        """Begin to write, or return a process that writes what this one cannot read: try again then.

        `now_s`: monotonic seconds. `silent`: processes of a release that says nothing here. Raises
        StateUnavailable.
        """
        self._choice.announced = WAITING
        hindering = self._choice.begin([*await self._others(), *silent])
        if hindering is None:
            await self.follow(
                now_s, silent
            )  # says what was chosen: who has come in between sees it, or is seen
        return hindering

    async def follow(self, now_s: float, silent: Sequence[WireProcess] = ()) -> None:
        """Say what this process reads and writes, and lower or raise the version. Raises StateUnavailable."""
        self._choice.follow([*await self._others(), *silent], now_s)

    @reports_unavailable
    async def leave(self) -> None:
        """Say that this process has ended. Raises StateUnavailable."""
        await self._connection.commands.hdel(keys.wire(), self._name)

    async def _others(self) -> list[WireProcess]:
        choice = self._choice
        told = (self._name, LIVING_MS, choice.oldest, choice.newest, choice.announced)
        return [one for one in await self._told(told) if one.name != self._name]

    @reports_unavailable
    async def _told(self, told: tuple[str | int, ...]) -> list[WireProcess]:
        living = await self._tell(keys=[keys.wire()], args=told)
        return [WireProcess(each.decode(), *versions) for each, *versions in living]

    @reports_unavailable
    async def read(self) -> list[WireProcess]:
        """What all processes say, without saying anything. Raises StateUnavailable."""
        reading = self._connection.commands.hgetall(keys.wire())
        entries = await cast("Awaitable[dict[bytes, bytes]]", reading)
        now_ms = await self._connection.now_ms(keys.wire())
        said = ((name.decode(), ENTRY.fullmatch(entry)) for name, entry in entries.items())
        read = ((name, *map(int, one.groups())) for name, one in said if one is not None)
        return [WireProcess(name, *versions) for name, *versions, expiry_ms in read if expiry_ms > now_ms]

    @reports_unavailable
    async def hold(self, version: int, hours: float) -> None:
        """Let nobody write a version above this one for some hours. Raises StateUnavailable."""
        expiry_ms = await self._connection.now_ms(keys.wire()) + int(hours * MS_PER_HOUR)
        entry = f"{version} {version} {WAITING} {expiry_ms}"
        await self._connection.commands.hset(keys.wire(), HOLD, entry)

    @reports_unavailable
    async def release(self) -> None:
        """End what `hold` began. Raises StateUnavailable."""
        await self._connection.commands.hdel(keys.wire(), HOLD)


class Agreement:
    """The keys `shards` and `settings`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def shards(self, ours: int) -> int:
        """The agreed number of shards: `ours` if none was written yet. Raises StateUnavailable."""
        return int(await self._connection.written_once(keys.shards(), str(ours)))

    async def settings(self, ours: dict[str, str]) -> dict[str, str]:
        """The agreed settings: `ours` if no running process has written others. Raises StateUnavailable."""
        return _named(await self._connection.written_once(keys.settings(), _text(ours), AGREED_MS))

    @reports_unavailable
    async def keep(self, ours: dict[str, str]) -> list[WireProcess]:
        """Renew the agreed settings for AGREED_MS, unless processes of an earlier release do: see `earlier`.

        Raises StateUnavailable.
        """
        if others := await self.earlier():
            return others
        await self._connection.commands.set(keys.settings(), _text(ours), px=AGREED_MS)
        return []

    @reports_unavailable
    async def earlier(self) -> list[WireProcess]:
        """Who keeps the settings now, if it is of an earlier release. Raises StateUnavailable."""
        getting = self._connection.commands.get(keys.settings())
        here = await cast("Awaitable[bytes | None]", getting)
        return [] if here is None else earlier(_named(here.decode()))


def earlier(settings: dict[str, str]) -> list[WireProcess]:
    """The process that has written these settings, if it says in no other way which wire it reads."""
    if READS in settings:
        return []
    written = settings.get(WIRE, UNNAMED)
    version = int(written if written.isdecimal() else UNNAMED)
    return [WireProcess(EARLIER, version, version, version)]


def _text(settings: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())


def _named(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in text.split())}
