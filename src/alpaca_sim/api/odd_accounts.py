"""Undocumented contents of real answers about one account, produced by a switch or while a fault lasts."""

from decimal import Decimal
from typing import Any

from alpaca_sim.api.web import ApiError
from alpaca_sim.core.decimals import text
from alpaca_sim.core.ledger import Account
from alpaca_sim.core.market import asset_id_of
from alpaca_sim.core.switches import ODDITIES
from alpaca_sim.simulator import Simulator

HELD_BACK = Decimal(1_000)  # dollars that a resting order holds back
CONTRADICTION = Decimal(600)  # dollars by which equity exceeds cash and positions
TREASURY = "912797MG9"  # an invented CUSIP, which is the symbol of a bond
TREASURY_QUANTITY, TREASURY_PRICE, PAR = Decimal(1_000), Decimal("98.75"), 100
EQUITY_FIELDS = ("equity", "portfolio_value")


def oddities(sim: Simulator, account: Account) -> set[str]:
    """The names of the oddities of an account now: of `ODDITIES`, and `bond`."""
    faults, switches = sim.faults, sim.settings.switches
    if switches.odd_account == "none" and switches.bond == "no" and not faults.active:
        return set()
    rank = sorted(sim.ledger.accounts).index(account.account_id)
    odd = {name for name in ODDITIES if rank < (faults.level(f"odd.{name}") or 0.0)}
    if rank == 0:
        odd |= {switches.odd_account} if switches.odd_account != "none" else set()
        odd |= {"bond"} if switches.bond == "held" else set()
    return odd


def as_listed(sim: Simulator, account: Account, row: dict[str, Any]) -> dict[str, Any]:
    """The account's row of `/v1/accounts` with its oddities."""
    odd = oddities(sim, account)
    if "no_cash" in odd:
        row = {name: value for name, value in row.items() if name != "last_equity"} | {"status": "ONBOARDING"}
    if "euro" in odd:
        row = row | {"currency": "EUR"}
    if "null_field" in odd:
        row = row | {"currency": None, "created_at": None, "last_equity": None}
    return row


def as_stated(sim: Simulator, account: Account, row: dict[str, Any]) -> dict[str, Any]:
    """The account's balances with its oddities. Raises ApiError (500) for the oddity `error`."""
    odd = oddities(sim, account)
    if "error" in odd:
        raise ApiError(500, "internal server error occurred")
    if "no_cash" in odd:
        row = {name: value for name, value in row.items() if "cash" not in name} | {"status": "ONBOARDING"}
    if "euro" in odd:
        row = row | {"currency": "EUR"}
    if "null_field" in odd:
        row = row | {"cash": None}
    if "hold" in odd and row.get("cash"):
        row = row | {"cash": text(Decimal(row["cash"]) - HELD_BACK)}
    if "contradiction" in odd:
        row = row | {name: text(Decimal(row[name]) + CONTRADICTION) for name in EQUITY_FIELDS}
    if "bond" in odd:
        worth = TREASURY_QUANTITY * TREASURY_PRICE / PAR
        names = (*EQUITY_FIELDS, "long_market_value", "position_market_value")
        row = row | {name: text(Decimal(row[name]) + worth) for name in names}
    return row


def as_held(sim: Simulator, account: Account, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The account's positions with its oddities. Raises ApiError (500) for the oddity `error`."""
    odd = oddities(sim, account)
    if "error" in odd:
        raise ApiError(500, "internal server error occurred")
    if "ipo" in odd:
        rows = [
            row | {"asset_class": "ipo", "exchange": ""} if row["asset_class"] == "us_equity" else row
            for row in rows
        ]
    if "twice" in odd and rows:
        rows = [*rows, rows[0] | {"asset_id": str(asset_id_of(f"another {rows[0]['symbol']}"))}]
    return [*rows, _treasury()] if "bond" in odd else rows


def _treasury() -> dict[str, Any]:
    """A bond position. Its price is per 100 of par: its value is quantity × price / 100."""
    worth = text(TREASURY_QUANTITY * TREASURY_PRICE / PAR)
    return {
        "asset_id": str(asset_id_of(TREASURY)),
        "symbol": TREASURY,
        "exchange": "",
        "asset_class": "us_treasury",
        "asset_marginable": False,
        "qty": text(TREASURY_QUANTITY),
        "qty_available": text(TREASURY_QUANTITY),
        "side": "long",
        "avg_entry_price": text(TREASURY_PRICE),
        "cost_basis": worth,
        "market_value": worth,
        "unrealized_pl": "0",
        "unrealized_plpc": "0",
        "unrealized_intraday_pl": "0",
        "unrealized_intraday_plpc": "0",
        "current_price": text(TREASURY_PRICE),
        "lastday_price": text(TREASURY_PRICE),
        "change_today": "0",
    }
