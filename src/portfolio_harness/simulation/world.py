"""The world of a trial without its faults: two of every service, one Valkey, and the clients."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry

from portfolio_harness.simulation.broker_truth import TrueBroker, wall_ns
from portfolio_harness.simulation.history import TrialHistory
from portfolio_harness.simulation.judge import SimulationJudge, WatcherHistory
from portfolio_harness.simulation.links import SimulatedClient, SimulatedLink, SimulatedNetwork
from portfolio_harness.simulation.made_up_valkey import MadeUpValkey
from portfolio_harness.simulation.makers import SimulatedCollector, SimulatedConsumer
from portfolio_harness.simulation.stories import TrialStory
from portfolio_harness.simulation.virtual_loop import SimulatedProcess, VirtualLoop
from portfolio_harness.simulation.watchers import SimulatedServer, SimulatedWatcher
from portfolio_realtime import config
from portfolio_realtime.portfolio_calculator import calculator
from portfolio_realtime.service import Context, keep_running
from portfolio_realtime.state import open_state
from portfolio_realtime.telemetry import CalculatorMetrics, ServerMetrics
from portfolio_realtime.wire.messages import Subscribe

SHARDS: Final = 2
LEASE_MS: Final = 3000
PRICE_TTL_S: Final = 10.0  # longer than a feed may be silent unnoticed
TOKEN_S: Final = 60.0
OPERATOR_URL: Final = "sim://operator"
SETTINGS: Final = config.load(
    _env_file=None,
    shards=SHARDS,
    lease_ms=LEASE_MS,
    lease_renew_ms=LEASE_MS // 3,
    price_ttl=PRICE_TTL_S,
    min_update_interval=0.4,
)


class SharedMetrics:
    """Metrics that nothing reads, made once for all trials: making them takes longer than a trial."""

    def __init__(self) -> None:
        self.none = CollectorRegistry()
        self.calculator = CalculatorMetrics(CollectorRegistry())
        self.server = ServerMetrics(CollectorRegistry())


@dataclass(frozen=True)
class WorldClock:
    """The clocks of one process. Its wall clock may be shifted, its monotonic clock is not."""

    process: SimulatedProcess

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, with the shift of this process."""
        return wall_ns(self.process.loop.time() + self.process.skew_s)

    def monotonic_s(self) -> float:
        """Virtual monotonic seconds."""
        return self.process.loop.time()


@dataclass
class Running:
    """A process with its link, its simulated service (`part`), and the function that starts it again."""

    name: str
    start: Callable[["Running"], None]
    process: SimulatedProcess
    link: SimulatedLink
    part: Any = None


class World:
    """Two of every service, one Valkey, and the clients. The seed decides everything."""

    def __init__(self, seed: int, story: TrialStory, loop: VirtualLoop, metrics: SharedMetrics) -> None:
        self._story = story
        self.rng = random.Random(seed)
        self.loop = loop
        self._metrics = metrics
        self.valkey_skew_s = 0.0
        self.valkey = MadeUpValkey(lambda: wall_ns(loop.time() + self.valkey_skew_s) // 1_000_000)
        self.history = TrialHistory(loop.time)
        self.valkey.overheard = self.history.note
        self.network = SimulatedNetwork(self.valkey, self.rng)
        self.truth = TrueBroker(self.rng)
        self.judge = SimulationJudge(self.truth, PRICE_TTL_S, self.history)
        self.network.overheard = lambda channel, payload: self.judge.overhear(channel, payload, loop.time())
        self.shard_count = SHARDS
        self.is_feed_there = self.is_broker_there = True
        SimulatedClient.links[OPERATOR_URL] = SimulatedLink(self.network)
        self.services: dict[str, Running] = {}
        self.histories: list[WatcherHistory] = []
        self._watchers: dict[str, SimulatedWatcher] = {}
        self._filenos = 0
        for number in (1, 2):
            self._add(f"collector-{number}", self._collector)
            self._add(f"consumer-{number}", self._consumer)
            self._add(f"calculator-{number}", self._calculator)
            self._add(f"server-{number}", self._server)

    def _add(self, name: str, start: Callable[[Running], None]) -> None:
        running = Running(name, start, SimulatedProcess(name, self.loop), SimulatedLink(self.network))
        SimulatedClient.links[f"sim://{name}"] = running.link
        self.services[name] = running
        start(running)

    def restart(self, running: Running) -> None:
        """Start a new process in place of a dead one."""
        running.process = SimulatedProcess(running.name, self.loop)
        running.start(running)

    def _context(self, running: Running, registry: CollectorRegistry) -> Context:
        state = open_state(
            f"sim://{running.name}",
            holder=f"{running.name}:{self.rng.randrange(1 << 30)}",
            shards=SHARDS,
            lease_ms=LEASE_MS,
            is_cluster=False,
        )
        return Context(SETTINGS, state, WorldClock(running.process), registry, running.name)

    def _collector(self, running: Running) -> None:
        context = self._context(running, self._metrics.none)
        running.part = SimulatedCollector(context, self.truth, self.rng)
        running.process.start(running.part.run())

    def _consumer(self, running: Running) -> None:
        running.part = SimulatedConsumer(self._context(running, self._metrics.none), self.truth)
        running.process.start(running.part.run())

    def _calculator(self, running: Running) -> None:
        context = self._context(running, self._metrics.none)
        metrics, began_s = self._metrics.calculator, self.loop.time()
        running.process.start(
            keep_running(
                lambda: calculator.Calculator(context, metrics, began_s).run(), context.clock, "calculator"
            )
        )

    def _server(self, running: Running) -> None:
        context = self._context(running, self._metrics.none)
        running.part = SimulatedServer(
            context.state, SETTINGS, context.clock, self._metrics.server, self.judge
        )
        running.process.start(running.part.run())

    # Clients

    def attach_clients(self) -> None:
        """Connect two clients per account, one with values and one with positions, to different servers."""
        for number, account_id in enumerate(self.truth.accounts):
            for detail in (False, True):
                name = f"{account_id}{'+' if detail else ''}"
                history = WatcherHistory(name, account_id, with_positions=detail)
                self.histories.append(history)
                self.connect(history, f"server-{1 + (number + detail) % 2}")

    def connect(self, history: WatcherHistory, server: str) -> None:
        """Open a connection and subscribe; also try all other accounts, which must be refused."""
        running = self.services[server]
        self._filenos += 1
        valid_s = self._story.short_token_s if history is self.histories[0] else TOKEN_S
        watcher = SimulatedWatcher(running.part, history, self._filenos, valid_s)
        self._watchers[history.name] = watcher
        watcher.subscribe()
        for other in self.truth.accounts:
            if other != history.account_id:
                watcher.ask(Subscribe(other))

    def close_clients(self, server: str) -> None:
        """Close the connections of a server that has died. `come_again` reconnects them."""
        for history in self.histories:
            watcher = self._watchers[history.name]
            if watcher.server is self.services[server].part:
                watcher.is_open, history.is_away = False, True

    @property
    def watchers(self) -> dict[str, SimulatedWatcher]:
        """Name of a client -> its newest connection."""
        return self._watchers

    def come_again(self, server: str) -> None:
        """Connect to this server all clients that have no connection, unless it has died again."""
        if self.services[server].process.is_dead:
            return
        for history in self.histories:
            if not self._watchers[history.name].is_open:
                self.connect(history, server)

    def be_away(self, server: str, *, is_away: bool) -> None:
        """Note that a server is frozen, or runs again: its clients are not judged while it is frozen."""
        for history in self.histories:
            if self._watchers[history.name].server is self.services[server].part:
                history.is_away, history.since_s = is_away, self.loop.time()

    def cut_all(self, *, is_cut: bool) -> None:
        """Cut the links of all processes to Valkey, or restore them; all subscriptions break."""
        for running in self.services.values():
            running.link.is_cut = is_cut
        self.network.break_subscriptions()

    def each(self, service: str, act: Callable[[Any], None]) -> None:
        """Call `act` with the simulated service of each living process whose name begins with `service`."""
        for running in self.services.values():
            if running.name.startswith(service) and not running.process.is_dead:
                act(running.part)

    def failures(self) -> list[str]:
        """Services that ended by themselves, and exceptions that nothing awaited."""
        ended = [f"{one.name} has ended" for one in self.services.values() if one.process.has_ended]
        return ended + self.loop.failures
