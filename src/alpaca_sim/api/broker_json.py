"""Broker API objects in Alpaca's JSON shapes: accounts, trading accounts, positions, assets.

Amounts are decimal strings in dollars.
"""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from alpaca_sim.core.clock import NEW_YORK, new_york, new_york_ns, rfc3339
from alpaca_sim.core.decimals import ZERO, divide, exact, text
from alpaca_sim.core.ledger import Account, Holdings, Position
from alpaca_sim.core.market import Listing, Market, MarketSymbol
from alpaca_sim.core.statuses import ACTIVE
from alpaca_sim.core.switches import Switches

SESSION_CLOSE_HOUR = 16
MARGIN_INITIAL = Decimal("0.5")
MARGIN_MAINTENANCE = Decimal("0.3")
ENTITIES = ("contact", "identity", "disclosures", "agreements", "documents", "trusted_contact")


def position_symbol(symbol: str, switches: Switches) -> str:
    """The symbol in positions: by default BTCUSD for BTC/USD of market data (switch `position_crypto`)."""
    return symbol.replace("/", "") if switches.position_crypto == "BTCUSD" else symbol


def account_json(account: Account, entities: set[str]) -> dict[str, Any]:
    """One row of `/v1/accounts` with the requested entities."""
    created_at = rfc3339(account.created_ns)
    row: dict[str, Any] = {
        "id": account.account_id,
        "account_number": account.account_number,
        "status": account.status,
        "crypto_status": "ACTIVE",
        "currency": "USD",
        "last_equity": text(account.last_equity),
        "created_at": created_at,
        "account_type": "trading",
        "account_name": f"{account.given_name} {account.family_name}",
        "primary_account_holder_id": None,
        "enabled_assets": ["us_equity", "us_option", "crypto"],
    }
    return row | {name: value for name, value in _entities(account, created_at).items() if name in entities}


def _entities(account: Account, created_at: str) -> dict[str, Any]:
    return {
        "contact": {
            "email_address": email_address(account),
            "phone_number": "+15555550123",
            "street_address": ["20 N San Mateo Dr"],
            "city": "San Mateo",
            "state": "CA",
            "postal_code": "94401",
        },
        "identity": {
            "given_name": account.given_name,
            "family_name": account.family_name,
            "date_of_birth": "1990-01-01",
            "tax_id_type": "USA_SSN",
            "country_of_citizenship": "USA",
            "country_of_birth": "USA",
            "country_of_tax_residence": "USA",
            "funding_source": ["employment_income"],
        },
        "disclosures": {
            "is_control_person": False,
            "is_affiliated_exchange_or_finra": False,
            "is_politically_exposed": False,
            "immediate_family_exposed": False,
        },
        "agreements": [
            {"agreement": "customer_agreement", "signed_at": created_at, "ip_address": "127.0.0.1"},
            {"agreement": "margin_agreement", "signed_at": created_at, "ip_address": "127.0.0.1"},
        ],
        "documents": [],
        "trusted_contact": {"given_name": "Jane", "family_name": "Doe", "email_address": "jane@example.com"},
    }


def email_address(account: Account) -> str:
    """The account holder's address, which `GET /v1/accounts?query=…` searches as well."""
    return f"{account.given_name}.{account.family_name}.{account.account_number}@example.com".lower()


@dataclass(frozen=True, slots=True)
class MarketValues:
    """Market value of long and of short positions in dollars; short is zero or negative."""

    long: Decimal
    short: Decimal


def market_values(market: Market, holdings: Holdings, at_closes: bool = False) -> MarketValues:
    """Exact long and short market value, at the marks or at the closes of `balance_asof`.

    A position without a price counts as zero.
    """
    long = short = ZERO
    with exact():
        for symbol, position in holdings.positions.items():
            state = market.symbols[symbol]
            if state.is_unpriced:
                continue
            price = state.close if at_closes else state.mark
            value = position.quantity * state.listing.multiplier * price
            long, short = (long + value, short) if value >= 0 else (long, short + value)
    return MarketValues(long, short)


def trade_account_json(
    market: Market, account: Account, holdings: Holdings, balance_date: date
) -> dict[str, Any]:
    """The object of `/v1/trading/accounts/{id}/account`. `holdings` may be behind the ledger."""
    now, last = (
        market_values(market, holdings),
        market_values(market, account.opening, at_closes=True),
    )
    cash, last_cash = holdings.cash, account.opening.cash
    with exact():
        equity = cash + now.long + now.short
        position_value = now.long + now.short
        power = {name: text(value) for name, value in _margin(cash, equity, now).items()}
        last_power = {
            f"last_{name}": text(value)
            for name, value in _margin(last_cash, account.last_equity, last).items()
        }
    previous_close = new_york(new_york_ns(balance_date, SESSION_CLOSE_HOUR)).astimezone(NEW_YORK)
    return {
        "id": account.account_id,
        "account_number": account.account_number,
        "status": account.status,
        "crypto_status": "ACTIVE",
        "currency": "USD",
        "cash": text(cash),
        "cash_withdrawable": text(max(cash, ZERO)),
        "cash_transferable": text(max(cash, ZERO)),
        "equity": text(equity),
        "portfolio_value": text(equity),
        "long_market_value": text(now.long),
        "short_market_value": text(now.short),
        "position_market_value": text(position_value),
        "last_equity": text(account.last_equity),
        "last_cash": text(last_cash),
        "last_long_market_value": text(last.long),
        "last_short_market_value": text(last.short),
        **power,
        **last_power,
        "effective_buying_power": power["buying_power"],
        "non_marginable_buying_power": text(max(cash, ZERO)),
        "sma": "0",
        "multiplier": "2",
        "accrued_fees": "0",
        "pending_transfer_out": "0",
        "pending_reg_taf_fees": "0",
        "intraday_adjustments": "0",
        "memoposts": "0",
        "balance_asof": balance_date.isoformat(),
        "previous_close": previous_close.isoformat(),
        "created_at": rfc3339(account.created_ns),
        "clearing_broker": "VELOX",
        "account_blocked": account.status != ACTIVE,
        "trading_blocked": False,
        "transfers_blocked": False,
        "trade_suspended_by_user": False,
        "shorting_enabled": True,
        "options_approved_level": 3,
        "options_trading_level": 3,
        "admin_configurations": {},
        "user_configurations": None,
    }


def _margin(cash: Decimal, equity: Decimal, values: MarketValues) -> dict[str, Decimal]:
    gross = values.long - values.short
    spare = max(ZERO, equity - gross * MARGIN_INITIAL)
    return {
        "buying_power": spare * 2,
        "regt_buying_power": spare * 2,
        "options_buying_power": max(ZERO, min(spare, cash)),
        "initial_margin": gross * MARGIN_INITIAL,
        "maintenance_margin": gross * MARGIN_MAINTENANCE,
    }


def position_json(
    listing: Listing,
    position: Position,
    price: Decimal,
    switches: Switches,
    previous_close: Decimal | None = None,
) -> dict[str, Any]:
    """One position valued at `price`, with its day's profit since `previous_close` (default: the listing's).

    A short position has negative quantity, market value and cost basis.
    """
    quantity, previous_close = position.quantity, previous_close or listing.previous_close
    with exact():
        units = quantity * listing.multiplier
        market_value = units * price
        profit = market_value - position.cost_basis
        base = position.cost_basis if position.is_new else units * previous_close
        intraday_profit = market_value - base
    return {
        "asset_id": listing.asset_id,
        "symbol": position_symbol(listing.symbol, switches),
        "exchange": listing.exchange,
        "asset_class": listing.asset_class,
        "asset_marginable": listing.asset_class == "us_equity",
        "qty": text(quantity),
        "qty_available": text(quantity),
        "side": "long" if quantity > 0 else "short",
        "avg_entry_price": text(divide(position.cost_basis, units)),
        "cost_basis": text(position.cost_basis),
        "market_value": text(market_value),
        "unrealized_pl": text(profit),
        "unrealized_plpc": text(divide(profit, abs(position.cost_basis))),
        "unrealized_intraday_pl": text(intraday_profit),
        "unrealized_intraday_plpc": text(divide(intraday_profit, abs(base))),
        "current_price": text(price),
        "lastday_price": text(previous_close),
        "change_today": text(divide(price - previous_close, previous_close)),
    }


PRICED_FIELDS = (
    "market_value",
    "unrealized_pl",
    "unrealized_plpc",
    "unrealized_intraday_pl",
    "unrealized_intraday_plpc",
    "current_price",
    "lastday_price",
    "change_today",
)


def held_json(state: MarketSymbol, position: Position, switches: Switches) -> dict[str, Any]:
    """One position at its mark. Without a price, the fields that need one are null or zero by switch."""
    row = position_json(state.listing, position, state.mark, switches)
    if state.is_unpriced:
        row |= dict.fromkeys(PRICED_FIELDS, None if switches.unpriced == "null" else "0")
    return row


def positions_json(market: Market, holdings: Holdings, switches: Switches) -> list[dict[str, Any]]:
    """All positions at their marks."""
    return [
        held_json(market.symbols[symbol], position, switches)
        for symbol, position in holdings.positions.items()
    ]


def closing_positions_json(market: Market, account: Account, switches: Switches) -> list[dict[str, Any]]:
    """The positions at the last close, valued at the raw closing prices, before any later split."""
    states = [(market.symbols[symbol], position) for symbol, position in account.opening.positions.items()]
    return [
        position_json(state.listing, position, state.close, switches, state.close)
        for state, position in states
        if not state.is_unpriced
    ]


def asset_json(listing: Listing) -> dict[str, Any]:
    """One asset. `easy_to_borrow` is past its sunset date, but Alpaca's own SDK still requires it."""
    is_equity, is_crypto = listing.asset_class == "us_equity", listing.asset_class == "crypto"
    row: dict[str, Any] = {
        "id": listing.asset_id,
        "class": listing.asset_class,
        "exchange": listing.exchange,
        "symbol": listing.symbol,
        "name": listing.name,
        "status": "active",
        "tradable": True,
        "marginable": is_equity,
        "shortable": is_equity,
        "fractionable": is_equity or is_crypto,
        "easy_to_borrow": is_equity,
        "margin_requirement_long": "30" if is_equity else "100",
        "margin_requirement_short": "30" if is_equity else "100",
        "attributes": ["fractional_eh_enabled", "overnight_tradable"] if is_equity else [],
    }
    if is_equity:
        row["borrow_status"] = "easy_to_borrow"
    if is_crypto:
        row |= {
            "min_order_size": "0.000000001",
            "min_trade_increment": "0.000000001",
            "price_increment": "0.0001",
        }
    return row
