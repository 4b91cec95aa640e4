"""Judges what clients see while the market moves: nothing wrong without a mark, and no mark that stays.

A value may be as old as its propagation takes: PROPAGATION_S, and the time for which a fault plan holds data
back. A value that is older must be true or marked. At each look, what clients show is noted first. Then the
ledger is read, with the time at which each former record ended: on a busy machine looks are seconds apart,
and what changed just before a look was not wrong for all that time.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NamedTuple, Protocol

from portfolio_harness.clients import Clients
from portfolio_harness.convergence import record_marks
from portfolio_harness.oracle import FormerTruth, Oracle, Truth
from portfolio_harness.progress import say
from portfolio_realtime.cancellation import cancel_until_ended

# The silence of a feed is noticed after 5 s. What it did not send comes with the next snapshot, and then a
# publication takes its time on a busy machine. A booking is shown sooner.
PROPAGATION_S: Final = 7.0
LOOK_S: Final = 0.25
LOOK_SHARE_MAX: Final = 0.2  # of the time is spent on looks, also with many accounts …
PAUSE_S_MAX: Final = 1.0  # … but what is wrong for longer than the bound is never missed
MARKS_LAST: Final = 500  # marks per symbol that each look reads
STATEMENT_S_MAX: Final = 30.0  # a mark is removed by the broker's next statements, which come within seconds
KEPT_S: Final = 120.0  # how long former true states are kept
STATES_MAX: Final = 512  # of one account or one symbol
COMPLAINTS_MAX: Final = 10
RECORD_FIGURES: Final = ("cash", "last_equity", "external_cash_flow")
HOLDING_BACK: Final = ("events.", "rest.", "token.", "market.", "clock.")  # faults that hold data back

Marks = Mapping[
    str, Sequence[Sequence[str]]
]  # symbol -> its newest marks (time, price), the present one last


class ShownAccount(Protocol):
    """What the judge reads of one client."""

    @property
    def account_id(self) -> str:
        """The account that it shows."""
        ...

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """Symbol -> its newest position row."""
        ...

    @property
    def newest(self) -> dict[str, Any] | None:
        """The newest portfolio message; None before the first."""
        ...


class Shown(NamedTuple):
    """What a client showed at one moment."""

    account_id: str
    rows: Mapping[str, Mapping[str, Any]]
    newest: dict[str, Any] | None


class Record(NamedTuple):
    """An account's record: cash, last equity and external cash flow in dollars, and quantities by symbol."""

    figures: tuple[str | None, ...]
    quantities: frozenset[tuple[str, Decimal]]


@dataclass(slots=True)
class _TrueUntil:
    """The true states of one record or one price, each with the time until which it was true.

    `settled` is the newest one that is not between the two bookings of a split.
    """

    states: dict[object, float] = field(default_factory=dict[object, float])
    last: object = None
    settled: object = None

    def end(self, state: object, ended_s: float) -> None:
        """Add a state that was true until then, and is not any more."""
        self.states.pop(state, None)
        self.states[state] = ended_s

    def learn(self, states: Iterable[object], now_s: float) -> None:
        """Add states that were true since the last call, in order; the last one is true now."""
        for state in states:
            self.end(state, now_s)
            self.last = state
        for state in list(self.states):
            if now_s - self.states[state] <= KEPT_S and len(self.states) <= STATES_MAX:
                break  # the dict is ordered by time, oldest first
            del self.states[state]


@dataclass
class Judge:
    """Compares clients with the ledger at each look, and counts what exceeds the bounds."""

    allowed_s: float = PROPAGATION_S  # how long something may be wrong without a mark
    marked_s_max: float = STATEMENT_S_MAX  # how long a right record may be marked
    looks: int = 0
    wrong: int = 0  # records and prices that were wrong without a mark for longer
    overmarked: int = 0  # records that were right and marked for longer
    apart_s: float = 0.0  # the longest time between two looks
    unknown: int = 0  # looks at prices that moved more than MARKS_LAST times since the last look
    forgotten: int = 0  # looks without records: they had changed too often since the last look
    wrong_s: float = 0.0  # the longest time for which a record was wrong without a mark
    price_wrong_s: float = 0.0  # the same for prices
    marked_s: float = 0.0  # the longest time for which a right record was marked
    complaints: list[str] = field(default_factory=list[str])
    _records: dict[str, _TrueUntil] = field(default_factory=dict[str, _TrueUntil])
    _prices: dict[str, _TrueUntil] = field(default_factory=dict[str, _TrueUntil])
    _newest: dict[str, str] = field(default_factory=dict[str, str])  # symbol -> time of its last mark
    _right_s: dict[object, float] = field(default_factory=dict[object, float])  # when last right or marked
    _marked_since_s: dict[str, float] = field(default_factory=dict[str, float])
    _looked_s: float | None = None
    _blamed: set[object] = field(default_factory=set[object])

    @property
    def is_clean(self) -> bool:
        """Whether everything stayed within the bounds."""
        return self.wrong + self.overmarked == 0

    def look(
        self,
        now_s: float,
        truths: Mapping[str, Truth],
        marks: Marks,
        clients: Iterable[ShownAccount],
        former: Iterable[FormerTruth] | None = (),
    ) -> None:
        """Compare what every client showed at `now_s` with the present and the former truth.

        `now_s` is monotonic; the truth was read after it. `former`: the records that ended since the last
        look, oldest first; None: some are forgotten.
        """
        self.looks += 1
        self.apart_s = max(self.apart_s, now_s - (now_s if self._looked_s is None else self._looked_s))
        self._looked_s = now_s
        self.forgotten += former is None
        self._learn_records(truths, former or (), now_s)
        jumped = {symbol for symbol, prices in marks.items() if self._learn_prices(symbol, prices, now_s)}
        self.unknown += len(jumped)
        for client in clients:
            if client.newest is not None and client.account_id in truths:
                # Between the two bookings of a split, the product keeps showing the state before.
                is_excused = former is None or bool(truths[client.account_id].in_transit)
                self._judge_record(now_s, client, client.newest, is_excused=is_excused)
                self._judge_prices(now_s, client, client.newest, jumped)

    def _learn_records(
        self, truths: Mapping[str, Truth], former: Iterable[FormerTruth], now_s: float
    ) -> None:
        """Add the records that have ended since the last look, and the present ones."""
        for one in former:
            known = self._records.setdefault(one.account_id, _TrueUntil())
            if not one.is_in_transit:
                known.settled = true_record(one)
            known.end(known.settled, one.ended_s)
        for account_id, truth in truths.items():
            known = self._records.setdefault(account_id, _TrueUntil())
            known.learn([true_record(truth)], now_s)
            if not truth.in_transit:
                known.settled = known.last

    def _learn_prices(self, symbol: str, marks: Sequence[Sequence[str]], now_s: float) -> bool:
        """Add the marks since the last look. True: marks between the two looks are missing."""
        known, before = self._prices.setdefault(symbol, _TrueUntil()), self._newest.get(symbol)
        moments = [moment for moment, _ in marks]
        first = moments.index(before) if before in moments else -1
        known.learn([Decimal(price) for _, price in marks[first:]], now_s)
        self._newest[symbol] = moments[-1]
        return before is not None and first < 0

    def _judge_record(
        self, now_s: float, client: ShownAccount, newest: dict[str, Any], *, is_excused: bool
    ) -> None:
        account_id, shown = client.account_id, shown_record(client, newest)
        is_marked = bool(record_marks(newest))
        true_s = self._records[account_id].states.get(shown)
        wrong_s = self._wrong_s(account_id, now_s, now_s if is_marked or is_excused else true_s)
        self.wrong_s = max(self.wrong_s, wrong_s)
        self._blame(account_id, wrong_s, f"record {shown}, not {self._records[account_id].last}")
        if is_marked and shown == self._records[account_id].last:
            marked_s = now_s - self._marked_since_s.setdefault(account_id, now_s)
            self.marked_s = max(self.marked_s, marked_s)
            if marked_s > self.marked_s_max and (account_id, "marked") not in self._blamed:
                self._blamed.add((account_id, "marked"))
                self.overmarked += 1
                self._complain(f"{account_id}: right and marked for {marked_s:.1f} s: {record_marks(newest)}")
        else:
            self._marked_since_s.pop(account_id, None)

    def _judge_prices(
        self, now_s: float, client: ShownAccount, newest: dict[str, Any], jumped: set[str]
    ) -> None:
        marked = {*newest["stale"], *newest["unpriced"]}
        for symbol, row in client.rows.items():
            known = self._prices.get(symbol)
            if known is None or row.get("mark") is None or row["quantity"] == "0":
                continue
            key = (client.account_id, symbol)
            is_excused = symbol in marked or symbol in jumped
            wrong_s = self._wrong_s(
                key, now_s, now_s if is_excused else known.states.get(Decimal(row["mark"]))
            )
            self.price_wrong_s = max(self.price_wrong_s, wrong_s)
            self._blame(key, wrong_s, f"mark {row['mark']}, not {known.last}")

    def _wrong_s(self, key: object, now_s: float, right_s: float | None) -> float:
        """How long this has been wrong without a mark, from the last time it was true or marked."""
        last_s = max(self._right_s.get(key, now_s), right_s or 0.0)
        self._right_s[key] = last_s
        return max(0.0, now_s - last_s)  # it may have ended after `now_s`, while the ledger was read

    def _blame(self, key: object, wrong_s: float, text: str) -> None:
        if wrong_s <= self.allowed_s:
            self._blamed.discard(key)
        elif key not in self._blamed:
            self._blamed.add(key)
            self.wrong += 1
            self._complain(f"{key}: wrong without a mark for {wrong_s:.1f} s: {text}")

    def _complain(self, text: str) -> None:
        if len(self.complaints) < COMPLAINTS_MAX:
            self.complaints.append(text)


@contextlib.asynccontextmanager
async def judging(judge: Judge, oracle: Oracle, clients: Clients) -> AsyncGenerator[Judge]:
    """Let `judge` look at all clients every LOOK_S inside the context; print its complaints at the end.

    The simulator must be on this machine: the times at which records ended are of one monotonic clock.
    """

    async def look_on() -> None:
        looked_s = time.monotonic()
        while True:
            began_s, shown = time.monotonic(), [_shown(client) for client in clients.all]
            truths = await oracle.truth()
            former, is_whole = await oracle.former(looked_s)
            marks = await oracle.marks(MARKS_LAST)
            judge.look(began_s, truths, marks, shown, former if is_whole else None)
            looked_s = began_s
            took_s = time.monotonic() - began_s
            await asyncio.sleep(min(PAUSE_S_MAX, max(LOOK_S, took_s / LOOK_SHARE_MAX)))

    looking = asyncio.create_task(look_on())
    try:
        yield judge
    finally:
        if looking.done():
            looking.result()  # raises the exception that ended it
        await cancel_until_ended([looking])
        for complaint in judge.complaints:
            say(f"  {complaint}")
        if judge.unknown:
            say(f"  {judge.unknown} prices not judged: more than {MARKS_LAST} marks between two looks")
        if judge.forgotten:
            say(f"  {judge.forgotten} looks without records: the ledger had changed too often since the last")
        if judge.apart_s > judge.allowed_s:
            say(f"  two looks were {judge.apart_s:.1f} s apart: what was wrong in between may be missed")


def _shown(client: ShownAccount) -> Shown:
    """What the client shows now."""
    return Shown(client.account_id, dict(client.rows), client.newest)


def true_record(truth: Truth | FormerTruth) -> Record:
    """The record of an account as the ledger has it, or had it."""
    return Record(tuple(truth.figures[name] for name in RECORD_FIGURES), frozenset(truth.quantities.items()))


def shown_record(client: ShownAccount, newest: Mapping[str, Any]) -> Record:
    """The record of an account as a client shows it; positions of quantity 0 are left out."""
    quantities = {symbol: Decimal(row["quantity"]) for symbol, row in client.rows.items()}
    held = frozenset((symbol, quantity) for symbol, quantity in quantities.items() if quantity)
    return Record(tuple(newest.get(name) for name in RECORD_FIGURES), held)


def held_back_s(plan: Mapping[str, Any]) -> float:
    """The longest time in seconds for which the faults of a plan can hold back data of broker or market."""
    return sum(
        fault["for_s"] + (fault["level"] if fault["kind"] == "events.reorder" else 0.0)
        for fault in plan["faults"]
        if fault["kind"].startswith(HOLDING_BACK)
    )
