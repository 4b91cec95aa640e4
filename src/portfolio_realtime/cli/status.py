"""The present state of the whole system, read from Valkey: processes, owners, feeds, lag, drift.

All figures are those of `/metrics`. Rates and lags need two readings and are None in the first.
"""

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from portfolio_realtime.cli import users
from portfolio_realtime.cli.users import opened_state, within
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.market_data_consumer.feeds import schedules
from portfolio_realtime.redaction import clean
from portfolio_realtime.state import State, keys
from portfolio_realtime.telemetry import PREFIX

COLLECTOR: Final = "symbol_collector"
CONSUMER: Final = "market_data_consumer"
CALCULATOR: Final = "portfolio_calculator"
SERVER: Final = "websocket_server"
SERVICES: Final = (COLLECTOR, CONSUMER, CALCULATOR, SERVER)
P99: Final = 0.99
SILENT_S_MAX: Final = 60  # as in the alarm on FeedSilentSeconds

Samples = dict[tuple[str, str], list[tuple[Mapping[str, str], float]]]
"""(service, metric name without PREFIX) -> labels and values of all processes."""


class Process(msgspec.Struct, frozen=True):
    """A process that has written its metrics within the last seconds."""

    service: str
    instance: str
    errors: int
    shows: str  # its main figures, in words: accounts, connections and others


class Owner(msgspec.Struct, frozen=True):
    """The owner of a lease; None: nobody has it."""

    work: str
    owner: str | None


class FeedStatus(msgspec.Struct, frozen=True):
    """One feed of market data."""

    feed: str
    is_live: bool
    silent_s: float
    symbols: int
    updates_per_s: float | None
    reconnects: int


class SystemStatus(msgspec.Struct, frozen=True):
    """The state of the system at one time (`at`, RFC 3339). None: not known yet."""

    at: str
    processes: list[Process]
    leases: list[Owner]
    shards: list[Owner]
    feeds: list[FeedStatus]
    accounts: int
    watched: int
    stale: int
    unpriced: int
    connections: int
    messages_per_s: float | None
    publication_p99_s: float | None
    event_stream_lag_s: float
    record_drifts: int
    book_drift_dollars: float
    revocations_complete_since_s: int | None

    @property
    def troubles(self) -> list[str]:
        """Descriptions of all that is not as it should be."""
        found = [f"no {name} runs" for name in SERVICES if all(one.service != name for one in self.processes)]
        found += [f"{one.work} has no owner" for one in (*self.leases, *self.shards) if one.owner is None]
        silent = [one for one in self.feeds if one.silent_s > SILENT_S_MAX]
        found += [f"feed {one.feed} has been silent for {one.silent_s:.0f} s" for one in silent]
        return found


class Watcher:
    """Reads the state repeatedly; a rate is the change between two readings."""

    def __init__(self, state: State, settings: Settings) -> None:
        self._state = state
        self._settings = settings
        self._before: Samples = {}
        self._before_s = 0.0

    async def look(self) -> SystemStatus:
        """Read the present state. Raises StateUnavailable."""
        sources = await self._state.metrics.read_all()
        samples, now_s = _samples(sources), time.monotonic()
        elapsed_s = now_s - self._before_s if self._before else None
        known = await self._state.revocations.known()
        shards = range(self._settings.shards)
        feeds = [f"market_data:{each.name}" for each in schedules(self._settings)]
        status = SystemStatus(
            at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            processes=[_process(*source) for source in sorted(sources)],
            leases=await self._owners({name: name for name in (COLLECTOR, *feeds)}),
            shards=await self._owners({keys.shard_lease(shard): f"s{shard:02d}" for shard in shards}),
            feeds=await self._feeds(samples, elapsed_s),
            accounts=int(_sum(samples, COLLECTOR, "accounts")),
            watched=int(_sum(samples, CALCULATOR, "watched_accounts")),
            stale=int(_sum(samples, CALCULATOR, "stale_accounts")),
            unpriced=int(_sum(samples, CALCULATOR, "unpriced_accounts")),
            connections=int(_sum(samples, SERVER, "connections")),
            messages_per_s=self._rate(samples, elapsed_s, SERVER, "messages_sent_total"),
            publication_p99_s=self._p99(samples, CALCULATOR, "publication_lag_seconds"),
            event_stream_lag_s=_highest(samples, COLLECTOR, "event_stream_lag_seconds"),
            record_drifts=int(_sum(samples, COLLECTOR, "reconciled_total", outcome="drift")),
            book_drift_dollars=_highest(samples, CALCULATOR, "book_drift_dollars"),
            revocations_complete_since_s=known.since_s,
        )
        self._before, self._before_s = samples, now_s
        return status

    async def _owners(self, works: Mapping[str, str]) -> list[Owner]:
        """The owners of leases; `works` maps a lease to its name in the report."""
        holders = await self._state.leases.holders(list(works))
        return [Owner(works[lease], holder) for lease, holder in holders.items()]

    async def _feeds(self, samples: Samples, elapsed_s: float | None) -> list[FeedStatus]:
        found: list[FeedStatus] = []
        for schedule in schedules(self._settings):
            name = schedule.name
            found.append(
                FeedStatus(
                    name,
                    bool(await self._state.feeds.live(schedule.sources)),
                    _highest(samples, CONSUMER, "feed_silence_seconds", feed=name),
                    int(_sum(samples, CONSUMER, "subscribed_symbols", feed=name)),
                    self._rate(samples, elapsed_s, CONSUMER, "price_updates_total", feed=name),
                    int(_sum(samples, CONSUMER, "feed_reconnects_total", feed=name)),
                )
            )
        return found

    def _rate(
        self, samples: Samples, elapsed_s: float | None, service: str, name: str, **labels: str
    ) -> float | None:
        if not elapsed_s:
            return None
        grown = _sum(samples, service, name, **labels) - _sum(self._before, service, name, **labels)
        return max(0.0, grown) / elapsed_s

    def _p99(self, samples: Samples, service: str, name: str) -> float | None:
        """The upper bound of the bucket that contains the p99 since the last reading; None: not known."""
        if not self._before:
            return None
        grown: dict[float, float] = defaultdict(float)
        for sign, some in ((1, samples), (-1, self._before)):
            for labels, value in some.get((service, f"{name}_bucket"), ()):
                grown[float(labels["le"])] += sign * value
        count = grown.get(float("inf"), 0.0)
        within = [bound for bound, seen in sorted(grown.items()) if seen >= P99 * count]
        return within[0] if count > 0 and within[0] != float("inf") else None


async def look_twice(settings: Settings, interval_s: float) -> SystemStatus:
    """Read the present state twice, so that it includes rates. Raises SettingsError, StateUnavailable."""
    async with opened_state(settings, is_long=True) as state:
        watcher = Watcher(state, settings)
        await _look(watcher, settings)
        await asyncio.sleep(interval_s)
        return await _look(watcher, settings)


async def _look(watcher: Watcher, settings: Settings) -> SystemStatus:
    async with within(users.ANSWER_S_MAX, settings):
        return await watcher.look()


async def watch(settings: Settings, interval_s: float) -> None:
    """Show the state until cancelled, or an error while Valkey is unavailable. Raises SettingsError."""
    async with opened_state(settings, is_long=True) as state:
        watcher = Watcher(state, settings)
        with Live(Text("reading …"), auto_refresh=False, screen=sys.stdout.isatty()) as live:
            while True:
                try:
                    live.update(table(await _look(watcher, settings)), refresh=True)
                except StateUnavailable as error:
                    live.update(Text(clean(str(error)), style="bold red"), refresh=True)
                await asyncio.sleep(interval_s)


def table(status: SystemStatus) -> Group:
    """The state as tables for one screen."""
    parts: list[Any] = [Text(status.at, style="dim")]
    parts += [Text(trouble, style="bold red") for trouble in status.troubles]
    processes = _table("service", "process", "shows", "errors")
    for one in status.processes:
        processes.add_row(one.service, one.instance, one.shows, str(one.errors))
    feeds = _table("feed", "", "silent", "symbols", "updates/s", "reconnects")
    for one in status.feeds:
        away = Text("away", "red") if one.symbols else Text("not needed", "dim")
        live = Text("live", "green") if one.is_live else away
        silent, rate = f"{one.silent_s:.0f} s", _text(one.updates_per_s)
        feeds.add_row(one.feed, live, silent, str(one.symbols), rate, str(one.reconnects))
    owners = _table("work", "owner")
    for one in status.leases:
        owners.add_row(one.work, one.owner or Text("nobody", "red"))
    for owner, shards in _by_owner(status.shards).items():
        owners.add_row(f"shards {_ranges(shards)}", owner or Text("nobody", "red"))
    counts = ("accounts", "watched", "stale", "unpriced", "connections")
    numbers = _table(*counts, "messages/s", "p99 lag", "events late")
    numbers.add_row(
        *(str(getattr(status, name)) for name in counts),
        _text(status.messages_per_s),
        _text(status.publication_p99_s, " s"),
        f"{status.event_stream_lag_s:.1f} s",
    )
    drift = Text(f"drift: {status.record_drifts} records replaced, book {status.book_drift_dollars:.2f} $")
    return Group(*parts, processes, owners, feeds, numbers, drift)


def _table(*columns: str) -> Table:
    made = Table(show_edge=False, pad_edge=False, title_justify="left")
    for name in columns:
        made.add_column(name, overflow="fold")
    return made


def _text(value: float | None, unit: str = "") -> str:
    return "—" if value is None else f"{value:.3g}{unit}"


def _by_owner(shards: Iterable[Owner]) -> dict[str | None, list[int]]:
    found: dict[str | None, list[int]] = {}
    for one in shards:
        found.setdefault(one.owner, []).append(int(one.work.removeprefix("s")))
    return found


def _ranges(numbers: list[int]) -> str:
    """Sorted numbers as ranges, such as `0-7, 9`."""
    texts: list[str] = []
    for number in numbers:
        first, _, last = texts[-1].partition("-") if texts else ("", "", "")
        if texts and int(last or first) == number - 1:
            texts[-1] = f"{first}-{number}"
        else:
            texts.append(str(number))
    return ", ".join(texts)


def _samples(sources: Iterable[tuple[str, str, str]]) -> Samples:
    found: Samples = {}
    for service, _, text in sources:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name = sample.name.removeprefix(f"{PREFIX}_")
                found.setdefault((service, name), []).append((sample.labels, sample.value))
    return found


def _process(service: str, instance: str, text: str) -> Process:
    samples = _samples([(service, instance, text)])
    shows = {
        COLLECTOR: f"{_sum(samples, service, 'accounts'):.0f} accounts, "
        f"{_sum(samples, service, 'symbols'):.0f} symbols",
        CONSUMER: f"{_sum(samples, service, 'subscribed_symbols'):.0f} symbols subscribed",
        CALCULATOR: f"{_sum(samples, service, 'valued_accounts'):.0f} accounts in the book, "
        f"{_sum(samples, service, 'shards_owned'):.0f} shards",
        SERVER: f"{_sum(samples, service, 'connections'):.0f} connections",
    }
    errors = int(_sum(samples, service, "log_events_total", level="error"))
    return Process(service, instance, errors, shows.get(service, ""))


def _matching(samples: Samples, service: str, name: str, labels: Mapping[str, str]) -> list[float]:
    return [
        value
        for has, value in samples.get((service, name), ())
        if all(has.get(label) == wanted for label, wanted in labels.items())
    ]


def _sum(samples: Samples, service: str, name: str, **labels: str) -> float:
    return sum(_matching(samples, service, name, labels))


def _highest(samples: Samples, service: str, name: str, **labels: str) -> float:
    return max(_matching(samples, service, name, labels), default=0.0)
