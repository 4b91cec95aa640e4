"""Closed days of the accounts that somebody asks about, from the broker's own portfolio history.

The servers have no keys to the broker, so they say in Valkey whose days they want. `cashflow` of the answer
tells what moved cash; of that only external types are the client's own money. What came or left in kind is in
the broker's equity and in no cash flow: on such a day the flow is not known, and it is said so.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NoReturn, Protocol

import structlog

from portfolio_realtime.clock import NEW_YORK, Clock
from portfolio_realtime.errors import BrokerError
from portfolio_realtime.model import ZERO, ClosedDay, ClosedDays
from portfolio_realtime.state import State
from portfolio_realtime.symbol_collector import activity_types
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused

POLL_S: Final = 0.2
FETCHED_AT_ONCE: Final = 4
DAYS_MAX: Final = 2600  # about ten years
HISTORY_PARAMS: Final = {"timeframe": "1D", "period": "10A", "cashflow_types": "ALL"}
IN_KIND_PARAMS: Final = {
    "activity_types": ",".join(kind.code for kind in activity_types.TABLE.values() if kind.is_in_kind),
    "page_size": "100",
}

log = structlog.get_logger()


class HistorySource(Protocol):
    """Who can be asked."""

    async def portfolio_history(self, account_id: str) -> Any:
        """The broker's answer, or None without such an account. Raises BrokerError."""
        ...

    async def in_kind_rows(self, account_id: str) -> Any:
        """The newest activity rows of what came or left in kind. Raises BrokerError."""
        ...


async def serve_closed_days(state: State, source: HistorySource, clock: Clock) -> NoReturn:
    """Fetch and keep what servers ask for, forever. Raises StateUnavailable."""
    while True:
        wanted = await state.closed_days.take_wanted(FETCHED_AT_ONCE)
        for account_id, days in zip(
            wanted, await asyncio.gather(*(_fetched(source, one) for one in wanted)), strict=True
        ):
            if days is not None:
                await state.closed_days.write(ClosedDays(account_id, tuple(days), clock.now_ns()))
        if not wanted:
            await asyncio.sleep(POLL_S)


async def _fetched(source: HistorySource, account_id: str) -> list[ClosedDay] | None:
    try:
        history = await source.portfolio_history(account_id)
        in_kind = await source.in_kind_rows(account_id)
        return None if history is None else closed_days(history, in_kind)
    except BrokerError as error:
        log.warning("the closed days could not be fetched", account_id=account_id, reason=str(error))
        return None


def closed_days(history: Any, in_kind: Any) -> list[ClosedDay]:
    """Days in order from the broker's answers. Raises PayloadRefused."""
    if not isinstance(history, Mapping):
        raise PayloadRefused("the portfolio history is not an object")
    times, equity = history.get("timestamp"), history.get("equity")
    if not isinstance(times, list) or not isinstance(equity, list) or len(times) != len(equity):
        raise PayloadRefused("the portfolio history has no timestamp and equity for each day")
    flows = _external(history.get("cashflow"), len(times))
    dates = [_date(at) for at in times]
    unknown = _in_kind_dates(in_kind, dates)
    days = {
        day: ClosedDay(day, _amount(worth), None if day in unknown else flow)
        for day, worth, flow in zip(dates, equity, flows, strict=True)
    }
    return [days[day] for day in sorted(days)][-DAYS_MAX:]


def _external(cash_flow: Any, count: int) -> list[Decimal | None]:
    if not isinstance(cash_flow, Mapping):
        return [None] * count  # nobody tells what was brought in
    flows: list[Decimal | None] = [ZERO] * count
    for code, amounts in cash_flow.items():
        if not activity_types.of(str(code)).is_external:
            continue
        if not isinstance(amounts, list) or len(amounts) != count:
            raise PayloadRefused(f"the cash flow of {code} has not one amount for each day")
        for index, amount in enumerate(amounts):
            before, added = flows[index], _amount(amount)
            flows[index] = None if before is None or added is None else before + added
    return flows


def _in_kind_dates(rows: Any, dates: list[str]) -> set[str]:
    """The closed days in which securities came or left: that of the row's date, or the next."""
    found: set[str] = set()
    for row in rows if isinstance(rows, list) else ():
        booked = str(row.get("date") or row.get("created_at") or "")[:10] if isinstance(row, Mapping) else ""
        found.update([day for day in sorted(dates) if booked and day >= booked][:2])
    return found


def _date(at: Any) -> str:
    """The trading day of a point: daily ones are stamped 20:00 in New York."""
    if isinstance(at, bool) or not isinstance(at, int):
        raise PayloadRefused("a timestamp of the portfolio history is no whole number")
    return datetime.fromtimestamp(at, UTC).astimezone(NEW_YORK).date().isoformat()


def _amount(number: Any) -> Decimal | None:
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int | float | Decimal):
        raise PayloadRefused("an amount of the portfolio history is no number")
    amount = Decimal(str(number))
    if not amount.is_finite():
        raise PayloadRefused("an amount of the portfolio history is not finite")
    return amount
