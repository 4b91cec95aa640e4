"""Rows of the Trading API's activities, in the terms of the Broker API's events.

A row of `/v2/account/activities` becomes the same event that the Broker API's stream would send, so that one
parser and one record serve both. Rows state less; what is missing stays missing:

| row                    | event                                                                            |
| ---------------------- | -------------------------------------------------------------------------------- |
| FILL                   | TRD without `net_amount` (see `parse.activity`)                                  |
| status `canceled`, …   | a second event that reverses the first one: the row keeps its id                 |
| `qty` of a cash payment | the shares that are paid for: no position changes                                |
| no `created_at`        | published when we first saw it; in the first reading, at noon New York of `date` |
"""

import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any, Final

from portfolio_realtime.clock import NEW_YORK, NS_PER_S, parse_rfc3339, rfc3339
from portfolio_realtime.symbol_collector import activity_types
from portfolio_realtime.symbol_collector.model import CANCELED, CORRECTED, EXECUTED, TAKEN_BACK, market_symbol

TRADES: Final = "trade_activity"
CASH_AND_OTHERS: Final = "non_trade_activity"
CATEGORIES: Final = (TRADES, CASH_AND_OTHERS)
PAGE_LENGTH: Final = 100  # Alpaca's maximum

_FILL_NEEDS: Final = ("side", "symbol", "transaction_time")  # a fill without one of these is refused
_NOON: Final = time(12)


def row_id(row: Any) -> str:
    """Identifies a booking by its row's id, and what takes it back."""
    if not isinstance(row, Mapping):
        return ""
    stated = row.get("id")
    name = stated if isinstance(stated, str) else ""
    return f"{name}/{CANCELED}" if name and _is_taken_back(row) else name


def row_name(row: Any) -> str:
    """Identifies one state of a row, also of one without an id, which can only be refused."""
    if not (name := row_id(row)):
        return f"unnamed {zlib.crc32(repr(row).encode()):08x}"
    return f"{name}/{_status(row)}" if is_pending(row) else name


def is_pending(row: Any) -> bool:
    """Whether a row tells of a booking that has not happened yet, and may change."""
    return isinstance(row, Mapping) and _status(row) not in (EXECUTED, CORRECTED, *TAKEN_BACK)


def last_id(rows: Sequence[Any]) -> str | None:
    """The id after which the next page begins: that of the last row that has one."""
    ids = [name.partition("/")[0] for row in rows if (name := row_id(row))]
    return ids[-1] if ids else None


def row_ns(row: Any) -> int | None:
    """When a row was booked, in ns, or None if it states only a date."""
    if not isinstance(row, Mapping):
        return None
    for name in ("transaction_time", "created_at"):
        try:
            if text := row.get(name):
                return parse_rfc3339(str(text))
        except ValueError:
            continue
    return None


def about_ns(row: Any) -> int | None:
    """When a row was booked, in ns, by its date if it states no time; None without either."""
    booked_ns = row_ns(row)
    if booked_ns is None and isinstance(row, Mapping) and _day(row) is not None:
        return _noon_ns(row)
    return booked_ns


def event_of(
    row: Any, account_id: str, seen_ns: int | None, now_ns: int, *, was_pending: bool = False
) -> dict[str, Any]:
    """The activity event for a row. `seen_ns` is when the row appeared, or changed; None for history.

    Errors in a row are left for `parse.activity` to refuse.
    """
    if not isinstance(row, Mapping):
        return {}
    fields: Mapping[str, Any] = row
    activity_type = str(fields.get("activity_type") or "")
    subtype = str(fields.get("activity_sub_type") or "")
    is_fill = activity_type == activity_types.FILL
    is_taken_back = _is_taken_back(fields)
    booked_ns = row_ns(fields) or seen_ns or min(_noon_ns(fields), now_ns)
    published_ns = seen_ns if seen_ns is not None and (is_taken_back or was_pending) else booked_ns
    is_whole = not is_fill or all(fields.get(name) for name in _FILL_NEEDS)
    spelled = market_symbol(str(fields.get("symbol") or ""))
    is_moving = is_whole and activity_types.moves_position(activity_type, subtype, spelled)
    event = {
        "account_id": account_id,
        "event_id": row_id(fields),
        "previous_id": fields.get("id") if is_taken_back else None,
        "activity_type": activity_types.TRADE if is_fill else activity_type,
        "activity_subtype": subtype or None,
        "status": fields.get("status") or EXECUTED,
        "symbol": fields.get("symbol") if is_moving else None,
        "side": fields.get("side"),
        "qty": fields.get("qty") if is_moving else None,
        "price": fields.get("price") if is_moving else None,
        "net_amount": fields.get("net_amount"),
        "currency": fields.get("currency"),
        "at": rfc3339(published_ns),
        "executed_at": rfc3339(booked_ns),
        "details": {"group_id": fields.get("group_id")},
    }
    return {name: value for name, value in event.items() if value is not None}


def broker_event_of(row: Any, now_ns: int) -> dict[str, Any]:
    """The activity event for a row of the Broker API's list, which names its account.

    The end of its id, `20261120000000000::…`, seems to be the `ref_id` of the booking's event.
    """
    account_id = row.get("account_id") if isinstance(row, Mapping) else None
    event = event_of(row, account_id if isinstance(account_id, str) else "", None, now_ns)
    if name := event.get("event_id"):
        event["event_id"] = name.partition("/")[0].rpartition("::")[2]
    return event


def _status(row: Mapping[str, Any]) -> str:
    return str(row.get("status") or EXECUTED).lower()


def _is_taken_back(row: Mapping[str, Any]) -> bool:
    return _status(row) in TAKEN_BACK


def _noon_ns(row: Mapping[str, Any]) -> int:
    """Noon New York of the row's date: after that morning's bookings and before the close."""
    day = _day(row) or datetime.fromtimestamp(0, UTC).date()
    return int(datetime.combine(day, _NOON, NEW_YORK).timestamp()) * NS_PER_S


def _day(row: Mapping[str, Any]) -> date | None:
    try:
        return date.fromisoformat(str(row.get("date"))[:10])
    except ValueError:
        return None
