"""Activities in Alpaca's JSON shapes: events of the streams, and REST rows with their sortable ids."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from alpaca_sim.core.clock import new_york, rfc3339
from alpaca_sim.core.decimals import exact, text
from alpaca_sim.core.ledger import Activity, pair_of
from alpaca_sim.core.market import Market, asset_id_of
from alpaca_sim.core.switches import Switches


def event_json(activity: Activity, switches: Switches) -> dict[str, Any]:
    """The object of `/v2beta1/events/activities`."""
    at = rfc3339(activity.at_ns)
    is_trade = activity.activity_type == "TRD"
    # A trade has its direction in `side`. Of any other activity, a removal has a negative quantity.
    keeps_sign = not is_trade or activity.is_void or switches.sell_qty == "negative"
    quantity = activity.quantity if keeps_sign else abs(activity.quantity)
    event: dict[str, Any] = {
        "account_id": activity.account_id,
        "at": at,
        "event_id": activity.event_id,
        "ref_id": activity.ref_id,
        "activity_type": activity.activity_type,
        "qty": text(quantity),
        "price": text(activity.price),
        "net_amount": text(_amount(activity)),
        "currency": "USD",
        "status": activity.status,
        "executed_at": rfc3339(activity.executed_ns) if activity.executed_ns else at,
        "settle_date": (new_york(activity.at_ns).date() + timedelta(days=1)).isoformat(),
        "details": dict(activity.details),
    }
    if activity.subtype:
        event["activity_subtype"] = activity.subtype
    if activity.previous is not None:
        event["previous_id"] = activity.previous.ref_id
    return event


def _amount(activity: Activity) -> Decimal:
    """The amount paid: in dollars, or for a pair of coins in the second coin."""
    if pair_of(activity.symbol) is None:
        return activity.net_amount
    with exact():
        return -activity.quantity * activity.price


def nta_json(activity: Activity) -> dict[str, Any]:
    """The object of the legacy stream `/v1/events/nta`. Its amounts are JSON numbers."""
    day = new_york(activity.at_ns).date().isoformat()
    event: dict[str, Any] = {
        "account_id": activity.account_id,
        "at": rfc3339(activity.at_ns),
        "description": "",
        "entry_type": activity.activity_type,
        "event_ulid": activity.event_id,
        "id": activity.ref_id,
        "net_amount": float(activity.net_amount),
        "qty": float(activity.quantity),
        "settle_date": day,
        "status": activity.status,
        "symbol": activity.symbol,
        "system_date": day,
    }
    return event | ({"entry_sub_type": activity.subtype} if activity.subtype else {})


def row_id(activity: Activity) -> str:
    """The REST id, which sorts as a string: New York time, then the ref id.

    A fill has its time to the millisecond, any other activity the midnight of its day.
    """
    at = new_york(activity.at_ns)
    stamp = (
        f"{at:%Y%m%d%H%M%S}{at.microsecond // 1000:03d}"
        if activity.activity_type == "TRD"
        else f"{at:%Y%m%d}000000000"
    )
    return f"{stamp}::{activity.ref_id}"


def row_type(activity: Activity) -> str:
    """The activity type in REST, where a trade is a FILL."""
    return "FILL" if activity.activity_type == "TRD" else activity.activity_type


def row_json(activity: Activity) -> dict[str, Any]:
    """One row of `/v1/accounts/activities`."""
    row: dict[str, Any] = {
        "id": row_id(activity),
        "account_id": activity.account_id,
        "activity_type": row_type(activity),
    }
    if activity.activity_type == "TRD":
        quantity = text(abs(activity.quantity))
        return row | {
            "transaction_time": rfc3339(activity.at_ns),
            "type": "fill",
            "price": text(activity.price),
            "qty": quantity,
            "side": activity.details["side"],
            "symbol": activity.symbol,
            "leaves_qty": "0",
            "order_id": activity.details["order_id"],
            "cum_qty": quantity,
            "order_status": "filled",
        }
    row |= {
        "date": new_york(activity.at_ns).date().isoformat(),
        "net_amount": text(activity.net_amount),
        "description": "",
        "status": activity.status,
        "currency": "USD",
        "created_at": rfc3339(activity.at_ns),
    }
    if activity.symbol:
        # Bookings spell a pair BTCUSD, market data BTC/USD. Of other legs, details may name the underlying.
        is_pair = "/" in activity.symbol
        named = activity.details.get("symbol", activity.symbol) if is_pair else activity.symbol
        row |= {"symbol": named, "qty": text(activity.quantity)}
    if "group_id" in activity.details:
        row["group_id"] = activity.details["group_id"]
    if activity.activity_type == "DIV":
        details = activity.details
        row |= {
            "symbol": details["symbol"],
            "qty": details["entitled_qty"],
            "per_share_amount": details["rate"],
        }
    if activity.subtype:
        row["activity_sub_type"] = activity.subtype
    return row


def fill_json(activity: Activity, market: Market) -> dict[str, Any]:
    """The object of `/v2/events/trades`: a fill of a market order, its correction or its bust."""
    at, quantity, price = rfc3339(activity.at_ns), text(abs(activity.quantity)), text(activity.price)
    return {
        "account_id": activity.account_id,
        "at": at,
        "event_id": activity.event_id,
        "event": activity.details["execution_type"],
        "timestamp": at,
        "execution_id": activity.ref_id,
        "price": price,
        "qty": f"-{quantity}" if activity.is_void else quantity,
        "order": _order_json(activity, market, at, "0" if activity.is_void else quantity, price),
    } | ({} if activity.previous is None else {"previous_execution_id": activity.previous.ref_id})


def _order_json(activity: Activity, market: Market, at: str, quantity: str, price: str) -> dict[str, Any]:
    unset = (
        "expired_at",
        "cancel_requested_at",
        "canceled_at",
        "failed_at",
        "replaced_at",
        "replaced_by",
        "replaces",
    )
    empty = ("notional", "limit_price", "stop_price", "legs", "trail_percent", "trail_price", "hwm")
    moments = dict.fromkeys(("created_at", "updated_at", "submitted_at", "filled_at"), at)
    return {
        "id": activity.details["order_id"],
        "client_order_id": activity.details["client_order_id"],
        **moments,
        **dict.fromkeys(unset),
        "asset_id": str(asset_id_of(activity.symbol)),
        "symbol": activity.symbol,
        "asset_class": market.listing(activity.symbol).asset_class,
        "qty": quantity,
        "filled_qty": quantity,
        "filled_avg_price": price,
        "order_class": "",
        "order_type": "market",
        "type": "market",
        "side": activity.details["side"],
        "time_in_force": "day",
        "status": "filled",
        "extended_hours": False,
        "commission": text(Decimal(0)),
        **dict.fromkeys(empty),
    }
