"""Accounts and marks for the tests of the shared state."""

from decimal import Decimal
from typing import Any

from portfolio_realtime.model import US_EQUITY, Account, Mark, Position
from portfolio_realtime.state import keys

SHARDS = 4  # as in the fixture `state`
NOW_NS = 1_763_650_800_000_000_000


def account(account_id: str, version: int = 1, **changes: Any) -> Account:
    """An account with one long and one short position."""
    fields: dict[str, Any] = {
        "status": "ACTIVE",
        "currency": "USD",
        "cash": Decimal("10211.370000001"),
        "last_equity": Decimal("-3.10"),
        "balance_asof": "2026-11-19",
        "external_cash_flow": Decimal("0.00"),
        "positions": (
            Position("AAPL", US_EQUITY, Decimal("0.000000001"), Decimal(1), Decimal("0.02")),
            Position("TSLA", US_EQUITY, Decimal(-5), Decimal(1), Decimal(-1000), Decimal(-5), Decimal(-1000)),
        ),
        "as_of_ns": NOW_NS,
        **changes,
    }
    return Account(account_id=account_id, version=version, **fields)


def accounts_of(shard: int, count: int) -> list[str]:
    """Ids of so many accounts that all belong to one shard."""
    names = (f"account-{index}" for index in range(100 * count))
    return [name for name in names if keys.shard_of(name, SHARDS) == shard][:count]


def mark(symbol: str, price: float = 0.1) -> Mark:
    """A mark with a previous close."""
    return Mark(symbol, price, NOW_NS, NOW_NS + 1, "iex", 0.3, "2026-11-19")
