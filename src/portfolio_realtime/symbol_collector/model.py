"""Statements and activities of the broker, in our terms.

A statement (REST) says what an account has; an activity (event) says what changed. `effect_of` turns an
activity into the change of cash and quantities, so that the two can be compared.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Final

import msgspec

from portfolio_realtime.model import CRYPTO, EXACT, US_EQUITY, US_OPTION, ZERO, Account

OPTION_MULTIPLIER: Final = Decimal(100)
ONE: Final = Decimal(1)
CENT: Final = Decimal("0.01")

CLOSED: Final = "ACCOUNT_CLOSED"
DOLLAR: Final = "USD"
EXECUTED, CORRECTED, CANCELED = "executed", "correct", "canceled"  # statuses of a booking; any other: not yet
TAKEN_BACK: Final = frozenset({CANCELED, "deleted", "rejected", "refused", "returned"})  # for good
CASH: Final = "cash"  # stands among symbols where cash is unvalued, unexplained or unconfirmed

# A root may end in a digit (`MDU1`): a contract that was adjusted for a corporate action.
_OPTION_SYMBOL: Final = re.compile(r"[A-Z][A-Z0-9]{0,5}\d{6}[CP]\d{8}")
_ADJUSTED_OPTION: Final = re.compile(r"[A-Z]+\d[A-Z0-9]*\d{6}[CP]\d{8}")
_CUSIP: Final = re.compile(r"(?=.*\d)[A-Z0-9]{9}")  # names a bond, whose price is per 100 of the face value
_CRYPTO_PAIR: Final = re.compile(r"([A-Z0-9]{2,})(USDT|USDC|USD|BTC)")
_EQUITY_LETTERS_MAX: Final = 5


class Holding(msgspec.Struct, frozen=True, gc=False):
    """A signed quantity of one symbol, with its signed cost basis in dollars."""

    symbol: str
    asset_class: str
    quantity: Decimal
    cost_basis: Decimal
    stated_multiplier: Decimal | None = None  # from the broker's own figures
    is_cost_known: bool = True  # false: no booking states the cost of a part of it
    is_multiplier_disputed: bool = False  # the broker's own figures contradict each other

    @property
    def multiplier(self) -> Decimal:
        """Shares per contract; 1 for all but options."""
        return self.stated_multiplier or multiplier_of(self.asset_class)

    @property
    def is_adjusted(self) -> bool:
        """Whether the symbol is that of an adjusted contract, which may not have 100 shares."""
        return _ADJUSTED_OPTION.fullmatch(self.symbol) is not None


class AccountState(msgspec.Struct, frozen=True):
    """The broker's answer about an account, without positions."""

    account_id: str
    status: str
    currency: str
    cash: Decimal
    last_equity: Decimal
    balance_asof: str  # YYYY-MM-DD
    last_cash: Decimal | None = None  # at the moment of `last_equity`
    equity: Decimal | None = None  # at the broker's own prices at that moment
    market_value: Decimal | None = None  # of all positions, at the same moment


class Statement(msgspec.Struct, frozen=True, dict=True):
    """An account as REST states it. State and positions come from two requests."""

    state: AccountState
    holdings: dict[str, Holding]
    prices: dict[str, float] = {}  # the broker's own, where it states them; not used for values
    market_value: Decimal | None = None  # the sum over the positions
    gross_value: Decimal = ZERO  # the same, with short positions counted as positive

    @functools.cached_property
    def quantities(self) -> Mapping[str, Decimal]:
        """Symbol -> signed quantity, without zeros."""
        return {symbol: holding.quantity for symbol, holding in self.holdings.items() if holding.quantity}

    def has_holdings_of(self, account: Account) -> bool:
        """Whether the record has the same quantities."""
        held = {position.symbol: position.quantity for position in account.positions if position.quantity}
        return held == self.quantities


class Activity(msgspec.Struct, frozen=True):
    """One booking. `quantity` is signed (negative for a sale); `net_amount` is the change of cash."""

    account_id: str
    event_id: str
    ref_id: str  # the same booking may arrive twice; its ref_id is the same
    previous_id: str | None  # ref_id of the earlier booking that this one corrects or busts
    activity_type: str
    status: str
    symbol: str | None
    quantity: Decimal
    price: Decimal
    net_amount: Decimal
    executed_ns: int
    published_ns: int
    is_void: bool = False  # a bust: it only reverses the earlier booking
    group_id: str | None = None  # shared by the legs of one corporate action
    ex_date: str | None = None  # YYYY-MM-DD from which prices contain it
    rounding: Decimal = ZERO  # the broker's cash may differ by this from a net_amount that it did not state
    subtype: str = ""
    counter: tuple[str, Decimal] | None = None  # the coin that a trade of two coins was paid in, and how much
    is_tentative: bool = False  # it does not state what it moves in terms that are certain
    opposite: str | None = None  # of a leg that names two symbols: the one that it moves in a short position
    stated_class: str = ""  # asset class as a position has stated it; events do not
    stated_multiplier: Decimal | None = None  # as a position has stated it, or shown it by its figures

    @property
    def asset_class(self) -> str:
        """The class that the broker states, otherwise the one suggested by the symbol's form."""
        return self.stated_class or asset_class_of(self.symbol or "")

    @property
    def legs(self) -> dict[str, Decimal]:
        """Symbol -> signed quantity that the booking moves."""
        legs = {self.symbol: self.quantity} if self.symbol is not None and self.quantity else {}
        return legs if self.counter is None else {**legs, self.counter[0]: self.counter[1]}

    @property
    def value(self) -> Decimal:
        """Quantity × price × multiplier in dollars, signed. Means nothing unless `is_unit_known`."""
        return self.quantity * self.price * self.multiplier

    @property
    def multiplier(self) -> Decimal:
        """Dollars per unit of the price: shares per contract, for a bond usually 0.01."""
        return self.stated_multiplier or multiplier_of(self.asset_class)

    @property
    def is_unit_known(self) -> bool:
        """Whether the multiplier is known. The symbols of bonds and of adjusted contracts do not tell it."""
        if self.stated_multiplier is not None or self.stated_class in (US_EQUITY, CRYPTO):
            return True
        return not any(form.fullmatch(self.symbol or "") for form in (_ADJUSTED_OPTION, _CUSIP))

    @property
    def is_executed(self) -> bool:
        """Whether it has happened. A booking with another status may never happen, or is told again."""
        return self.status in (EXECUTED, CORRECTED, CANCELED, "")

    @property
    def is_undecided(self) -> bool:
        """Whether only a statement can tell what it moves."""
        return self.is_tentative or not self.is_executed or (bool(self.rounding) and not self.is_unit_known)

    @property
    def moves_quantity(self) -> bool:
        """Whether it changes a position. Some cash bookings have a quantity and no symbol."""
        return self.symbol is not None and self.quantity != ZERO


class Effect(msgspec.Struct, frozen=True):
    """What an activity changes: cash and quantities (of two symbols if it corrects another booking)."""

    cash: Decimal
    quantities: dict[str, Decimal]
    rounding: Decimal = ZERO  # how far the cash may be from the broker's

    @property
    def parts(self) -> dict[str, Decimal]:
        """Symbol or CASH -> change, without zeros."""
        return {CASH: self.cash, **self.quantities} if self.cash else dict(self.quantities)


def effect_of(activity: Activity, corrected: Activity | None = None) -> Effect:
    """The change of cash and quantities by an activity, net of the earlier booking that it corrects."""
    cash = rounding = ZERO
    quantities: dict[str, Decimal] = {}
    for booking, sign in ((corrected, -1), (activity, 1)):
        if booking is None or booking.is_void:
            continue
        cash += sign * booking.net_amount
        rounding += booking.rounding
        for symbol, quantity in booking.legs.items():
            quantities[symbol] = quantities.get(symbol, ZERO) + sign * quantity
    return Effect(cash, {symbol: quantity for symbol, quantity in quantities.items() if quantity}, rounding)


def void(activity: Activity) -> Activity:
    """The same booking without any effect."""
    return msgspec.structs.replace(activity, is_void=True)


def dropped(activity: Activity) -> Activity:
    """The same booking, which has not happened: nor is what it would have corrected taken back."""
    return msgspec.structs.replace(activity, is_void=True, previous_id=None)


def takes_back(activity: Activity, corrected: Activity) -> bool:
    """Whether a correction moves the opposite of what it corrects: that is a reversal, not another amount.

    The cash of a reversed trade may lack its fees.
    """
    if activity.is_void or corrected.is_void:
        return False
    if corrected.legs:
        legs = {symbol: -quantity for symbol, quantity in corrected.legs.items()}
        return activity.legs == legs and activity.net_amount * corrected.net_amount <= 0
    return bool(activity.net_amount) and not activity.legs and activity.net_amount == -corrected.net_amount


def of_short_position(activity: Activity) -> Activity:
    """The same leg if it is a short position that is exchanged: what comes in closes it."""
    return msgspec.structs.replace(activity, symbol=activity.opposite, opposite=None)


def with_units(activity: Activity, asset_class: str, multiplier: Decimal | None) -> Activity:
    """The same booking by the class and multiplier that positions state ("" and None: not stated).

    An amount that the broker did not state follows the multiplier, which is the first one that was stated:
    a later one is of an adjusted contract.
    """
    stated = multiplier if activity.stated_multiplier is None else activity.stated_multiplier
    if (activity.stated_class, activity.stated_multiplier) == (asset_class, stated):
        return activity
    known = msgspec.structs.replace(activity, stated_class=asset_class, stated_multiplier=stated)
    return msgspec.structs.replace(known, net_amount=-cents(known.value)) if known.rounding else known


def cents(dollars: Decimal) -> Decimal:
    """Dollars to the cent, half a cent up, as the broker rounds fills. Raises InvalidOperation."""
    return dollars.quantize(CENT, ROUND_HALF_UP)


def sum_of(effects: Iterable[Effect]) -> Effect:
    """What several bookings change together."""
    cash = rounding = ZERO
    quantities: dict[str, Decimal] = {}
    with localcontext(EXACT):
        for effect in effects:
            cash += effect.cash
            rounding += effect.rounding
            for symbol, quantity in effect.quantities.items():
                quantities[symbol] = quantities.get(symbol, ZERO) + quantity
    return Effect(cash, {symbol: quantity for symbol, quantity in quantities.items() if quantity}, rounding)


def multiplier_of(asset_class: str) -> Decimal:
    """100 for options, 1 for everything else."""
    return OPTION_MULTIPLIER if asset_class == US_OPTION else ONE


def asset_class_of(symbol: str) -> str:
    """The asset class by the form of a symbol: OCC option symbol, pair with a slash, otherwise equity."""
    if "/" in symbol:
        return CRYPTO
    return US_OPTION if _OPTION_SYMBOL.fullmatch(symbol) else US_EQUITY


def market_symbol(symbol: str, asset_class: str | None = None) -> str:
    """The symbol as market data spells it: crypto pairs with a slash (`BTCUSD` -> `BTC/USD`).

    Without a class, only a symbol that is too long for an equity and ends in a quote currency is a pair.
    """
    if "/" in symbol or asset_class not in (CRYPTO, None):
        return symbol
    if asset_class is None and len(symbol) <= _EQUITY_LETTERS_MAX:
        return symbol
    pair = _CRYPTO_PAIR.fullmatch(symbol)
    return f"{pair[1]}/{pair[2]}" if pair else symbol


def coin(symbol: str) -> str:
    """The symbol under which a coin is priced in dollars: `ETH/USD` for `ETH/BTC` and `ETH`."""
    return f"{symbol.partition('/')[0]}/{DOLLAR}"


def paid_in(symbol: str) -> str | None:
    """The symbol of the coin that pays for a trade of this pair; None for dollars, or if it is no pair."""
    quote = symbol.partition("/")[2]
    return None if quote in ("", DOLLAR) else coin(quote)
