"""Fault plans: what fails, when, for how long, and on which feed, path or stream. No I/O and no clock.

A plan is a list of timed faults, written by hand (YAML or JSON) or made from a seed. The same seed gives the
same plan. `Faults` knows which faults are active. `control/fault_actions.py` does what a fault does at its
beginning and end; a lasting fault is looked up wherever it has an effect.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from typing import Any, NamedTuple, cast

import yaml

from alpaca_sim.core.switches import ODDITIES

PLAN_FAULTS_MAX = 10_000
PLAN_DURATION_S_MAX = 7 * 86_400.0
AT_S_MAX = PLAN_DURATION_S_MAX
# Of a plan made from a seed: seconds per fault, the part of its duration in which faults begin, and the
# longest fault as a part of its duration.
SECONDS_PER_FAULT = 6
START_SHARE = 0.75
FOR_SHARE_MAX = 0.25
ALL = "*"
FEED_NAMES = ("sip", "iex", "delayed_sip", "boats", "overnight", "test", "us", "indicative", "opra")
REST_NAMES = ("broker", "data")
STREAM_NAMES = ("activities", "trades", "system", "status", "nta")
_MOMENT = (0.0, 0.0)
_NO_LEVEL = (0.0, 0.0)
_SHARE = (0.01, 1.0)
_COUNT = (1.0, 50.0)


class PlanError(ValueError):
    """A plan is not valid. The message says what to write instead."""


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One kind of fault and its bounds (low, high).

    `for_s` (0, 0): the fault has no duration; `level` (0, 0): it has no level.
    """

    name: str
    about: str
    for_s: tuple[float, float] = _MOMENT
    level: tuple[float, float] = _NO_LEVEL
    level_means: str = ""
    is_of_the_market: bool = (
        False  # it moves prices or makes bookings, so it waits while the market is paused
    )
    is_seeded: bool = True  # a plan made from a seed may contain it; if false, only when it names the kind

    @property
    def targets(self) -> tuple[str, ...]:
        """The target names that this kind accepts, beside `*` for all.

        A REST fault also accepts the beginning of a path, such as /v1/accounts.
        """
        group = self.name.partition(".")[0]
        names = {"market": FEED_NAMES, "rest": REST_NAMES, "events": STREAM_NAMES}.get(group, ())
        return () if self.is_of_the_market else names


_LASTING = (0.1, 600.0)
_ODD_ABOUT = {
    "no_cash": "accounts are ONBOARDING and have no cash field",
    "euro": "accounts are in EUR",
    "error": "HTTP 500 for these accounts alone",
    "null_field": "null in the list's row and for cash",
    "twice": "a position comes twice with one symbol",
    "hold": "a resting order holds cash back, equity stays",
    "contradiction": "equity is 600 more than cash and positions",
    "ipo": "stocks are reported as class ipo without an exchange",
}
_FINAL_ODDITIES = frozenset({"euro"})  # an account's currency does not change back
KINDS: dict[str, FaultKind] = {
    kind.name: kind
    for kind in (
        FaultKind("market.mute", "sockets stay open and pongs come, but no data", _LASTING),
        FaultKind("market.cut", "connections are aborted"),
        FaultKind("market.half_open", "no data, no pongs, nothing is read; aborted at the end", _LASTING),
        FaultKind("market.slow", "data leaves in bursts", _LASTING, (0.05, 5.0), "seconds between bursts"),
        FaultKind("market.ghosts", "a cut, then 406 for every new session until it ends", _LASTING),
        FaultKind("market.slow_client", "407, then the connection is closed"),
        FaultKind(
            "market.reconnect_limit",
            "HTTP 429 for a handshake that comes too soon after the last one",
            _LASTING,
            (0.5, 60.0),
            "seconds between handshakes",
        ),
        FaultKind("market.repeat", "trades come twice", _LASTING, _SHARE, "share of the trades"),
        FaultKind("market.reorder", "trades of a batch come in a different order", _LASTING),
        FaultKind(
            "market.unknown", "unknown message types and fields", _LASTING, _SHARE, "share of the trades"
        ),
        FaultKind(
            "market.correct", "late corrections of last trades", _MOMENT, _COUNT, "number of symbols", True
        ),
        FaultKind("market.cancel", "late cancels of last trades", _MOMENT, _COUNT, "number of symbols", True),
        FaultKind(
            "market.halt",
            "halts, announced by status and LULD messages",
            _LASTING,
            _COUNT,
            "number of symbols",
            True,
        ),
        FaultKind("rest.slow", "answers take longer", _LASTING, (0.01, 30.0), "seconds"),
        FaultKind("rest.429", "HTTP 429 with headers that say when the limit resets", _LASTING),
        FaultKind("rest.5xx", "HTTP 500, 502, 503 or 504", _LASTING, _SHARE, "share of the requests"),
        FaultKind("rest.401", "HTTP 401", _LASTING, _SHARE, "share of the requests"),
        FaultKind(
            "rest.cut", "the connection ends without an answer", _LASTING, _SHARE, "share of the requests"
        ),
        FaultKind(
            "rest.malformed", "only half of the body is sent", _LASTING, _SHARE, "share of the answers"
        ),
        FaultKind(
            "rest.null_fields",
            "null where the documents promise a value",
            _LASTING,
            _SHARE,
            "share of the values",
        ),
        FaultKind(
            "rest.missing_fields", "optional keys are left out", _LASTING, _SHARE, "share of these keys"
        ),
        FaultKind(
            "rest.unknown_fields", "new keys and new enum values", _LASTING, _SHARE, "share of the objects"
        ),
        FaultKind(
            "rest.missing_parts",
            "snapshots without some of their parts, or missing",
            _LASTING,
            _SHARE,
            "share of the parts",
        ),
        FaultKind(
            "rest.lag", "balances and positions are older than the events", _LASTING, (0.05, 60.0), "seconds"
        ),
        FaultKind("events.repeat", "events come again", _LASTING, _SHARE, "share of the events"),
        FaultKind(
            "events.reorder",
            "events are held back and come in a different order across accounts",
            _LASTING,
            (0.05, 10.0),
            "seconds held back",
        ),
        FaultKind("events.drop", "events are lost; the slow-reader comment then says how many", _LASTING),
        FaultKind("events.error", "the comment `: internal server error`, then the stream ends"),
        FaultKind("events.eof", "a clean end of the stream"),
        FaultKind("events.cut", "connections are aborted"),
        FaultKind("events.mute", "streams stay open without events and heartbeats", _LASTING),
        FaultKind("events.refuse", "HTTP 429 for new streams", _LASTING),
        FaultKind("events.stale_cursor", "since_id is refused as too old", _LASTING),
        FaultKind(
            "events.irregular",
            "unusual spellings seen at Alpaca: empty currency, a time instead of a date, new keys",
            _LASTING,
            _SHARE,
            "share of the events",
        ),
        FaultKind("token.expire", "all bearer tokens expire"),
        FaultKind(
            "clock.skew",
            "Date header, clock endpoint and trade times are off",
            _LASTING,
            (-30.0, 30.0),
            "seconds ahead",
        ),
        FaultKind(
            "ledger.correct",
            "late corrections of trades in accounts",
            _MOMENT,
            _COUNT,
            "number of trades",
            True,
        ),
        FaultKind("ledger.bust", "trades in accounts are busted", _MOMENT, _COUNT, "number of trades", True),
        FaultKind(
            "ledger.group", "shares become others, or others and cash", _MOMENT, _COUNT, "accounts", True
        ),
        FaultKind(
            "ledger.exercise", "options become shares at the strike", _MOMENT, _COUNT, "accounts", True
        ),
        FaultKind("ledger.coins", "coins come in on chain", _MOMENT, _COUNT, "accounts", True),
        FaultKind("ledger.memo", "instant credits, settled 2 s later", _MOMENT, _COUNT, "accounts", True),
        FaultKind(
            "ledger.late",
            "deposits that REST shows at once, and events later",
            _MOMENT,
            (1.0, 30.0),
            "seconds",
            True,
        ),
        *(
            FaultKind(
                f"odd.{name}",
                _ODD_ABOUT[name],
                _LASTING,
                _COUNT,
                "accounts, by id",
                is_seeded=name not in _FINAL_ODDITIES,
            )
            for name in ODDITIES
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a plan: it begins `at_s` seconds after the plan, lasts `for_s` seconds, and hits `target`.

    Raises PlanError for an unknown kind or target and for a value outside the bounds of the kind.
    """

    kind: str
    at_s: float = 0.0
    for_s: float = 0.0
    target: str = ALL
    level: float = 0.0

    def __post_init__(self) -> None:
        kind = KINDS.get(self.kind)
        if kind is None:
            raise PlanError(f"unknown fault kind {self.kind!r}: choose from {', '.join(KINDS)}")
        _within(self, "at_s", self.at_s, (0.0, AT_S_MAX))
        _within(self, "for_s", self.for_s, kind.for_s)
        _within(self, "level", self.level, kind.level)
        is_path = self.target.startswith("/") and self.kind.startswith("rest.")
        if self.target != ALL and self.target not in kind.targets and not is_path:
            names = ", ".join((ALL, *kind.targets))
            raise PlanError(f"{self.kind} cannot hit {self.target!r}: choose its target from {names}")

    def hits(self, names: Iterable[str]) -> bool:
        """Whether the fault's target is one of these names (a feed, a stream, or a REST group and a path)."""
        if self.target == ALL:
            return True
        is_path = self.target.startswith("/")
        return any(name == self.target or (is_path and name.startswith(self.target)) for name in names)


def _within(fault: Fault, name: str, value: float, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not low <= value <= high:
        said = f"must be from {low:g} to {high:g}" if high > low else f"must be left out or {low:g}"
        raise PlanError(f"{name} of {fault.kind} is {value:g}: it {said}")


@dataclass(frozen=True, slots=True)
class Plan:
    """Faults in order of time. `seed` decides all random choices of the faults."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0

    @property
    def duration_s(self) -> float:
        """Seconds from the beginning of the plan to the end of its last fault."""
        return max((fault.at_s + fault.for_s for fault in self.faults), default=0.0)


def plan(seed: int, duration_s: float, kinds: Iterable[str] = (), count: int = 0) -> Plan:
    """Make a plan from a seed. All its faults end within `duration_s` seconds.

    `kinds` limits the kinds; empty: all seeded kinds. `count` 0 means one fault per SECONDS_PER_FAULT. Raises
    PlanError for an unknown kind and for a duration or count outside its bounds.
    """
    if not 1 <= duration_s <= PLAN_DURATION_S_MAX:
        raise PlanError(f"duration_s is {duration_s:g}: it must be from 1 to {PLAN_DURATION_S_MAX:g}")
    names = sorted(kinds) or sorted(name for name, kind in KINDS.items() if kind.is_seeded)
    rng = random.Random(f"{seed}/plan")
    if not 0 <= count <= PLAN_FAULTS_MAX:
        raise PlanError(f"count is {count}: it must be from 1 to {PLAN_FAULTS_MAX}")
    count = count or min(PLAN_FAULTS_MAX, max(1, round(duration_s / SECONDS_PER_FAULT)))
    faults = [_random_fault(rng, rng.choice(names), duration_s) for _ in range(count)]
    return Plan(tuple(sorted(faults, key=lambda fault: (fault.at_s, fault.kind))), seed)


def _random_fault(rng: random.Random, name: str, duration_s: float) -> Fault:
    kind = KINDS.get(name)
    if kind is None:
        raise PlanError(f"unknown fault kind {name!r}: choose from {', '.join(KINDS)}")
    low, high = kind.for_s
    for_s = rng.uniform(low, min(high, duration_s * FOR_SHARE_MAX)) if high else 0.0
    level = rng.uniform(*kind.level) if any(kind.level) else 0.0
    if kind.level == _COUNT:
        level = float(round(level))
    target = rng.choice((ALL, ALL, *kind.targets)) if kind.targets else ALL
    return Fault(
        name, round(rng.uniform(0, duration_s * START_SHARE), 3), round(for_s, 3), target, round(level, 3)
    )


def dump(made: Plan) -> str:
    """The plan as YAML. `load` reads it back; equal plans give equal text."""
    rows = [
        {key: value for key, value in asdict(fault).items() if value not in (0.0, ALL)}
        for fault in made.faults
    ]
    return yaml.safe_dump(
        {"seed": made.seed, "faults": rows}, sort_keys=False, default_flow_style=None, width=200
    )


def load(text: str) -> Plan:
    """Read a plan from YAML or JSON. Raises PlanError."""
    try:
        return parse(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise PlanError(f"the plan is not YAML: {error}") from error


def parse(body: object) -> Plan:
    """Read a decoded plan. Raises PlanError.

    `{"seed"?, "faults"}`, or for a plan made from a seed `{"seed"?, "duration_s", "kinds"?, "count"?}`.
    """
    if not isinstance(body, dict):
        raise PlanError("a plan is an object: write `faults:` with a list below it")
    fields = cast("dict[str, Any]", body)
    unknown = set(fields) - {"seed", "faults", "duration_s", "kinds", "count"}
    if unknown:
        raise PlanError(f"a plan has no {', '.join(sorted(unknown))}: write seed and faults")
    seed = fields.get("seed", 0)
    if not isinstance(seed, int):
        raise PlanError(f"seed is {seed!r}: write a whole number")
    if "duration_s" in fields:
        kinds = fields.get("kinds", [])
        if not isinstance(kinds, list):
            raise PlanError("kinds is a list of fault kinds")
        names = [str(kind) for kind in cast("list[object]", kinds)]
        return plan(
            seed,
            _number(fields, "duration_s"),
            names,
            int(_number(fields, "count")) if "count" in fields else 0,
        )
    rows = fields.get("faults")
    if not isinstance(rows, list):
        raise PlanError("a plan needs `faults`, a list, or `duration_s` to make one from its seed")
    listed = cast("list[object]", rows)
    if len(listed) > PLAN_FAULTS_MAX:
        raise PlanError(f"a plan has at most {PLAN_FAULTS_MAX} faults")
    faults = sorted((_fault(row) for row in listed), key=lambda fault: fault.at_s)
    return Plan(tuple(faults), seed)


def _fault(row: object) -> Fault:
    if not isinstance(row, dict) or "kind" not in row:
        raise PlanError(f"a fault is an object with a kind, not {row!r}")
    fields = cast("dict[str, Any]", row)
    unknown = set(fields) - {"kind", "at_s", "for_s", "target", "level"}
    if unknown:
        raise PlanError(
            f"a fault has no {', '.join(sorted(unknown))}: write kind, at_s, for_s, target, level"
        )
    numbers = {name: _number(fields, name) for name in ("at_s", "for_s", "level") if name in fields}
    return Fault(str(fields["kind"]), target=str(fields.get("target", ALL)), **numbers)


def _number(fields: Mapping[str, Any], name: str) -> float:
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PlanError(f"{name} is {value!r}: write a number of seconds or a level")
    return float(value)


class Change(NamedTuple):
    """A fault begins or ends."""

    fault: Fault
    begins: bool


@dataclass(slots=True)
class Faults:
    """The waiting and active faults of all installed plans, and the generator of their random choices."""

    rng: random.Random = field(default_factory=lambda: random.Random("faults"))
    elapsed_s: float = 0.0
    done_count: int = 0
    active: dict[str, list[Fault]] = field(default_factory=dict[str, list[Fault]])  # by kind
    _waiting: list[tuple[float, int, Fault]] = field(default_factory=list[tuple[float, int, Fault]])
    _ending: list[tuple[float, int, Fault]] = field(default_factory=list[tuple[float, int, Fault]])
    _count: int = 0

    def install(self, made: Plan) -> None:
        """Add a plan that begins now. Raises PlanError when more than PLAN_FAULTS_MAX faults would wait."""
        if len(self._waiting) + len(made.faults) > PLAN_FAULTS_MAX:
            raise PlanError(f"more than {PLAN_FAULTS_MAX} faults would wait: end the present plan first")
        self.rng = random.Random(f"{made.seed}/faults")
        for fault in made.faults:
            self._count += 1
            heappush(self._waiting, (self.elapsed_s + fault.at_s, self._count, fault))

    def step(self, elapsed_s: float, market_stands_still: bool = False) -> list[Change]:
        """Advance by `elapsed_s` seconds, and return the faults that begin and end in that time, in order.

        Faults that move the market wait while `market_stands_still`.
        """
        target_s = self.elapsed_s + elapsed_s
        changes: list[Change] = []
        postponed: list[tuple[float, int, Fault]] = []
        while (next_s := min(_first_s(self._ending), _first_s(self._waiting))) <= target_s:
            # One long step then has the same result as many short ones.
            self.elapsed_s = max(self.elapsed_s, next_s)
            if _first_s(self._ending) <= next_s:
                changes.append(self._end(heappop(self._ending)[2]))
                continue
            entry = heappop(self._waiting)
            if market_stands_still and KINDS[entry[2].kind].is_of_the_market:
                postponed.append(entry)
            else:
                changes.append(self._begin(entry))
        self.elapsed_s = target_s
        for entry in postponed:
            heappush(self._waiting, entry)
        return changes

    def clear(self) -> list[Change]:
        """End all active faults, drop the waiting ones, and return the ends."""
        self._waiting.clear()
        ending = [self._end(fault) for _, _, fault in sorted(self._ending)]
        self._ending.clear()
        return ending

    @property
    def waiting(self) -> list[Fault]:
        """The faults that have not begun, in order of time."""
        return [fault for _, _, fault in sorted(self._waiting)]

    @property
    def remaining_s(self) -> float:
        """Seconds until the last active or waiting fault ends; 0 without faults."""
        ends = [at_s for at_s, _, _ in self._ending] + [
            at_s + fault.for_s for at_s, _, fault in self._waiting
        ]
        return max(0.0, max(ends, default=self.elapsed_s) - self.elapsed_s)

    def ends_in_s(self, kind: str) -> float:
        """Seconds until the last active fault of a kind ends; 0 without one."""
        ends = [at_s for at_s, _, fault in self._ending if fault.kind == kind]
        return max(0.0, max(ends, default=self.elapsed_s) - self.elapsed_s)

    def level(self, kind: str, *names: str) -> float | None:
        """The level of the strongest active fault of a kind that hits one of the names; None without one."""
        faults = self.active.get(kind)
        if not faults:
            return None
        return max((fault.level for fault in faults if fault.hits(names)), key=abs, default=None)

    def is_on(self, kind: str, *names: str) -> bool:
        """Whether an active fault of a kind hits one of the names."""
        return self.level(kind, *names) is not None

    def strikes(self, kind: str, *names: str) -> bool:
        """Draw whether a fault of a kind, whose level is a probability, hits this time."""
        share = self.level(kind, *names)
        return share is not None and self.rng.random() < share

    def _begin(self, entry: tuple[float, int, Fault]) -> Change:
        at_s, number, fault = entry
        if fault.for_s:
            # Counted from now, not from its due time: a postponed fault lasts its full duration.
            heappush(self._ending, (max(at_s, self.elapsed_s) + fault.for_s, number, fault))
            self.active.setdefault(fault.kind, []).append(fault)
        else:
            self.done_count += 1
        return Change(fault, begins=True)

    def _end(self, fault: Fault) -> Change:
        faults = self.active[fault.kind]
        faults.remove(fault)
        if not faults:
            del self.active[fault.kind]
        self.done_count += 1
        return Change(fault, begins=False)


def _first_s(timed: list[tuple[float, int, Fault]]) -> float:
    return timed[0][0] if timed else float("inf")
