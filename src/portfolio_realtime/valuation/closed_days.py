"""An account over weeks and years: the broker's closed days and our value of today, as one line.

Every point has the same formula as the day: P&L = equity − base − the client's external cash flow since the
base. A deposit is therefore no gain. The line does not jump where today begins, because the newest closed day
is the account's own last equity, from which today counts. Unknown values are null: an unknown equity at its
own point only, an unknown flow at all later points as well. Nothing is carried over a gap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from portfolio_realtime.clock import NEW_YORK, NS_PER_S, rfc3339
from portfolio_realtime.model import ZERO, Account, ClosedDay
from portfolio_realtime.valuation.rounding import EXACT, cents, money

Range = Literal["1d", "1w", "1m", "3m", "1y", "all"]
DAYS_OF: Final[dict[Range, int]] = {"1w": 7, "1m": 30, "3m": 91, "1y": 365}
CLOSE: Final = time(16)


@dataclass
class _Line:
    """The running sums of a line, point by point."""

    base: Decimal | None
    flow: Decimal | None = ZERO

    def point(self, timestamp: str, equity: Decimal | None, flow: Decimal | None) -> dict[str, str | None]:
        self.flow = None if self.flow is None or flow is None else EXACT.add(self.flow, flow)
        # The first known equity begins the line.
        if self.base is None and equity is not None:
            self.base, self.flow = equity, ZERO
        is_known = equity is not None and self.flow is not None and self.base is not None
        gain = EXACT.subtract(EXACT.subtract(equity, self.base), self.flow) if is_known else None  # type: ignore[arg-type]  # all three are known
        return {
            "timestamp": timestamp,
            "equity": _text(equity),
            "external_cash_flow": _text(self.flow),
            "pnl": _text(gain),
        }


def joined(
    account: Account, days: Sequence[ClosedDay], today: Sequence[dict[str, Any]], span: Range
) -> dict[str, Any]:
    """The `History` answer for a range longer than a day.

    `days`: the closed days, in order. `today`: the points of the day so far; the newest with a known equity
    ends the line.
    """
    closed = [day for day in days if day.date <= account.balance_asof]
    own = ClosedDay(account.balance_asof, account.last_equity, None)
    if closed and closed[-1].date == account.balance_asof:
        own = msgspec.structs.replace(closed.pop(), equity=account.last_equity)
    closed.append(own)
    kept, before = _cut(closed, span)
    line = _Line(None if before is None else before.equity)
    points = [line.point(_closing_time(day.date), day.equity, day.external_cash_flow) for day in kept]
    if today:
        newest = next((point for point in reversed(today) if point["equity"] is not None), today[-1])
        flow = _number(newest["external_cash_flow"])
        point = line.point(newest["timestamp"], _number(newest["equity"]), flow)
        if newest["day_pnl"] is None:
            point["pnl"] = None
        points.append(point)
    return {
        "account_id": account.account_id,
        "range": span,
        "timeframe": "1D",
        "base": _text(line.base),
        "points": points,
    }


def _cut(days: Sequence[ClosedDay], span: Range) -> tuple[list[ClosedDay], ClosedDay | None]:
    """The days of a range, counted back from the newest, and the last day before the range."""
    if span not in DAYS_OF:
        return list(days), None
    first = (date.fromisoformat(days[-1].date) - timedelta(days=DAYS_OF[span])).isoformat()
    kept = [day for day in days if day.date > first]
    before = [day for day in days if day.date <= first]
    return kept, before[-1] if before else None


def _closing_time(day: str) -> str:
    """16:00 New York of a day (YYYY-MM-DD), the time of its figures, in RFC 3339."""
    closing = datetime.combine(date.fromisoformat(day), CLOSE, NEW_YORK)
    return rfc3339(int(closing.timestamp()) * NS_PER_S)


def _number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _text(dollars: Decimal | None) -> str | None:
    return None if dollars is None else money(cents(dollars))
