"""`/v1/portfolio/{account_id}/assets`: what is held, with names; what is not known is absent."""

from decimal import Decimal

from portfolio_realtime.model import CRYPTO, US_EQUITY, Account, Position
from portfolio_realtime.state import State
from tests.support.websocket_servers import bearer, serving, write_accounts

PATH = "/v1/portfolio/a/assets"


async def test_what_is_held_has_its_name_its_class_and_its_cost(state: State, valkey_url: str) -> None:
    """By symbol; without a name or a known cost that field is absent."""
    lease = await state.leases.acquire("symbol_collector")
    assert lease is not None
    held = (
        Position("NEWCO", US_EQUITY, Decimal(3), Decimal(1), Decimal(7), is_cost_known=False),
        Position("BTC/USD", CRYPTO, Decimal("0.5"), Decimal(1), Decimal("12345.678")),
        Position("AAPL", US_EQUITY, Decimal(-2), Decimal(1), Decimal("-300.5")),
    )
    zero = Decimal(0)
    account = Account("a", 1, "ACTIVE", "USD", zero, zero, "2026-11-20", zero, held, 0)
    await state.accounts.write(lease, [account])
    await state.asset_names.write("AAPL", "Apple Inc.")
    await state.asset_names.write("MSFT", "not held")
    async with serving(valkey_url) as server:
        answer = await server.http.get(PATH, headers=bearer())

    assert answer.status_code == 200
    assert answer.headers["etag"]
    assert answer.json() == {
        "account_id": "a",
        "assets": [
            {"symbol": "AAPL", "asset_class": "us_equity", "name": "Apple Inc.", "cost_basis": "-300.5"},
            {"symbol": "BTC/USD", "asset_class": "crypto", "cost_basis": "12345.678"},
            {"symbol": "NEWCO", "asset_class": "us_equity"},
        ],
    }


async def test_an_account_without_positions_has_no_assets(state: State, valkey_url: str) -> None:
    """An empty list, and nothing for who may not see the account."""
    await write_accounts(state, "a")
    async with serving(valkey_url) as server:
        answer = await server.http.get(PATH, headers=bearer())
        other = await server.http.get(PATH)

    assert answer.json() == {"account_id": "a", "assets": []}
    assert other.status_code == 401
