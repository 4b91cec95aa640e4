"""Types of the HTTP answers that are not messages of the WebSocket, each with an example; not used to encode.

Money is a decimal string in dollars; null means that a price is not known.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

import msgspec

from portfolio_realtime.valuation.closed_days import Range
from portfolio_realtime.wire.examples import PORTFOLIO_EXAMPLE
from portfolio_realtime.wire.messages import Doubt, PortfolioMessage, Time

Ask = Callable[[str], Awaitable[bytes | None]]
"""The encoded answer for an account, or None when it has no record. Raises StateUnavailable."""


class ExplainedPosition(msgspec.Struct, forbid_unknown_fields=True):
    """The legs of one position. `market_value` and `day_pnl` are not rounded."""

    symbol: str
    asset_class: str
    quantity: str
    multiplier: str
    mark: str | None
    mark_source: str | None
    mark_as_of: Time | None
    mark_quality: str | None
    previous_close: str | None
    previous_close_date: str | None
    market_value: str | None
    day_quantity: str
    day_cost: str | None
    day_asof: str | None
    day_pnl: str | None


class ConfirmedBy(msgspec.Struct, forbid_unknown_fields=True):
    """The broker's figures when it last agreed. Open orders may have held back cash."""

    cash: str
    equity: str | None
    balance_asof: str
    positions: int


class Explanation(msgspec.Struct, forbid_unknown_fields=True):
    """Every leg of an account's value; `steps` has the arithmetic from the legs to the cents."""

    account_id: str
    currency: str
    timestamp: Time
    record_version: int
    record_as_of: Time
    positions: list[ExplainedPosition]
    cash: str
    last_equity: str
    balance_asof: str
    external_cash_flow: str
    unrounded_equity: str | None
    unrounded_day_pnl: str | None
    rounding: str
    equity: str | None
    day_pnl: str | None
    known_equity: str
    unpriced: list[str]
    awaited: list[str]
    unvalued: list[str]
    unexplained: dict[str, str]
    unconfirmed: Doubt | None
    confirmed_at: Time | None
    confirmed_by: ConfirmedBy | None
    held_back: str | None
    without_day_pnl: list[str]
    steps: list[str]


class HistoryPoint(msgspec.Struct, forbid_unknown_fields=True):
    """The account's value at one moment, and what the client had brought in since the base.

    A minute of the day has `day_pnl`, a point of a longer range `pnl`: equity − base − external cash flow.
    """

    timestamp: Time
    equity: str | None
    external_cash_flow: str | None
    day_pnl: str | msgspec.UnsetType | None = msgspec.UNSET
    pnl: str | msgspec.UnsetType | None = msgspec.UNSET


class History(msgspec.Struct, forbid_unknown_fields=True):
    """The account's value over time. `base` is the equity from which gains count. What is not known is null.

    Send `revision` with the next request. `is_whole` is false when the answer has only later points.
    """

    account_id: str
    range: Range
    timeframe: str
    base: str | None
    points: list[HistoryPoint]
    revision: str
    is_whole: bool


class HeldAsset(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """An asset that the account holds, or held today. What is not known is absent.

    `name` is the broker's; `cost_basis` is what was paid, in dollars, negative for a short position.
    """

    symbol: str
    asset_class: str
    name: str | msgspec.UnsetType = msgspec.UNSET
    cost_basis: str | msgspec.UnsetType = msgspec.UNSET


class HeldAssets(msgspec.Struct, forbid_unknown_fields=True):
    """What an account holds, with names, sorted by symbol."""

    account_id: str
    assets: list[HeldAsset]


class PortfolioItem(msgspec.Struct, omit_defaults=True):
    """One of several accounts: `status` is `ok`, or the code that says why there is no portfolio.

    `account_number` is the broker's, for people; absent where it is not known.
    """

    account_id: str
    status: Literal[
        "ok", "account_not_found", "value_unavailable", "account_not_ready", "account_not_in_dollars"
    ]
    account_number: str | msgspec.UnsetType = msgspec.UNSET
    portfolio: PortfolioMessage | msgspec.UnsetType = msgspec.UNSET


class PortfolioTotal(msgspec.Struct):
    """The accounts' total, or null when a part is not known; `missing` names the accounts concerned."""

    equity: str | None
    day_pnl: str | None
    known_equity: str
    missing: list[str]


class PortfolioList(msgspec.Struct):
    """Several accounts in the order of the request, each once."""

    portfolios: list[PortfolioItem]
    total: PortfolioTotal


class AccountEntry(msgspec.Struct, omit_defaults=True):
    """One account that the caller may see; `account_number` is the broker's, absent where it is not known."""

    account_id: str
    account_number: str | msgspec.UnsetType = msgspec.UNSET


class AccountList(msgspec.Struct):
    """A page of accounts; `next` is `after` of the next page, or null.

    `is_complete` is false until the broker's list has been read after a start, and when a webhook decides:
    then only accounts that were requested are known.
    """

    accounts: list[AccountEntry]
    next: str | None
    is_complete: bool


class Problem(msgspec.Struct):
    """Why the request failed: `detail` for people, `code` for programs."""

    detail: str
    code: str


HISTORY_EXAMPLE: Final[dict[str, Any]] = {
    "account_id": "0d18ae51-6a5c-4a5e-9b1c-0a8f6d3c2b1a",
    "range": "1d",
    "timeframe": "1Min",
    "base": "2036.00",
    "points": [
        {
            "timestamp": "2026-11-20T15:04:00.000000Z",
            "equity": "2055.26",
            "external_cash_flow": "0.00",
            "day_pnl": "19.26",
        },
        {
            "timestamp": "2026-11-20T15:05:00.000000Z",
            "equity": None,
            "external_cash_flow": "0.00",
            "day_pnl": None,
        },
    ],
    "revision": "1f0c2b7d9a3e4455",
    "is_whole": True,
}

ASSETS_EXAMPLE: Final[dict[str, Any]] = {
    "account_id": "0d18ae51-6a5c-4a5e-9b1c-0a8f6d3c2b1a",
    "assets": [
        {
            "symbol": "AAPL",
            "asset_class": "us_equity",
            "name": "Apple Inc. Common Stock",
            "cost_basis": "1467.30",
        },
        {"symbol": "AAPL261218C00150000", "asset_class": "us_option", "cost_basis": "812.00"},
    ],
}

MONTH_EXAMPLE: Final[dict[str, Any]] = {
    "account_id": "0d18ae51-6a5c-4a5e-9b1c-0a8f6d3c2b1a",
    "range": "1m",
    "timeframe": "1D",
    "base": "1900.00",
    "points": [
        {
            "timestamp": "2026-11-18T21:00:00.000000Z",
            "equity": "2016.00",
            "external_cash_flow": "100.00",
            "pnl": "16.00",
        },
        {
            "timestamp": "2026-11-19T21:00:00.000000Z",
            "equity": "2036.00",
            "external_cash_flow": "100.00",
            "pnl": "36.00",
        },
        {
            "timestamp": "2026-11-20T15:04:00.000000Z",
            "equity": "2055.26",
            "external_cash_flow": "100.00",
            "pnl": "55.26",
        },
    ],
    "revision": "77ab01c35de290f4",
    "is_whole": True,
}

PORTFOLIO_LIST_EXAMPLE: Final[dict[str, Any]] = {
    "portfolios": [
        {
            "account_id": PORTFOLIO_EXAMPLE["account_id"],
            "account_number": "900000012",
            "status": "ok",
            "portfolio": PORTFOLIO_EXAMPLE,
        },
        {"account_id": "5b1c0a8f", "status": "account_not_found"},
    ],
    "total": {
        "equity": None,
        "day_pnl": None,
        "known_equity": PORTFOLIO_EXAMPLE["equity"],
        "missing": ["5b1c0a8f"],
    },
}

ACCOUNT_LIST_EXAMPLE: Final[dict[str, Any]] = {
    "accounts": [{"account_id": PORTFOLIO_EXAMPLE["account_id"], "account_number": "900000012"}],
    "next": None,
    "is_complete": True,
}

EXPLANATION_EXAMPLE: Final[dict[str, Any]] = {
    "account_id": "0d18ae51-6a5c-4a5e-9b1c-0a8f6d3c2b1a",
    "currency": "USD",
    "timestamp": "2026-11-20T15:04:05.123456Z",
    "record_version": 1795186800000,
    "record_as_of": "2026-11-20T15:00:00.000000Z",
    "positions": [
        {
            "symbol": "AAPL",
            "asset_class": "us_equity",
            "quantity": "10",
            "multiplier": "1",
            "mark": "150.255",
            "mark_source": "iex",
            "mark_as_of": "2026-11-20T15:04:05.000000Z",
            "mark_quality": "iex",
            "previous_close": "148",
            "previous_close_date": "2026-11-19",
            "market_value": "1502.55",
            "day_quantity": "3",
            "day_cost": "447.30",
            "day_asof": "2026-11-19",
            "day_pnl": "19.25",
        }
    ],
    "cash": "552.705",
    "last_equity": "2036.00",
    "balance_asof": "2026-11-19",
    "external_cash_flow": "0.00",
    "unrounded_equity": "2055.255",
    "unrounded_day_pnl": "19.255",
    "rounding": "half-even to cents, once, at the end",
    "equity": "2055.26",
    "day_pnl": "19.26",
    "known_equity": "2055.26",
    "unpriced": [],
    "awaited": [],
    "unvalued": [],
    "unexplained": {},
    "unconfirmed": None,
    "confirmed_at": "2026-11-20T15:00:00.000000Z",
    "confirmed_by": {
        "cash": "552.705",
        "equity": "2054.95",
        "balance_asof": "2026-11-19",
        "positions": 1,
    },
    "held_back": "0.00",
    "without_day_pnl": [],
    "steps": [
        "market value of AAPL: 10 × 1 × 150.255 = 1502.55",
        "AAPL held since the previous close: 10 − 3 = 7",
        "AAPL at the previous close: 7 × 1 × 148 = 1036.00",
        "day P&L of AAPL: 1502.55 − 1036.00 − 447.30 = 19.25",
        "equity: 552.705 + 1502.55 = 2055.255",
        "rounded equity: 2055.255 ≈ 2055.26",
        "day P&L: 2055.255 − 2036.00 − 0.00 = 19.255",
        "rounded day P&L: 19.255 ≈ 19.26",
    ],
}
