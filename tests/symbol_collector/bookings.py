"""Bookings and statements for the tests of records."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from portfolio_realtime.clock import NS_PER_S, parse_rfc3339
from portfolio_realtime.symbol_collector.model import (
    AccountState,
    Activity,
    Holding,
    Statement,
    asset_class_of,
)
from portfolio_realtime.symbol_collector.records.account_record import AccountRecord, Outcome
from portfolio_realtime.symbol_collector.records.record_state import REST_LAG_NS

Step = tuple[str, float, float, float]
CASH = 4**40  # what a made-up account begins with
DAY = "2026-11-19"
NOW_NS = parse_rfc3339("2026-11-20T15:00:00Z")
_numbers = itertools.count(1)


def at_s(seconds: float) -> int:
    """So many seconds after the tests' beginning, in ns."""
    return NOW_NS + int(seconds * NS_PER_S)


def booking(activity_type: str = "CSD", amount: Any = 0, *, at: float = 0.0, **changes: Any) -> Activity:
    """A booking published and executed at so many seconds."""
    name = f"ref-{next(_numbers)}"
    fields: dict[str, Any] = {
        "account_id": "alice",
        "event_id": name,
        "ref_id": name,
        "previous_id": None,
        "activity_type": activity_type,
        "status": "executed",
        "symbol": None,
        "quantity": Decimal(0),
        "price": Decimal(0),
        "net_amount": Decimal(amount),
        "executed_ns": at_s(at),
        "published_ns": at_s(at),
    }
    return Activity(**{**fields, **changes})


def trade(symbol: str, quantity: Any, price: Any, *, at: float = 0.0, **changes: Any) -> Activity:
    """A trade of so many (sold negative) at a price; cash moves by the rounded value."""
    one = booking("TRD", at=at, symbol=symbol, quantity=Decimal(quantity), price=Decimal(price), **changes)
    return msgspec.structs.replace(one, net_amount=-round(one.value, 2))


def statement(
    cash: Any,
    quantities: Mapping[str, Any] | None = None,
    *,
    balance_asof: str = DAY,
    last_equity: Any = 1000,
    last_cash: Any = None,
) -> Statement:
    """What REST says; every share has cost 10."""
    state = AccountState("alice", "ACTIVE", "USD", Decimal(cash), Decimal(last_equity), balance_asof)
    if last_cash is not None:
        state = msgspec.structs.replace(state, last_cash=Decimal(last_cash))
    holdings = {
        symbol: Holding(symbol, asset_class_of(symbol), Decimal(quantity), 10 * Decimal(quantity))
        for symbol, quantity in (quantities or {}).items()
    }
    return Statement(state, holdings)


class Inbox:
    """Keeps what a follower hears."""

    def __init__(self) -> None:
        self.taken: list[Activity] = []
        self.live: list[bool] = []
        self.rows: list[Activity] = []
        self.refused: list[str] = []

    def take_activity(self, activity: Activity, *, is_live: bool) -> None:
        """A booking."""
        self.taken.append(activity)
        self.live.append(is_live)

    def take_rows(self, rows: list[Activity]) -> None:
        """What REST lists."""
        self.rows += rows

    def refuse_activity(self, account_id: str | None, reason: str) -> None:
        """What cannot be read."""
        self.refused.append(reason)


@dataclass
class MadeUpBroker:
    """Bookings in order, and how many of them the stream has delivered."""

    record: AccountRecord
    now_s: float = 0.0
    booked: list[Activity] = field(default_factory=list[Activity])
    told: dict[str, Activity] = field(
        default_factory=dict[str, Activity]
    )  # where the event is not the booking
    delivered: int = 0
    looked_s: float = 0.0  # when the newest statement was requested

    def book(self, symbol: str | None) -> None:
        """One more booking: a deposit, or a purchase at price 0 that moves cash all the same."""
        amount = 4 ** len(self.booked)
        quantity = Decimal(amount if symbol else 0)
        kind = "TRD" if symbol else "CSD"
        self.booked.append(booking(kind, amount, at=self.now_s, symbol=symbol, quantity=quantity))

    def correct(self, symbol: str | None) -> None:
        """A correction of something that nobody remembers: the event says another amount than it changes."""
        self.book(symbol)
        self.tell_as_correction(self.booked[-1])

    def tell_as_correction(self, changed: Activity) -> None:
        """The event of this booking corrects something unknown, so it does not say what it changes."""
        told = {"net_amount": 1000 * changed.net_amount, "quantity": 1000 * changed.quantity}
        self.told[changed.ref_id] = msgspec.structs.replace(changed, previous_id="long ago", **told)

    def deliver(self, count: int) -> None:
        """The stream delivers so many more."""
        for activity in self.booked[self.delivered : self.delivered + count]:
            assert self.record.apply_activity(self.told.get(activity.ref_id, activity), at_s(self.now_s))
        self.delivered = min(len(self.booked), self.delivered + count)

    def repeat(self, choice: float) -> None:
        """The stream delivers one again."""
        if self.delivered:
            activity = self.booked[int(choice * 10) % self.delivered]
            assert not self.record.apply_activity(self.told.get(activity.ref_id, activity), at_s(self.now_s))

    def stated(self, balance_lag_s: float, positions_lag_s: float) -> Statement:
        """What REST says now."""
        cash = CASH + sum(int(one.net_amount) for one in self._until(balance_lag_s))
        held = sum(int(one.quantity) for one in self._until(positions_lag_s))
        return statement(cash, {"AAPL": held} if held else {})

    def _until(self, lag_s: float) -> list[Activity]:
        return [one for one in self.booked if one.published_ns <= at_s(self.now_s - lag_s)]

    def look(self, balance_lag_s: float, positions_lag_s: float) -> Outcome:
        """A fetch of a tenth of a second."""
        self.looked_s, began_ns = self.now_s, at_s(self.now_s)
        self.now_s += 0.1
        return self.record.observe(self.stated(balance_lag_s, positions_lag_s), began_ns, at_s(self.now_s))

    def check_nothing_is_wrong_and_unmarked(self) -> None:
        """Unmarked, the record has each booking that an event told or that the newest statement must have."""
        if not self.record.is_known or self.told:
            return
        account = self.record.account(1, 0)
        if account.unconfirmed is not None or account.unexplained:
            return
        cash, held = int(account.cash) - CASH, sum(int(one.quantity) for one in account.positions)
        must_have_ns = at_s(self.looked_s) - REST_LAG_NS
        for number, one in enumerate(self.booked):
            if number < self.delivered or one.published_ns <= must_have_ns:
                assert cash // 4**number % 4 == 1, f"the cash of booking {number} is missing, unmarked"
                assert held // 4**number % 4 == bool(one.symbol), f"quantity {number} is wrong, unmarked"

    def check_nothing_counts_twice(self) -> None:
        """Every digit of the cash, to the base of four, is 0 or 1, and nothing else is in it."""
        if not self.record.is_known:
            return
        rest = int(self.record.account(1, 0).cash) - CASH
        assert rest >= 0
        for _ in self.booked:
            rest, digit = divmod(rest, 4)
            assert digit in (0, 1), "a booking was counted twice"
        assert not rest

    def take(self, step: Step) -> None:
        """One step of the story."""
        action, wait_s, first, second = step
        self.now_s += wait_s
        match action:
            case "deposit":
                self.book(None)
            case "buy":
                self.book("AAPL")
            case "correct":
                self.correct("AAPL" if first > 2 else None)
            case "deliver":
                self.deliver(1)
            case "deliver all":
                self.deliver(len(self.booked))
            case "repeat":
                self.repeat(first)
            case _:
                self.look(first, second)
        self.check_nothing_counts_twice()
        self.check_nothing_is_wrong_and_unmarked()
