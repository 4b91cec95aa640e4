"""What the broker's statements contain and no booking has explained yet, as parts.

A part is an amount of one symbol or of cash. Two kinds are recognised by their form: a fee that is charged
before it is booked, and a split without a booking. A stand-in booking counts them for the day at once. Every
other part is unexplained: it may look like a gain or a loss, but is neither. A later booking of the same
amount explains a part and does not change the balances again.

Several late bookings add up to one excess, also in opposite directions. Every booking from the gap (since
REST last agreed) is therefore subtracted from its part, whatever its sign.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Final

import msgspec

from portfolio_realtime.model import CRYPTO, US_OPTION, ZERO
from portfolio_realtime.symbol_collector import activity_types
from portfolio_realtime.symbol_collector.model import CASH, Activity, Effect, sum_of
from portfolio_realtime.symbol_collector.records import cash_flows

# Upper bounds of fees by what was traded. Crypto: the highest of Alpaca's tiers, of what is received ("Crypto
# Maker/Taker", 2023-03-13; decision 22). The others are above what is charged: SEC and TAF for sales of
# securities; ORF, OCC and TAF for options ("Regulatory fees").
CRYPTO_FEE_MAX: Final = Decimal("0.0025")
COIN_ROUNDING: Final = Decimal("1e-9")  # the last decimal of a quantity; a fee may be rounded up to it
SALE_FEE_MAX: Final = Decimal("0.0001")
SHARE_FEE_MAX: Final = Decimal("0.0004")
CONTRACT_FEE_MAX: Final = Decimal("0.15")
TRADE_FEE_MAX: Final = Decimal("0.02")  # rounding up to cents may add this to each trade
IMMATERIAL: Final = Decimal("0.005")  # dollars; less does not change a cent
PRICE_TOLERANCE: Final = 0.2  # how far the price may deviate from the ratio; trading pauses beyond
RATIO_SHARE: Final = 0.5  # a price nearer to the old one than to the split's is no split
UNIT_TOLERANCE: Final = Decimal("0.1")  # of a trade's value: commissions; other contracts differ by more
CENT: Final = Decimal("0.01")
HALF_CENT: Final = CENT / 2


class Cause(StrEnum):
    """The kind of a part, by its form."""

    UNEXPLAINED = "unexplained"
    FEE = "fee"
    SPLIT = "split"
    IN_BASE = "in last equity"


_RECOGNISED: Final = (Cause.FEE, Cause.SPLIT)


class Part(msgspec.Struct):
    """An amount of a symbol or of cash that the broker's statements have shown since `since_ns`."""

    name: str
    amount: Decimal
    since_ns: int
    cause: Cause


class Differences:
    """The open parts of one account."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._gap_from_ns: dict[str | None, int] = {}  # name, or None for all names -> published after this
        self._undecided: Sequence[Effect] = ()  # known bookings, oldest first, that the gap may contain

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def unexplained(self) -> dict[str, Decimal]:
        """Symbol or CASH -> amount that no booking explains."""
        return {part.name: part.amount for part in self._parts if part.cause is Cause.UNEXPLAINED}

    @property
    def ahead(self) -> dict[str, Decimal]:
        """Symbol or CASH -> amount that is recognised and not booked yet."""
        return {part.name: part.amount for part in self._parts if part.cause in _RECOGNISED}

    def add(self, name: str, amount: Decimal, since_ns: int, cause: Cause) -> None:
        """Add a part. It is merged with the part of the same name and cause, and may offset it."""
        for part in self._parts:
            if part.name == name and part.cause is cause:
                part.amount += amount
                break
        else:
            self._parts.append(Part(name, amount, since_ns, cause))
        self._tidy()

    def open_gap(self, from_ns: int, name: str | None = None, undecided: Sequence[Effect] = ()) -> None:
        """Bookings published after this are in the parts, of one name or of all.

        `undecided` are known bookings, oldest first, that may have been in the balances before.
        """
        if self.unexplained:
            self._gap_from_ns[name] = min(from_ns, self._gap_from_ns.get(name, from_ns))
            self._undecided = (*self._undecided, *undecided)

    def from_gap(self, effect: Effect, published_ns: int) -> set[str]:
        """The names, symbol or CASH, whose parts must contain what a booking moves."""
        return {
            name
            for name in effect.parts
            if any(published_ns > self._gap_from_ns.get(one, published_ns) for one in (name, None))
        }

    def since_ns(self, effect: Effect) -> int | None:
        """Since when the broker has shown exactly this, or None."""
        parts = self._equals(effect)
        return min(part.since_ns for part in parts) if parts else None

    def recognises(self, effect: Effect) -> bool:
        """Whether it is exactly what was recognised by its form: a fee, or a split."""
        parts = self._equals(effect)
        return bool(parts) and all(part.cause in _RECOGNISED for part in parts)

    def may_contain(self, effect: Effect) -> bool:
        """Whether it may be in what the broker already shows.

        What is recognised has it if it is as large. What is not may be the sum of several, in and out.
        """
        return any(
            part.cause not in _RECOGNISED or (part.amount * amount > 0 and abs(part.amount) >= abs(amount))
            for name, amount in effect.parts.items()
            for part in self._parts
            if part.name == name
        )

    def explain(
        self,
        parts: Mapping[str, Decimal],
        rounding: Decimal = ZERO,
        from_gap: Collection[str] = (),
    ) -> None:
        """Reduce the open parts by a booking of these amounts, which the balances already contained.

        An amount from the gap that exceeds its part reverses the part's sign: other bookings of the gap are
        still to come.
        """
        since_ns = min((part.since_ns for part in self._parts), default=0)
        for name, amount in parts.items():
            tolerance = rounding if name == CASH else ZERO
            left = self._reduce(name, amount, tolerance)
            if name in from_gap and abs(left) > tolerance:
                self.add(name, -left, since_ns, Cause.UNEXPLAINED)
        self._tidy()
        if self._are_undecided():
            self._parts = [part for part in self._parts if part.cause is not Cause.UNEXPLAINED]
            self._tidy()

    def _reduce(self, name: str, amount: Decimal, tolerance: Decimal) -> Decimal:
        """Reduce the open parts of this name and sign by the amount. Returns what of it is left."""
        for part in self._parts:
            if part.name == name and part.amount * amount > 0:
                used = min(abs(part.amount), abs(amount)).copy_sign(amount)
                part.amount -= used
                amount -= used
                if abs(part.amount) <= tolerance:
                    part.amount = ZERO
        return amount

    def age(self, cut_off_ns: int, oldest_ns: int) -> None:
        """Mark parts from before the cut-off as contained in the day's base; drop very old ones.

        A part that the base contains is no gain. It is kept only so that its booking is recognised.
        """
        self._parts = [part for part in self._parts if part.since_ns >= oldest_ns]
        for part in self._parts:
            if part.cause is Cause.UNEXPLAINED and part.since_ns <= cut_off_ns:
                part.cause = Cause.IN_BASE

    def stand_ins(self, account_id: str) -> list[Activity]:
        """Bookings that stand in for the recognised parts, as of when they were seen."""
        return [_stand_in(account_id, part) for part in self._parts if part.cause in _RECOGNISED]

    def _equals(self, effect: Effect) -> list[Part]:
        """The parts that equal the whole effect, or none."""
        parts = [self._equal(name, amount, effect.rounding) for name, amount in effect.parts.items()]
        return [part for part in parts if part is not None] if None not in parts else []

    def _equal(self, name: str, amount: Decimal, rounding: Decimal) -> Part | None:
        allowed = rounding if name == CASH else ZERO
        for part in self._parts:
            if part.name == name and abs(part.amount - amount) <= allowed:
                return part
        return None

    def _are_undecided(self) -> bool:
        """Whether the newest of the undecided bookings make up what is unexplained.

        They are checked separately for cash and quantities, as REST may have shown these at different times.
        """
        unexplained, total = self.unexplained, Effect(ZERO, {})
        cash = unexplained.pop(CASH, ZERO)
        has_cash, has_quantities = not cash, not unexplained
        for effect in reversed(self._undecided):
            total = sum_of((total, effect))
            has_cash |= abs(total.cash - cash) <= total.rounding
            has_quantities |= total.quantities == unexplained
        return has_cash and has_quantities

    def _tidy(self) -> None:
        self._parts = [part for part in self._parts if part.amount]
        if not self.unexplained:
            self._gap_from_ns.clear()
            self._undecided = ()


def _stand_in(account_id: str, part: Part) -> Activity:
    is_cash, is_split = part.name == CASH, part.cause is Cause.SPLIT
    name = f"{part.cause}:{part.name}:{part.since_ns}"
    return Activity(
        account_id=account_id,
        event_id=name,
        ref_id=name,
        previous_id=None,
        activity_type=activity_types.SPLIT if is_split else activity_types.CRYPTO_FEE,
        status="executed",
        symbol=None if is_cash else part.name,
        quantity=ZERO if is_cash else part.amount,
        price=ZERO,
        net_amount=part.amount if is_cash else ZERO,
        executed_ns=part.since_ns,
        published_ns=part.since_ns,
        ex_date=cash_flows.new_york_day(part.since_ns) if is_split else None,
    )


def fee_bound(name: str, bookings: Iterable[Activity]) -> Decimal:
    """The largest fee of these trades that may not be booked yet, of a symbol or of cash; at least 0."""
    bound = ZERO
    for one in bookings:
        if one.is_void:
            continue
        if one.activity_type in (activity_types.CRYPTO_FEE, activity_types.FEE):
            bound -= abs(one.net_amount if name == CASH else one.legs.get(name, ZERO))
        elif one.activity_type == activity_types.TRADE:
            bound += _cash_fee_max(one) if name == CASH else _coin_fee_max(one, name)
    return max(ZERO, bound)


def _coin_fee_max(trade: Activity, symbol: str) -> Decimal:
    received = trade.legs.get(symbol, ZERO) if "/" in symbol else ZERO
    return CRYPTO_FEE_MAX * received + COIN_ROUNDING if received > 0 else ZERO


def _cash_fee_max(trade: Activity) -> Decimal:
    asset_class = trade.asset_class
    if asset_class == CRYPTO:
        return CRYPTO_FEE_MAX * trade.net_amount + CENT if trade.net_amount > 0 else ZERO
    if asset_class == US_OPTION:
        return (
            TRADE_FEE_MAX
            + CONTRACT_FEE_MAX * abs(trade.quantity)
            + SALE_FEE_MAX * max(ZERO, trade.net_amount)
        )
    return TRADE_FEE_MAX + SHARE_FEE_MAX * abs(trade.quantity) + SALE_FEE_MAX * max(ZERO, trade.net_amount)


def without_rounding(missing: Decimal, bookings: Iterable[Activity]) -> Decimal:
    """Cash that these bookings lack, without what the rounding of their amounts accounts for.

    Amounts are stated in whole cents. Whether the broker's cash is, too, shows in what is missing.
    """
    beyond = sum(map(_beyond_cents, bookings), ZERO)
    left = missing - beyond
    return left if abs(left) < IMMATERIAL or missing % CENT else missing


def _beyond_cents(activity: Activity) -> Decimal:
    """What a trade moves beyond its stated amount, if this is rounded to the cent."""
    if activity.activity_type != activity_types.TRADE or activity.is_void or activity.counter is not None:
        return ZERO
    beyond = -activity.value - activity.net_amount
    return beyond if abs(beyond) <= HALF_CENT else ZERO


def is_of_another_unit(activity: Activity) -> bool:
    """Whether a contract may have another number of shares than we count, by its symbol or its amount.

    No position has stated it yet: until one does, its value may be wrong.
    """
    if activity.stated_multiplier is not None or not activity.moves_quantity:
        return False
    if not activity.is_unit_known:
        return True
    if activity.asset_class != US_OPTION or activity.activity_type != activity_types.TRADE:
        return False
    value, paid = abs(activity.value), abs(activity.net_amount)
    return value > 0 and abs(paid - value) > _cash_fee_max(activity) + UNIT_TOLERANCE * value


def is_split(
    before: Decimal, after: Decimal, cost: tuple[Decimal, Decimal], price: tuple[float | None, float | None]
) -> bool:
    """Whether the total cost is unchanged and the price has changed inversely to the quantity.

    `cost` and `price` are what the broker stated before and after. Without both prices the answer is no.
    """
    price_before, price_after = price
    if before * after <= 0 or not price_before or not price_after or abs(cost[0] - cost[1]) > CENT:
        return False
    ratio = float(after / before)
    return abs(ratio * price_after / price_before - 1) <= min(PRICE_TOLERANCE, RATIO_SHARE * abs(ratio - 1))
