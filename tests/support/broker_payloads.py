"""One account and one position as the Broker API gives them."""

from typing import Any

ACCOUNT: dict[str, Any] = {
    "id": "c8f1ef5d-edc0-4f23-9ee4-378f19cb92a4",
    "status": "ACTIVE",
    "currency": "USD",
    "cash": "24861.91",
    "equity": "28059.3882330664",
    "last_equity": "26977.323677655",
    "balance_asof": "2021-04-01",
    "admin_configurations": {},
    "options_approved_level": 0,
}
POSITION: dict[str, Any] = {
    "asset_id": "93f58d0b-6c53-432d-b8ce-2bad264dbd94",
    "symbol": "AAPL",
    "exchange": "NASDAQ",
    "asset_class": "us_equity",
    "asset_marginable": False,
    "avg_entry_price": "172.08",
    "qty": "4",
    "side": "long",
    "market_value": "688.32",
    "cost_basis": "688.32",
    "current_price": "172.08",
}
