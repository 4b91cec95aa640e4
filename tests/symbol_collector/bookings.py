"""Bookings and statements for the tests of records."""

import itertools
from collections.abc import Mapping
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
