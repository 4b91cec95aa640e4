"""Which activities are external cash flows, and since when they count.

Alpaca's activity types (Broker API, "Activities"): money or securities that the client brings in or takes out
are external and must not look like a gain; what the account earns or pays is internal and is part of the P&L.

| external                                                     | internal                             |
| ------------------------------------------------------------ | ------------------------------------ |
| CSD, CSW cash deposit and withdrawal; JNLC cash journal      | TRD trades; FEE, CFEE fees           |
| JNLS securities journal, at its price                        | DIV…, DIVNRA dividends and their tax |
| ACATC, ACATS account transfer in cash and in securities      | CGD, INT, CIL, WH                    |
| FOPT free-of-payment transfer; OCT; MEM instant-funding memo | SPLIT, MA, SPIN, REORG, OP…, others  |

`last_equity` is the equity at 16:00 New York of `balance_asof` ("as of previous trading day at 16:00:00 ET"),
so a flow counts when it was executed after that moment.
"""

from datetime import date, datetime, time
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from portfolio_realtime.broker.terms import TRADE, Activity
from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.model import ZERO

EXTERNAL_TYPES: Final = frozenset(
    {"CSD", "CSW", "JNLC", "JNLS", "ACATC", "ACATS", "FOPT", "OCT", "MEM"},
)
# Quantity that enters or leaves at a price: it was not held at the previous close.
DAY_TYPES: Final = frozenset({TRADE, "OPTRD", "JNLS", "ACATS", "FOPT"})
# fmt: off
INTERNAL_TYPES: Final = frozenset({
    "CFEE", "CGD", "CIL", "DIV", "DIVCGL", "DIVCGS", "DIVNRA", "DIVROC", "DIVTXEX", "FEE", "FIMAT", "INT",
    "MA", "NC", "OPASN", "OPCA", "OPCSH", "OPEXC", "OPEXP", "OPTRD", "PTC", "REO", "REORG", "SPIN", "SPLIT",
    TRADE, "VOF", "WH",
})
# fmt: on
KNOWN_TYPES: Final = EXTERNAL_TYPES | INTERNAL_TYPES

NEW_YORK: Final = ZoneInfo("America/New_York")
_CUT_OFF: Final = time(16, 0)


def external_cash_flow(activity: Activity) -> Decimal:
    """Dollars that the client brought in (+) or took out (−) by this booking; 0 for internal ones."""
    if activity.activity_type not in EXTERNAL_TYPES or activity.is_void:
        return ZERO
    securities = activity.value if activity.moves_quantity else ZERO
    return activity.net_amount + securities


def cut_off_ns(balance_asof: str) -> int:
    """16:00 New York of a day `YYYY-MM-DD`: what is executed later is not in `last_equity`."""
    moment = datetime.combine(date.fromisoformat(balance_asof), _CUT_OFF, NEW_YORK)
    return int(moment.timestamp()) * NS_PER_S
