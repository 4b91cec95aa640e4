"""A trading week in minutes: every account is compared with the ledger through the day and at every roll.

From before the first market open to the night after the last day, the system stops at the times of STOPS. At
a stop, the market and the accounts trade for LIVE_S. Then every client must show the ledger's equity, cash,
last equity, external cash flow and day P&L to the cent, and keep showing them for STEADY_S. Between two stops
the clock jumps (`virtual_time.py`). The events of STORY happen on the way, beside random trades and cash
movements. The same seed makes the same ledger on any machine: `Week.ledger` is a digest of it.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from typing import Any, Final

from rich.table import Table

from portfolio_harness import virtual_time
from portfolio_harness.clients import Clients
from portfolio_harness.judgement import Judge, judging
from portfolio_harness.oracle import Truth
from portfolio_harness.progress import say
from portfolio_harness.virtual_time import VirtualSystem
from portfolio_realtime.clock import NEW_YORK, NS_PER_S

LIVE_S: Final = 10.0  # of trading at each stop
CONVERGE_S_MAX: Final = 60.0
TICK_S: Final = 0.1
STEADY_S: Final = 0.5  # how long all accounts must stay equal
UPDATE_S: Final = 0.1
RECONCILE_S: Final = 2.0
SHOWN_MAX: Final = 3  # differing accounts that are printed
HALF_DAYS_WEEK: Final = date(2026, 11, 23)  # Thursday is a holiday, Friday ends at 13:00
CLOCKS_WEEK: Final = date(2026, 10, 26)  # on Sunday, 1 November, the clocks go back
ACCOUNTS: Final = 20
SIMULATOR: Final = (
    *("--accounts", str(ACCOUNTS), "--symbols", "30", "--calendar", "nyse", "--rate-limit", "100000"),
    *("--trades-per-second", "20", "--activities-per-second", "0.5", "--heartbeat", "1"),
)
OVERRIDES: Final[dict[str, Any]] = {
    "alpaca_data_feed": "sip",
    "alpaca_overnight_feed": "",
    "min_update_interval": UPDATE_S,
    "symbol_collection_interval": RECONCILE_S,
    "shards": 4,
}

PRE, OPEN, NOON, HALF, CLOSE = "pre-market", "open", "noon", "13:00", "close"
EVENING, NIGHT, BEFORE, ROLL, AFTER = "evening", "night", "before the roll", "roll", "after the roll"
Stop = tuple[str, int, clock_time]  # name, days later, New York time
# A stop that begins five seconds before a session change trades across it.
STOPS: Final[tuple[Stop, ...]] = (
    (PRE, 0, clock_time(4, 5)),
    (OPEN, 0, clock_time(9, 29, 55)),
    (NOON, 0, clock_time(12, 0)),
    (HALF, 0, clock_time(12, 59, 55)),
    (CLOSE, 0, clock_time(15, 59, 55)),
    (EVENING, 0, clock_time(16, 30)),
    (NIGHT, 0, clock_time(20, 30)),
    (BEFORE, 1, clock_time(2, 10)),
    (ROLL, 1, clock_time(2, 14, 55)),
    (AFTER, 1, clock_time(2, 40)),
)
OVERNIGHT: Final = frozenset((BEFORE, ROLL, AFTER))
SPLIT_STOCK: Final = "NVDA"
SPLIT_GAP_S: Final = 30.0
EXCHANGED: Final = 4  # accounts at a time, of each kind
HOLD_S: Final = 20.0  # of virtual time, between the two bookings of a split


@dataclass
class Check:
    """One comparison of every account with the ledger."""

    stop: str
    compared: int
    converged_s: float | None  # wall-clock seconds until all were equal and stayed so; None: not all were
    differing: dict[str, list[str]] = field(default_factory=dict[str, list[str]])  # account id -> figures


@dataclass
class WeekDay:
    """One New York day and the night after it."""

    day: str
    session: str = ""  # full, half day, closed
    books: str = ""  # `balance_asof` at the end
    checks: list[Check] = field(default_factory=list[Check])

    @property
    def mismatches(self) -> int:
        """The number of accounts that did not become equal, over all stops."""
        return sum(len(check.differing) for check in self.checks)

    @property
    def is_clean(self) -> bool:
        """Whether every account was equal at every stop, and a trading day (and no other) was rolled."""
        has_rolled = (self.books == self.day) == (self.session != "closed")
        return has_rolled and all(check.converged_s is not None for check in self.checks)


@dataclass
class Week:
    """The result of one run."""

    start: str
    seed: int
    days: list[WeekDay] = field(default_factory=list[WeekDay])
    story: list[str] = field(default_factory=list[str])  # the events that happened, in words
    wrong: int = 0  # records and prices that were wrong without a mark for longer than allowed
    overmarked: int = 0  # records that were right and marked for longer than allowed
    wrong_s: float = 0.0  # the longest wall-clock time for which a record was wrong without a mark
    price_wrong_s: float = 0.0  # the same for prices
    right_marked_s: float = 0.0  # the longest time for which a right record was marked
    looks: int = 0  # comparisons of the judge
    apart_s: float = 0.0  # the longest time between two of them
    regressions: int = 0  # frames whose (epoch, sequence) went back
    leaks: int = 0
    messages: int = 0
    trades: int = 0
    activities: int = 0
    ledger: str = ""  # digest of all figures of the ledger at all stops
    duration_s: float = 0.0

    @property
    def is_clean(self) -> bool:
        """Whether every check passed."""
        is_in_order = self.regressions + self.leaks + self.wrong + self.overmarked == 0 and self.looks > 0
        return is_in_order and bool(self.days) and all(day.is_clean for day in self.days)


Scene = Callable[["Story"], Awaitable[None]]


class Story:
    """The planned events of a week. `rng` chooses accounts and amounts; `told` lists what happened."""

    def __init__(
        self, system: VirtualSystem, watch: "_Watch", account_ids: Sequence[str], rng: random.Random
    ) -> None:
        self.told: list[str] = []
        self._system = system
        self._watch = watch
        self._oracle = system.oracle
        self._account_ids = account_ids
        self._rng = rng
        self._trades: list[tuple[str, str]] = []  # account, event
        self._prices: dict[str, Decimal] = {}

    def _somebody(self) -> str:
        return self._rng.choice(self._account_ids)

    def _dollars(self) -> str:
        return str(Decimal(self._rng.randint(1_000, 900_000)).scaleb(-2))

    async def _cash(self, activity_type: str, amount: str) -> None:
        account_id = self._somebody()
        await self._oracle.pull("cash", account_id=account_id, activity_type=activity_type, amount=amount)
        self.told.append(f"{activity_type} {amount}")

    async def money(self) -> None:
        """Book a deposit, a withdrawal, a journal and a fee."""
        for activity_type in ("CSD", "CSW", "JNLC", "FEE"):
            amount = "1.23" if activity_type == "FEE" else self._dollars()
            await self._cash(activity_type, amount)

    async def deposit(self) -> None:
        """Book a deposit."""
        await self._cash("CSD", self._dollars())

    async def withdrawal(self) -> None:
        """Book a withdrawal."""
        await self._cash("CSW", self._dollars())

    async def instant_deposit(self) -> None:
        """Book a credit now (MEM). The money arrives, and the credit is taken back, 23 hours later."""
        body = {"account_id": self._somebody(), "amount": self._dollars(), "settle_in_s": 86_400 - 3_600}
        await self._oracle.pull("instant_deposit", **body)
        self.told.append(f"MEM {body['amount']}")

    async def late_deposit(self) -> None:
        """Book a deposit now that was executed a day ago."""
        body = {"account_id": self._somebody(), "amount": self._dollars(), "at_s_ago": 86_400}
        await self._oracle.pull("backfill", activity_type="CSD", **body)
        self.told.append(f"CSD {body['amount']} of the day before")

    async def orders(self) -> None:
        """Buy four symbols. `correction` and `bust` use these trades later."""
        for symbol in ("AAPL", "SPY", "BTC/USD", "MSFT"):
            quantity = str(Decimal(self._rng.randint(1, 3_000)).scaleb(-3))
            account_id = self._somebody()
            booked = await self._oracle.pull("trade", account_id=account_id, symbol=symbol, quantity=quantity)
            self._prices[booked["event_id"]] = Decimal(booked["price"])
            self._trades.append((account_id, booked["event_id"]))
            self.told.append(f"{quantity} {symbol} bought")

    async def _order(self) -> tuple[str, str]:
        """The oldest trade that was not amended: account id and event id."""
        if not self._trades:
            await self.orders()
        return self._trades.pop(0)

    async def correction(self) -> None:
        """Correct the price of a trade."""
        account_id, event_id = await self._order()
        price = str(self._prices[event_id] - Decimal("0.01"))
        await self._oracle.pull("amend", account_id=account_id, event_id=event_id, price=price)
        self.told.append("an order corrected")

    async def bust(self) -> None:
        """Bust a trade."""
        account_id, event_id = await self._order()
        await self._oracle.pull("amend", account_id=account_id, event_id=event_id)
        self.told.append("an order busted")

    async def transfer(self) -> None:
        """Transfer securities in from another broker (ACATS)."""
        body = {"activity_type": "ACATS", "symbol": "KO", "quantity": "9", "price": "70.5"}
        await self._oracle.pull("securities", account_id=self._somebody(), **body)
        self.told.append("9 KO transferred in")

    async def split(self) -> None:
        """Split a stock before the day's first trade: old shares out, new ones in SPLIT_GAP_S later.

        Between the two bookings, every client must show what it showed before.
        """
        ex_date = _new_york(self._system).date().isoformat()
        body = {"symbol": SPLIT_STOCK, "new_rate": "4", "gap_s": SPLIT_GAP_S, "ex_date": ex_date}
        before = await self._oracle.truth()
        answer = await self._oracle.pull("split", **body)
        self.told.append(f"{SPLIT_STOCK} split 4:1 in {answer['accounts']} accounts")
        due_ns = self._system.clock.now_ns() + int(SPLIT_GAP_S * NS_PER_S)
        await self._watch.hold("split under way", before)
        await self._system.jump(due_ns)

    async def exchanges(self) -> None:
        """Exchange shares and exercise options in some accounts; the legs come in all forms."""
        faults = [{"kind": kind, "level": EXCHANGED} for kind in ("ledger.group", "ledger.exercise")]
        await self._oracle.install({"seed": self._rng.randrange(1 << 31), "faults": faults})
        self.told.append("shares exchanged, options exercised")

    async def dividend(self) -> None:
        """Pay a dividend: the price falls now, the cash arrives a day later with 30 % withheld."""
        body = {"symbol": "MSFT", "rate": "0.83", "pay_in_s": 86_400, "withheld": "0.3"}
        answer = await self._oracle.pull("dividend", **body)
        self.told.append(f"MSFT pays 0.83 in {answer['accounts']} accounts")

    async def coins(self) -> None:
        """Buy and sell crypto while the stock market is closed."""
        for quantity in ("0.01", "-0.004"):
            account_id = self._somebody()
            await self._oracle.pull("trade", account_id=account_id, symbol="BTC/USD", quantity=quantity)
            self.told.append(f"{quantity} BTC/USD")


MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY, SATURDAY, SUNDAY = range(7)
STORY: Final[dict[tuple[int, str], tuple[Scene, ...]]] = {
    (MONDAY, NOON): (Story.money, Story.orders, Story.orders),
    (MONDAY, HALF): (Story.correction, Story.bust),
    (MONDAY, CLOSE): (Story.deposit,),  # just before 16:00, the time of last equity
    (MONDAY, EVENING): (Story.withdrawal, Story.orders),  # after it
    (MONDAY, BEFORE): (Story.deposit,),
    (TUESDAY, PRE): (Story.dividend, Story.correction, Story.bust),
    (TUESDAY, NOON): (Story.instant_deposit, Story.transfer, Story.exchanges),
    (TUESDAY, CLOSE): (Story.withdrawal,),
    (TUESDAY, EVENING): (Story.deposit,),
    (TUESDAY, NIGHT): (Story.money,),
    (TUESDAY, AFTER): (Story.split,),
    (WEDNESDAY, EVENING): (Story.withdrawal, Story.orders),
    (THURSDAY, NOON): (Story.money, Story.exchanges),
    (THURSDAY, AFTER): (Story.correction, Story.bust),
    (FRIDAY, NOON): (Story.late_deposit, Story.orders),
    (FRIDAY, CLOSE): (Story.deposit, Story.correction, Story.exchanges),
    (FRIDAY, EVENING): (Story.deposit, Story.withdrawal),
    (SATURDAY, NOON): (Story.coins, Story.deposit),
    (SUNDAY, PRE): (Story.coins, Story.withdrawal),
    (SUNDAY, CLOSE): (Story.coins, Story.deposit),
}


async def live_through(start: date, *, days: int, seed: int, stops: Sequence[Stop] = STOPS) -> Week:
    """Run through `days` days from `start` on, with `stops` on each of them.

    Raises SystemFailed, SettingsError, ClientsFailed.
    """
    week, began_s = Week(start.isoformat(), seed), time.monotonic()

    async def work(system: VirtualSystem) -> None:
        await _work(system, week, [start + timedelta(days=number) for number in range(days)], stops)

    began = datetime.combine(start, clock_time(4), NEW_YORK).isoformat()
    await virtual_time.use([*SIMULATOR, "--seed", str(seed)], OVERRIDES, began, work)
    week.duration_s = round(time.monotonic() - began_s, 1)
    return week


async def _work(system: VirtualSystem, week: Week, days: Sequence[date], stops: Sequence[Stop]) -> None:
    account_ids = await system.oracle.account_ids()
    clients = Clients(system.url, account_ids, lambda _: "", interval_s=UPDATE_S, detail=True)
    await _begin(system, clients)
    watch = _Watch(system, clients)
    story = Story(system, watch, account_ids, random.Random(f"{week.seed}/story"))
    try:
        async with judging(Judge(), system.oracle, clients) as judge:
            for day in days:
                week.days.append(await _live_a_day(system, watch, story, day, stops))
    finally:
        await clients.stop()
    week.wrong, week.overmarked, week.looks = judge.wrong, judge.overmarked, judge.looks
    week.wrong_s, week.price_wrong_s = round(judge.wrong_s, 2), round(judge.price_wrong_s, 2)
    week.right_marked_s, week.apart_s = round(judge.marked_s, 2), round(judge.apart_s, 2)
    state = await system.oracle.state()
    week.story, week.ledger = story.told, watch.ledger.hexdigest()[:16]
    week.trades, week.activities = state["trades"], state["activities"]
    week.messages, week.leaks = clients.counts["messages"], clients.counts["leaks"]
    week.regressions = clients.counts["regressions"]


async def _begin(system: VirtualSystem, clients: Clients) -> None:
    """Connect all clients. Virtual time must pass meanwhile, because the services wait in it."""
    starting = asyncio.ensure_future(clients.start())
    while not starting.done():
        await system.wait(TICK_S)
    await starting


async def _live_a_day(
    system: VirtualSystem, watch: "_Watch", story: Story, day: date, stops: Sequence[Stop]
) -> WeekDay:
    lived = WeekDay(day.isoformat())
    for stop, days_later, at in stops:
        moment = datetime.combine(day + timedelta(days=days_later), at, NEW_YORK)
        await system.jump(int(moment.timestamp()) * NS_PER_S)
        for scene in STORY.get((day.weekday(), stop), ()):
            await scene(story)
        await system.live(LIVE_S)
        await watch.check_stop(stop)
        now = await system.oracle.clock()
        if stop == HALF:
            lived.session = {"core": "full", "post": "half day"}.get(now["session"], "closed")
        lived.books = now["balance_asof"]
    lived.checks = watch.take_checks()
    worst_s = max((check.converged_s or 0.0 for check in lived.checks), default=0.0)
    verdict = "" if lived.is_clean else f"  FAILED, {lived.mismatches} mismatches"
    say(f"{day:%a} {day} {lived.session}: {len(lived.checks)} stops, equal after {worst_s:.2f} s{verdict}")
    return lived


class _Watch:
    """Compares every client with the ledger; `ledger` is the digest of the ledger's figures."""

    def __init__(self, system: VirtualSystem, clients: Clients) -> None:
        self.ledger = hashlib.sha256()
        self._system = system
        self._clients = clients
        self._checks: list[Check] = []

    def take_checks(self) -> list[Check]:
        """The checks since the last call."""
        taken, self._checks = self._checks, []
        return taken

    async def check_stop(self, stop: str) -> None:
        """Wait until all accounts are equal and stay so for STEADY_S, and record the check."""
        began_s = equal_s = time.monotonic()
        truths = await self._system.oracle.truth()
        self.ledger.update(repr(sorted((key, truth.figures) for key, truth in truths.items())).encode())
        while True:
            differing = await self._clients.mismatches(_comparable(stop, truths))
            now_s = time.monotonic()
            if differing:
                equal_s = now_s
                if now_s - began_s > CONVERGE_S_MAX:
                    self._tell(stop, differing, truths)
                    self._checks.append(Check(stop, len(truths), None, differing))
                    return
            elif now_s - equal_s >= STEADY_S:
                self._checks.append(Check(stop, len(truths), round(equal_s - began_s, 2)))
                return
            await self._system.wait(TICK_S)
            truths = await self._system.oracle.truth()

    async def hold(self, stop: str, truths: dict[str, Truth]) -> None:
        """Check that every client shows `truths` for HOLD_S, whatever the ledger has; record the check."""
        until_ns = self._system.clock.now_ns() + int(HOLD_S * NS_PER_S)
        comparable = _comparable(AFTER, truths)
        while not (differing := await self._clients.mismatches(comparable)):
            if self._system.clock.now_ns() >= until_ns:
                break
            await self._system.wait(TICK_S)
            await self._system.jump(self._system.clock.now_ns() + int(virtual_time.STEP_S * NS_PER_S))
        if differing:
            self._tell(stop, differing, truths)
        self._checks.append(Check(stop, len(truths), None if differing else 0.0, differing))

    def _tell(self, stop: str, differing: dict[str, list[str]], truths: dict[str, Truth]) -> None:
        say(f"{_new_york(self._system)} {stop}: {len(differing)} accounts differ")
        newest = {client.account_id: client.newest or {} for client in self._clients.all}
        for account_id, names in list(differing.items())[:SHOWN_MAX]:
            shown, figures = newest[account_id], truths[account_id].figures
            told = (f"{name} {shown.get(name)}, not {figures.get(name)}" for name in names)
            say(f"  {account_id}: {'; '.join(told)}")


def _comparable(stop: str, truths: dict[str, Truth]) -> dict[str, Truth]:
    """The truths without the previous closes, and positions' day P&L, of another day than the client's.

    The client's are of the market: it has a new day at midnight, for coins midnight UTC, and its close before
    a split is not adjusted. The ledger's are of the books, which have a new day at the roll.
    """
    unknown = {"previous_close": None, "day_pnl": None}

    def row(symbol: str, shown: dict[str, str | None]) -> dict[str, str | None]:
        is_of_another_day = stop in OVERNIGHT or "/" in symbol or symbol == SPLIT_STOCK
        return shown | unknown if is_of_another_day else shown

    return {
        account_id: replace(truth, rows={symbol: row(symbol, shown) for symbol, shown in truth.rows.items()})
        for account_id, truth in truths.items()
    }


def _new_york(system: VirtualSystem) -> datetime:
    return datetime.fromtimestamp(system.clock.now_ns() // NS_PER_S, NEW_YORK)


def table(week: Week) -> Table:
    """One row for each day, and one for all days."""
    unmarked = f"wrong unmarked {week.wrong_s} s (prices {week.price_wrong_s} s)"
    looks = f"{week.looks} looks, {week.apart_s} s apart at most"
    judged = f"{looks}: {unmarked}, right and marked {week.right_marked_s} s"
    title = f"from {week.start}, seed {week.seed}, ledger {week.ledger}"
    shown = Table(
        "day", "session", "books of", "stops", "compared", "mismatches", title=title, caption=judged, box=None
    )
    for name in ("equal after: worst", "of that at the roll"):
        shown.add_column(name)
    for column in shown.columns[3:]:
        column.justify = "right"
    for day in week.days:
        name = f"{date.fromisoformat(day.day):%a} {day.day}"
        shown.add_row(name, day.session, day.books, *_row(day.checks, day.mismatches))
    shown.add_section()
    checks = [check for day in week.days for check in day.checks]
    shown.add_row("all", "", "", *_row(checks, sum(day.mismatches for day in week.days)))
    return shown


def _row(checks: Sequence[Check], mismatches: int) -> list[str]:
    waits = [(check.stop, check.converged_s) for check in checks if check.converged_s is not None]
    worst = max((wait for _, wait in waits), default=0.0)
    at_roll = max((wait for stop, wait in waits if stop == ROLL), default=0.0)
    compared = sum(check.compared for check in checks)
    return [str(len(checks)), str(compared), str(mismatches), f"{worst:.2f} s", f"{at_roll:.2f} s"]
