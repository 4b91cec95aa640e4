"""The nouns that the services share: account, position, mark. Parsed at the edge, trusted inside.

Money and quantities are Decimal and travel as JSON strings. A mark price is a float64 whose shortest
decimal form is the exact price (market data arrives as JSON or MessagePack numbers); `exact` gives it back.

What there are hundreds of thousands of is `gc=False`: it is in no cycle, and the garbage collector need not
look at each of them while clients wait.
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final, NamedTuple

import msgspec

US_EQUITY: Final = "us_equity"
US_OPTION: Final = "us_option"
CRYPTO: Final = "crypto"

ZERO: Final = Decimal(0)
EXACT: Final = Context(prec=80, rounding=ROUND_HALF_EVEN)  # wide enough that no sum or product rounds
ACCOUNT_RECORD: Final = "account_record"  # names itself among stale symbols when the record is old
PRICED_CLASSES: Final = frozenset({US_EQUITY, US_OPTION, CRYPTO})  # that a feed brings marks of


class Position(msgspec.Struct, frozen=True, gc=False):
    """A signed quantity of one symbol in one account.

    `day_quantity` and `day_cost` sum what was traded or journaled since the previous close (bought
    positive), so that the day P&L of carried, opened, reduced and closed positions is one formula.
    A position that was closed today stays with quantity 0 until the roll.
    """

    symbol: str
    asset_class: str
    quantity: Decimal  # signed: long > 0 > short
    multiplier: Decimal  # shares per contract; 1 for all but options
    cost_basis: Decimal  # signed like the quantity, in dollars
    day_quantity: Decimal = ZERO
    day_cost: Decimal = ZERO  # in dollars, multiplier included
    day_asof: str = ""  # YYYY-MM-DD that these two count from; empty where there is neither
    marks_from_ns: int = 0  # after a split: an older mark is the price of another piece
    is_cost_known: bool = True  # false: some of it came at a cost that no booking told, and no statement yet
    is_day_cost_known: bool = True  # false after a booking that does not tell what the quantity was worth


class Unconfirmed(msgspec.Struct, frozen=True, gc=False):
    """The broker has contradicted a record, or has not yet said that it is right."""

    since_ns: int
    reason: str
    by: dict[str, Decimal]  # symbol, `cash` or `equity` -> the broker's less ours; empty where nobody knows


class Confirmation(msgspec.Struct, frozen=True, gc=False):
    """The newest statement of the broker's that agreed with a record, or was taken as the record."""

    complete_ns: int  # when its last answer had come
    cash: Decimal
    equity: Decimal | None  # the broker's own, where it states one
    balance_asof: str
    position_count: int


class Account(msgspec.Struct, frozen=True, gc=False):
    """One brokerage account as the broker states it, at one version."""

    account_id: str
    version: int
    status: str
    currency: str
    cash: Decimal
    last_equity: Decimal
    balance_asof: str  # YYYY-MM-DD: the day that last_equity belongs to
    external_cash_flow: Decimal  # net, since 16:00 New York of balance_asof
    positions: tuple[Position, ...]
    as_of_ns: int
    unvalued: tuple[str, ...] = ()  # symbols, or cash, moved by the client at a value not known
    unexplained: dict[str, Decimal] = {}  # symbol or `cash` -> what has changed and no booking tells
    unconfirmed: Unconfirmed | None = None
    is_unreadable: bool = False  # the broker's newest answer about it could not be read: the record is old
    confirmed: Confirmation | None = None
    held_back: Decimal = ZERO  # dollars that open orders hold back, as far as the broker tells

    @property
    def is_day_pnl_known(self) -> bool:
        """Is every change since last equity explained and valued?"""
        return not self.unvalued and not self.unexplained


class Pending(msgspec.Struct, frozen=True, gc=False):
    """An account that the broker lists and that has no record."""

    account_id: str
    reason: str
    is_final: bool  # it will never have one, as long as the broker says the same


class Mark(msgspec.Struct, frozen=True, gc=False):
    """The price that values a symbol now, with where and when it comes from."""

    symbol: str
    price: float
    as_of_ns: int  # when it was traded
    received_ns: int  # when it reached us; orders two marks of one symbol
    source: str  # the feed: iex, sip, crypto, ...
    previous_close: float | None = None
    previous_close_date: str | None = None
    quality: str = ""  # what the price is worth: see market.marks


class Unmarked(msgspec.Struct, frozen=True, gc=False):
    """A symbol that has been looked for and has no price anywhere: what would else be its mark."""

    symbol: str
    source: str  # the feed
    sought_ns: int


class Booking(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one booking has changed in an account, and when: taken back, it gives the balances before it."""

    at_ns: int  # when it was executed
    cash: Decimal
    external_cash_flow: Decimal
    symbol: str  # empty where it moves cash alone
    asset_class: str
    quantity: Decimal
    multiplier: Decimal
    is_split: bool = False  # prices from before it are of other pieces


class Bookings(msgspec.Struct, frozen=True):
    """The day's bookings of an account; they belong to its record of the same version."""

    account_id: str
    version: int
    day_began_ns: int  # the moment of last_equity
    known_since_ns: int  # from here on, no booking is missing
    bookings: tuple[Booking, ...]


class ClosedDay(msgspec.Struct, frozen=True, array_like=True):
    """An account at one day's close, and what the client had brought in since the close before."""

    date: str  # YYYY-MM-DD
    equity: Decimal | None
    external_cash_flow: Decimal | None


class ClosedDays(msgspec.Struct, frozen=True):
    """All closed days of an account that the broker tells, in order."""

    account_id: str
    days: tuple[ClosedDay, ...]
    fetched_ns: int


class MinuteMark(NamedTuple):
    """A mark as a minute remembers it."""

    price: float
    as_of_ns: int  # when it was traded


class MinuteMarks(msgspec.Struct, frozen=True):
    """What is known of some symbols' marks at one minute; see `state.minutes`."""

    at_ns: int
    complete: dict[str, bool]  # asset class of which every change is known -> does it name all symbols?
    marks: dict[str, MinuteMark | None]  # new since the minute before; None: there is none any more


class AccountChange(msgspec.Struct, frozen=True, array_like=True):
    """Announces that an account has a record of this version; version 0 says that it is gone."""

    account_id: str
    version: int


class Publication(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One account's newest valuation, encoded for the wire, as it travels from calculator to servers.

    `value` is the JSON object of the protocol without positions; `rows` holds (symbol, JSON object) of
    each position, or None when nobody watches them.
    """

    account_id: str
    sequence: int
    value: bytes
    rows: list[tuple[str, bytes]] | None = None


class PublicationBatch(msgspec.Struct, frozen=True, array_like=True):
    """All publications of one shard from one flush, under one epoch; column by column, for they are many.

    One without any is a sign of life.
    """

    epoch: int
    account_ids: list[str]
    sequences: list[int]
    frames: list[bytes]  # each `value` as a WebSocket frame
    rows: dict[int, list[tuple[str, bytes]]]  # of those with positions, by their place in the columns
    stale_hops: tuple[str, ...] = ()  # hops before the calculator from which nothing fresh comes
    traceparents: dict[int, str] = {}  # of those that show a followed mark, by their place: `tracing`


def exact(price: float) -> Decimal:
    """The decimal price behind a float64: its shortest representation that reads back the same."""
    return Decimal(repr(price))


def plain(number: Decimal) -> str:
    """A Decimal as plain digits, never with an exponent."""
    return format(number, "f")
