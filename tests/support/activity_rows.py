"""The rows of one account's activities, and a client that gives them page by page."""

from typing import Any

from portfolio_realtime import config
from portfolio_realtime.clock import parse_rfc3339
from portfolio_realtime.symbol_collector.sources import trading_rows
from portfolio_realtime.symbol_collector.sources.parse import ListedAccount
from portfolio_realtime.symbol_collector.sources.trading_client import TradingClient

NOW_NS = parse_rfc3339("2026-11-20T18:00:00Z")
FILL: dict[str, Any] = {
    "id": "20261120123456789::b0a1",
    "activity_type": "FILL",
    "transaction_time": "2026-11-20T17:34:56.789012Z",
    "type": "fill",
    "price": "10.005",
    "qty": "2",
    "side": "sell_short",
    "symbol": "AAPL",
    "leaves_qty": "0",
    "order_id": "order-1",
    "cum_qty": "2",
    "order_status": "filled",
}
DEPOSIT: dict[str, Any] = {
    "id": "20261120000000000::c0a1",
    "activity_type": "CSD",
    "date": "2026-11-20",
    "net_amount": "100.5",
    "status": "executed",
    "created_at": "2026-11-20T14:00:00.5Z",
}


class Activities(TradingClient):
    """The rows of an account as a test arranges them, newest first, in pages; `asked` counts the requests."""

    def __init__(self, rows: dict[str, list[Any]]) -> None:
        super().__init__(config.load(apca_api_key_id="PK1", apca_api_secret_key="s"))
        self.rows = rows
        self.asked = 0

    async def accounts(self) -> list[ListedAccount]:
        """One."""
        return [ListedAccount("alice", "ACTIVE", "2026-01-01T00:00:00Z")]

    async def activities(self, category: str, page_token: str | None) -> list[Any]:
        """A page."""
        self.asked += 1
        rows = self.rows[category]
        ids = [trading_rows.row_id(row) for row in rows]
        start = ids.index(page_token) + 1 if page_token else 0
        return rows[start : start + trading_rows.PAGE_LENGTH]


class Still:
    """A clock that a test sets."""

    def now_ns(self) -> int:
        """Always the same."""
        return NOW_NS

    def monotonic_s(self) -> float:
        """Always the same."""
        return 0.0
