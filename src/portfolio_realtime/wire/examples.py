"""Examples of each message, for the API documents. Tests check them against the types."""

from typing import Any, Final

import msgspec

from portfolio_realtime.wire.messages import (
    Auth,
    Delta,
    ErrorMessage,
    Freshness,
    Heartbeat,
    HeartbeatAck,
    PortfolioMessage,
    Progress,
    Subscribe,
    SubscribeMany,
    TokenExpiring,
    Unsubscribe,
)

ACCOUNT_ID: Final = "0d18ae51-6a5c-4a5e-9b1c-0a8f6d3c2b1a"
OTHER_ID: Final = "1f6a40de-2b1c-4f7e-8d53-9b0a6c2d4e10"

PORTFOLIO_EXAMPLE: Final[dict[str, Any]] = {
    "type": "portfolio",
    "account_id": ACCOUNT_ID,
    "epoch": 1763822405123,
    "sequence": 17,
    "equity": "104211.37",
    "cash": "10211.37",
    "last_equity": "103002.10",
    "external_cash_flow": "0.00",
    "day_pnl": "1209.27",
    "day_pnl_ratio": 0.0117402,
    "as_of": "2026-11-20T15:04:05.123456Z",
    "stale": [],
    "unpriced": [],
    "total_value": "$104,211.37",
    "today_return": "+$1,209.27 (+1.17%)",
    "timestamp": "2026-11-20T15:04:05.223456Z",
    "record_as_of": "2026-11-20T15:01:12.500000Z",
}

POSITION_EXAMPLE: Final[dict[str, Any]] = {
    "symbol": "AAPL",
    "quantity": "400",
    "mark": "235",
    "mark_source": "iex",
    "mark_as_of": "2026-11-20T15:04:05.123456Z",
    "mark_quality": "iex",
    "previous_close": "232",
    "market_value": "94000.00",
    "day_pnl": "1200.00",
    "unrealized_pnl": "14000.00",
}

POSITIONS_EXAMPLE: Final[dict[str, Any]] = {**PORTFOLIO_EXAMPLE, "positions": [POSITION_EXAMPLE]}

UNPRICED_EXAMPLE: Final[dict[str, Any]] = {
    **PORTFOLIO_EXAMPLE,
    "equity": None,
    "day_pnl": None,
    "day_pnl_ratio": None,
    "stale": ["AAPL"],
    "unpriced": ["NEWCO"],
    "total_value": "—",
    "today_return": "—",
    "known_equity": "104211.37",
    "stale_ages_s": {"AAPL": 3700},
}

UNCONFIRMED_EXAMPLE: Final[dict[str, Any]] = {
    **PORTFOLIO_EXAMPLE,
    "day_pnl": None,
    "day_pnl_ratio": None,
    "today_return": "—",
    "stale": ["account_record"],
    "stale_ages_s": {"account_record": 65},
    "unexplained": {"cash": "-500.00", "KO": "10"},
    "unconfirmed": {
        "since": "2026-11-20T15:03:10.000000Z",
        "reason": "statement differs",
        "by": {"cash": "-20.00"},
    },
}

DELTA_EXAMPLE: Final[dict[str, Any]] = {
    "type": "delta",
    "delta": 1,
    "at": [1763822405123, 18],
    "base": 17,
    "value": [4, 5, "5.42", 8, 3, "3.32", 9, 0, 0.0117796, 10, 18, "6.100000Z"],
    "positions": [["AAPL", 2, 3, ".01", 4, 18, "6.100000Z"]],
}

EXAMPLES: Final[dict[type[msgspec.Struct], list[dict[str, Any]]]] = {
    PortfolioMessage: [PORTFOLIO_EXAMPLE, POSITIONS_EXAMPLE, UNPRICED_EXAMPLE, UNCONFIRMED_EXAMPLE],
    Delta: [DELTA_EXAMPLE],
    Freshness: [
        {
            "type": "freshness",
            "account_id": ACCOUNT_ID,
            "stale_hops": ["calculator"],
            "since": "2026-11-20T15:04:08.123456Z",
        },
        {
            "type": "freshness",
            "account_id": ACCOUNT_ID,
            "stale_hops": [],
            "since": "2026-11-20T15:04:11.123456Z",
        },
    ],
    HeartbeatAck: [{"type": "heartbeat_ack", "timestamp": 1763822405123}],
    ErrorMessage: [
        {"type": "error", "code": "bad_message", "message": "no such message; see the protocol"},
        {
            "type": "error",
            "code": "forbidden",
            "message": "the account does not exist, or it is not yours",
            "account_id": ACCOUNT_ID,
        },
    ],
    TokenExpiring: [{"type": "token_expiring", "in_s": 30}],
    Auth: [{"type": "auth", "token": "eyJhbGciOi…"}],
    Subscribe: [
        {"type": "subscribe", "account_id": ACCOUNT_ID},
        {"type": "subscribe", "account_id": ACCOUNT_ID, "detail": "positions", "max_frequency_hz": 1},
        {"type": "subscribe", "account_id": ACCOUNT_ID, "detail": "positions", "delta": 1},
    ],
    SubscribeMany: [
        {"type": "subscribe_many", "account_ids": [ACCOUNT_ID, OTHER_ID]},
        {
            "type": "subscribe_many",
            "account_ids": [ACCOUNT_ID, OTHER_ID],
            "have": [[1763822405123, 17], None],
        },
    ],
    Progress: [
        {"type": "progress", "subscribed": 2, "waiting": 1, "refused": []},
        {
            "type": "progress",
            "subscribed": 1,
            "waiting": 0,
            "refused": [{"account_id": OTHER_ID, "code": "forbidden"}],
        },
    ],
    Unsubscribe: [{"type": "unsubscribe", "account_id": ACCOUNT_ID}],
    Heartbeat: [{"type": "heartbeat", "timestamp": 1763822405123}],
}
