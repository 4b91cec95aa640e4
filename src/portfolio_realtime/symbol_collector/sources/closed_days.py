"""Closed days of the accounts that clients ask about, from the broker's portfolio history.

The servers have no keys to the broker, so they write to Valkey which accounts they need. `cashflow` in the
answer states what moved cash; only external types of it are the client's own money. Where a type that nobody
describes moved cash, the flow of the day is unknown. So it is on a day with a transfer in kind, which is in
the broker's equity but in no cash flow. A figure or row that cannot be read is reported, and only what it may
have stated becomes unknown.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, NoReturn, Protocol

import structlog

from portfolio_realtime.clock import NEW_YORK, Clock
from portfolio_realtime.errors import BrokerError
from portfolio_realtime.model import ZERO, ClosedDay, ClosedDays
from portfolio_realtime.state import State
from portfolio_realtime.symbol_collector import activity_types
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused, number

POLL_S: Final = 0.5
FETCHED_AT_ONCE: Final = 4
REFUSED_SHOWN_MAX: Final = 10
DAYS_MAX: Final = 2600  # about ten years
HISTORY_PARAMS: Final = {"timeframe": "1D", "period": "10A", "cashflow_types": "ALL"}
IN_KIND_PARAMS: Final = {
    "activity_types": ",".join(kind.code for kind in activity_types.TABLE.values() if kind.is_in_kind),
    "page_size": "100",
}

log = structlog.get_logger()


class HistorySource(Protocol):
    """A source of closed days."""

    async def portfolio_history(self, account_id: str) -> Any:
        """The broker's answer, or None if the account does not exist. Raises BrokerError."""
        ...

    async def in_kind_rows(self, account_id: str) -> Any:
        """The newest activity rows of transfers in kind. Raises BrokerError."""
        ...


async def serve_closed_days(
    state: State, source: HistorySource, clock: Clock, count_refused: Callable[[int], None]
) -> NoReturn:
    """Fetch and store the closed days that servers request, without end, and count the refused figures.

    Raises StateUnavailable.
    """
    while True:
        wanted = await state.closed_days.take_wanted(FETCHED_AT_ONCE)
        for account_id, days in zip(
            wanted,
            await asyncio.gather(*(_fetched(source, one, count_refused) for one in wanted)),
            strict=True,
        ):
            if days is not None:
                await state.closed_days.write(ClosedDays(account_id, tuple(days), clock.now_ns()))
        if not wanted:
            await asyncio.sleep(POLL_S)


async def _fetched(
    source: HistorySource, account_id: str, count_refused: Callable[[int], None]
) -> list[ClosedDay] | None:
    try:
        history = await source.portfolio_history(account_id)
        in_kind = await source.in_kind_rows(account_id)
        days, refused = ([], []) if history is None else closed_days(history, in_kind)
    except BrokerError as error:
        log.warning("the closed days could not be fetched", account_id=account_id, reason=str(error))
        return None
    if refused:
        count_refused(len(refused))
        log.error(
            "some figures of closed days could not be read",
            account_id=account_id,
            count=len(refused),
            first=refused[:REFUSED_SHOWN_MAX],
        )
    return None if history is None else days


def closed_days(history: Any, in_kind: Any) -> tuple[list[ClosedDay], list[str]]:
    """Days in order from the broker's answers, and what could not be read.

    Raises PayloadRefused if the answer is not a portfolio history.
    """
    if not isinstance(history, Mapping):
        raise PayloadRefused("the portfolio history is not an object")
    times, equity = history.get("timestamp"), history.get("equity")
    if not isinstance(times, list) or not isinstance(equity, list) or len(times) != len(equity):
        raise PayloadRefused("the portfolio history does not have one timestamp and one equity per day")
    refused: list[str] = []
    flows = _external(history.get("cashflow"), len(times), refused)
    dates = [_date(at, index, refused) for index, at in enumerate(times)]
    unknown = _in_kind_dates(in_kind, [date for date in dates if date is not None], refused)
    days: dict[str, ClosedDay] = {}
    for index, (day, worth, flow) in enumerate(zip(dates, equity, flows, strict=True)):
        amount = _amount(worth, f"equity {index}", refused)
        if day is None:
            continue
        one = ClosedDay(day, amount, None if day in unknown else flow)
        if days.setdefault(day, one) != one:
            refused.append(f"timestamp {index}: {day} is stated twice with different figures")
            days[day] = ClosedDay(day, None, None)
    return [days[day] for day in sorted(days)][-DAYS_MAX:], refused


def _external(cash_flow: Any, count: int, refused: list[str]) -> list[Decimal | None]:
    if not isinstance(cash_flow, Mapping):
        return [None] * count  # the flows are not stated
    flows: list[Decimal | None] = [ZERO] * count
    for code, amounts in cash_flow.items():
        is_described = activity_types.is_described(str(code))
        if is_described and not activity_types.of(str(code)).is_external:
            continue
        if not isinstance(amounts, list) or len(amounts) != count:
            refused.append(f"the cash flow of {code} does not have one amount for each day")
            return [None] * count
        for index, amount in enumerate(amounts):
            before, added = flows[index], _amount(amount, f"{code} {index}", refused)
            if before is None or added is None or (added and not is_described):
                flows[index] = None
            else:
                flows[index] = before + added
    return flows


def _in_kind_dates(rows: Any, dates: list[str], refused: list[str]) -> set[str]:
    """The closed days in which securities came or left: that of the row's date, or the next.

    A row without a date may be of any day.
    """
    found: set[str] = set()
    for index, row in enumerate(rows if isinstance(rows, list) else ()):
        booked = _booked(row)
        if booked is None:
            refused.append(f"row {index} of the transfers in kind states no date")
            return set(dates)
        found.update([day for day in sorted(dates) if day >= booked][:2])
    return found


def _booked(row: Any) -> str | None:
    """The date of a row; its id also begins with one (`20261120…`)."""
    if not isinstance(row, Mapping):
        return None
    name = str(row.get("id") or "")[:8]
    for text in (row.get("date"), row.get("created_at"), f"{name[:4]}-{name[4:6]}-{name[6:]}"):
        try:
            return date.fromisoformat(str(text)[:10]).isoformat()
        except ValueError:
            continue
    return None


def _date(at: Any, index: int, refused: list[str]) -> str | None:
    """The trading day of a point; daily points have the time 20:00 New York."""
    if isinstance(at, int) and not isinstance(at, bool):
        try:
            return datetime.fromtimestamp(at, UTC).astimezone(NEW_YORK).date().isoformat()
        except (OverflowError, ValueError, OSError):
            pass
    refused.append(f"timestamp {index} is not a time")
    return None


def _amount(value: Any, name: str, refused: list[str]) -> Decimal | None:
    if value is None:
        return None
    try:
        return number(value, name)
    except PayloadRefused as error:
        refused.append(str(error))
        return None
