"""The types that the services share: account, position, mark. Input is validated where it is parsed.

Money and quantities are Decimal, and JSON strings in Valkey. A mark price is a float64 whose shortest decimal
form is the exact price (market data arrives as JSON or MessagePack numbers); `exact` returns that decimal.

Types with hundreds of thousands of objects are `gc=False`: they are in no reference cycle, and the garbage
collector does not have to visit them while clients wait.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Annotated, Final, NamedTuple

import msgspec

US_EQUITY: Final = "us_equity"
US_OPTION: Final = "us_option"
CRYPTO: Final = "crypto"

ZERO: Final = Decimal(0)
EXACT: Final = Context(prec=80, rounding=ROUND_HALF_EVEN)  # enough digits that no sum or product is rounded
ACCOUNT_RECORD: Final = "account_record"  # in `stale`, beside symbols: the account record itself is old
PRICED_CLASSES: Final = frozenset({US_EQUITY, US_OPTION, CRYPTO})  # asset classes with a feed


class Position(msgspec.Struct, frozen=True, gc=False):
    """A signed quantity of one symbol in one account.

    `day_quantity` and `day_cost` sum what was traded or journaled since the previous close (purchases are
    positive), so that one formula gives the day P&L of carried, opened, reduced and closed positions. A
    position that was closed during the day stays with quantity 0 until the roll.
    """

    symbol: str
    asset_class: str
    quantity: Decimal  # signed: long > 0 > short
    multiplier: Decimal  # shares per contract; 1 for all but options
    cost_basis: Decimal  # signed like the quantity, in dollars
    day_quantity: Decimal = ZERO
    day_cost: Decimal = ZERO  # in dollars, multiplier included
    day_asof: str = ""  # YYYY-MM-DD from which these two count; empty without them
    marks_from_ns: int = 0  # the time of the last split: an older mark is a price before it
    is_cost_known: bool = True  # false: a part of the cost is in no booking and in no statement yet
    is_day_cost_known: bool = True  # false after a booking without the value of its quantity

    @property
    def price_name(self) -> str:
        """The symbol whose mark is its price. A class without a feed has none, even if the symbol had."""
        return self.symbol if self.asset_class in PRICED_CLASSES else f"{self.symbol} {self.asset_class}"


class Unconfirmed(msgspec.Struct, frozen=True, gc=False):
    """The broker has contradicted a record, or has not confirmed it yet."""

    since_ns: int
    reason: str
    by: dict[str, Decimal]  # symbol, `cash` or `equity` -> the broker's minus ours; empty when not known


class Confirmation(msgspec.Struct, frozen=True, gc=False):
    """The broker's newest statement that agreed with a record or replaced it."""

    complete_ns: int  # when its last answer arrived
    cash: Decimal
    equity: Decimal | None  # the broker's own figure; None: it states none
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
    balance_asof: str  # YYYY-MM-DD: the day of last_equity
    external_cash_flow: Decimal  # net, since 16:00 New York of balance_asof
    positions: tuple[Position, ...]
    as_of_ns: int
    unvalued: tuple[str, ...] = ()  # symbols, or cash, that the client has moved at an unknown value
    unexplained: dict[str, Decimal] = {}  # symbol or `cash` -> a change without a booking
    unconfirmed: Unconfirmed | None = None
    is_unreadable: bool = False  # the broker's newest answer about it could not be read: the record is old
    confirmed: Confirmation | None = None
    held_back: Decimal = ZERO  # dollars that open orders hold back, as far as the broker reports it

    @property
    def is_day_pnl_known(self) -> bool:
        """Whether every change since last equity is explained and valued."""
        return not self.unvalued and not self.unexplained


class Pending(msgspec.Struct, frozen=True, gc=False):
    """A listed account that has no record yet."""

    account_id: str
    reason: str
    is_final: bool  # it will not get a record while the broker's answers stay the same


class Mark(msgspec.Struct, frozen=True, gc=False):
    """The price that values a symbol now, with its source and time."""

    symbol: str
    price: float
    as_of_ns: int  # when it was traded
    version: int  # of two marks of a symbol, the higher one is newer: see `versions_from`
    source: str  # the feed: iex, sip, crypto, ...
    previous_close: float | None = None
    previous_close_date: str | None = None
    quality: str = ""  # mark quality: see GLOSSARY.md


VERSIONS_PER_TOKEN: Final = 1_000_000  # a token is at least Valkey's time in ms: so many a millisecond


def versions_from(fencing_token: int) -> int:
    """The lowest version of the marks written under a lease: above all those of earlier leases.

    The clocks of consumers, which may be wrong, do not count.
    """
    return fencing_token * VERSIONS_PER_TOKEN


class Unmarked(msgspec.Struct, frozen=True, gc=False):
    """A symbol whose price was requested and that has none. It is stored in place of a mark."""

    symbol: str
    source: str  # the feed
    sought_ns: int  # when the price was requested


class Booking(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The changes that one booking made in an account. Subtracted, they give the balances before it."""

    at_ns: int  # when it was executed
    cash: Decimal
    external_cash_flow: Decimal
    symbol: str  # empty when it moves cash only
    asset_class: str
    quantity: Decimal
    multiplier: Decimal
    is_split: bool = False  # earlier prices are those before the split


class Bookings(msgspec.Struct, frozen=True):
    """The day's bookings of an account. They belong to its record of the same version."""

    account_id: str
    version: int
    day_began_ns: int  # the time of last_equity
    known_since_ns: int  # from this time on, no booking is missing
    bookings: tuple[Booking, ...]


class ClosedDay(msgspec.Struct, frozen=True, array_like=True):
    """An account at a day's close, and its external cash flow since the close before, in dollars."""

    date: str  # YYYY-MM-DD
    equity: Decimal | None
    external_cash_flow: Decimal | None


class ClosedDays(msgspec.Struct, frozen=True):
    """All closed days of an account that the broker reports, in order."""

    account_id: str
    days: tuple[ClosedDay, ...]
    fetched_ns: int


class MinuteMark(NamedTuple):
    """A mark as the history of a minute keeps it."""

    price: float
    as_of_ns: int  # when it was traded


class MinuteMarks(msgspec.Struct, frozen=True):
    """Marks at one minute; see `state.minutes`."""

    at_ns: int
    complete: dict[str, bool]  # asset class whose changes are all known -> whether all symbols are named
    marks: dict[str, MinuteMark | None]  # changes since the minute before; None: the mark is gone


class AccountChange(msgspec.Struct, frozen=True, array_like=True):
    """Announces the version of an account's record; version 0: the record is gone."""

    account_id: str
    version: int


PositionRows = list[tuple[str, bytes]]  # symbol, JSON object of its position


class Publication(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One account's newest valuation, encoded for the wire, from the calculator to the servers.

    `value` is the JSON object of the portfolio message without positions. `rows` has (symbol, JSON object) of
    each position; None: no client watches positions.
    """

    account_id: str
    sequence: int
    value: bytes
    rows: PositionRows | None = None


@dataclass(slots=True)
class Publications:
    """Publications in columns, because one flush has thousands."""

    account_ids: list[str]
    sequences: list[int]
    values: list[bytes]
    rows: Mapping[int, PositionRows]  # index in the columns -> rows, of publications with positions

    @classmethod
    def of(cls, publications: Iterable[Publication]) -> "Publications":
        """These publications in columns."""
        made = tuple(publications)
        return cls(
            [one.account_id for one in made],
            [one.sequence for one in made],
            [one.value for one in made],
            {index: one.rows for index, one in enumerate(made) if one.rows is not None},
        )

    def __len__(self) -> int:
        return len(self.account_ids)

    def __iter__(self) -> Iterator[Publication]:
        columns = zip(self.account_ids, self.sequences, self.values, strict=True)
        for index, (account_id, sequence, value) in enumerate(columns):
            yield Publication(account_id, sequence, value, self.rows.get(index))

    def part(self, first: int, last: int) -> "Publications":
        """Those from `first` to before `last`."""
        if first == 0 and last >= len(self):
            return self
        rows = {index - first: rows for index, rows in self.rows.items() if first <= index < last}
        some = slice(first, last)
        return Publications(self.account_ids[some], self.sequences[some], self.values[some], rows)

    def only(self, account_ids: Container[str]) -> "Publications":
        """Those of these accounts."""
        if all(map(account_ids.__contains__, self.account_ids)):
            return self
        return Publications.of(one for one in self if one.account_id in account_ids)


Counted = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""An epoch or a sequence: more does not fit into the columns of a server."""


class PublicationBatch(msgspec.Struct, frozen=True, array_like=True):
    """All publications of one shard in one flush, with one epoch, as columns because there are many.

    An empty batch shows that the owner of the shard is alive.
    """

    epoch: Counted
    account_ids: list[str]
    sequences: list[Counted]
    frames: list[bytes]  # each `value` as a WebSocket frame
    rows: Mapping[int, PositionRows]  # index in the columns -> rows, of publications with positions
    stale_hops: tuple[str, ...] = ()  # hops before the calculator that deliver nothing fresh
    traceparents: dict[int, str] = {}  # index -> traceparent, of publications with a traced mark (`tracing`)

    def __post_init__(self) -> None:
        """Refuse columns that do not match: one account would get the value of another."""
        count = len(self.account_ids)
        if len(self.sequences) != count or len(self.frames) != count:
            raise ValueError("columns of different lengths")

    def only(self, indices: Sequence[int]) -> "PublicationBatch":
        """The publications at these indices."""
        places = dict(zip(indices, range(len(indices)), strict=True))
        return PublicationBatch(
            self.epoch,
            [self.account_ids[index] for index in indices],
            [self.sequences[index] for index in indices],
            [self.frames[index] for index in indices],
            {places[index]: rows for index, rows in self.rows.items() if index in places},
            self.stale_hops,
            {places[index]: trace for index, trace in self.traceparents.items() if index in places},
        )


def exact(price: float) -> Decimal:
    """The decimal price of a float64: the shortest decimal that reads back as the same float."""
    return Decimal(repr(price))


def plain(number: Decimal) -> str:
    """A Decimal as plain digits, never with an exponent."""
    return format(number, "f")
