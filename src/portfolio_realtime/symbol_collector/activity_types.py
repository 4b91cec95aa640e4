"""Alpaca's activity types: what each means for cash, quantity, external cash flow and P&L. The only table.

| column   | meaning                                                                                    |
| -------- | ------------------------------------------------------------------------------------------ |
| moves    | whether `qty` changes the position; otherwise it is the quantity held, or nothing          |
| flow     | external: the client brings it in or takes it out, at its price; otherwise earned or paid  |
| cost     | the cost of a quantity that is added or removed: its price, nothing (a split), or unknown  |
|          | (one symbol is exchanged for another)                                                      |
| legs     | alone; part of a group that may stand alone; or one leg of at least two                     |
| source   | where Alpaca names the type                                                                |

A cash amount changes the cash for every type. Sources: `broker` and `trading`, the enums `ActivityType` of
Alpaca's OpenAPI files (broker 1.1.1, trading 2.0.1); `events`, the guide to the activity stream (2026-09-16).
An unknown type is applied as it states. Whether it was earned or brought in is then unknown.
"""

from enum import Enum
from typing import Final, NamedTuple


class Cost(Enum):
    """The cost of a quantity that was added or removed."""

    PRICE = "its price"
    NOTHING = "nothing"
    UNKNOWN = "not told"


class Legs(Enum):
    """Which bookings of one `group_id` belong together."""

    ALONE = "alone"
    MAYBE = "may stand alone"
    SEVERAL = "one of several"


class ActivityType(NamedTuple):
    """One type; the columns are in the table above."""

    code: str
    meaning: str
    moves: bool
    is_external: bool
    cost: Cost
    legs: Legs
    source: str

    @property
    def is_in_kind(self) -> bool:
        """Whether the client brings in or takes out something other than cash."""
        return self.is_external and self.moves

    @property
    def needs_amount(self) -> bool:
        """Whether it is the client's own cash, which must state an amount."""
        return self.is_external and not self.moves and self.code != MEMO


TRADE: Final = "TRD"
FILL: Final = "FILL"  # a trade in the rows of the REST list
MEMO: Final = "MEM"
SPLIT: Final = "SPLIT"
NEW_NAME: Final = "NC"
CRYPTO_FEE: Final = "CFEE"
FEE: Final = "FEE"
ADJUSTMENT: Final = "OPCA"
JOURNALS: Final = ("JNLS", "JNL")  # in kind; transfers from other brokers bring securities only

_PRICE, _NOTHING, _UNKNOWN = Cost.PRICE, Cost.NOTHING, Cost.UNKNOWN
_ALONE, _MAYBE, _SEVERAL = Legs.ALONE, Legs.MAYBE, Legs.SEVERAL

# fmt: off
_ROWS: Final = (
    # code, meaning, moves, is_external, cost, legs, source
    (TRADE, "order fill", True, False, _PRICE, _ALONE, "events"),
    (FILL, "order fill", True, False, _PRICE, _ALONE, "broker trading"),
    ("TRANS", "cash transaction", False, True, _NOTHING, _ALONE, "trading"),
    ("CSD", "cash deposit", False, True, _NOTHING, _ALONE, "broker trading events"),
    ("CSW", "cash withdrawal", False, True, _NOTHING, _ALONE, "broker trading events"),
    ("JNLC", "journal of cash", False, True, _NOTHING, _ALONE, "broker trading events"),
    ("JNLS", "journal of securities", True, True, _PRICE, _ALONE, "broker trading events"),
    ("JNL", "journal of cash or securities", True, True, _PRICE, _ALONE, "trading"),
    ("ACATC", "account transfer, cash", False, True, _NOTHING, _ALONE, "broker trading events"),
    ("ACATS", "account transfer, securities", True, True, _PRICE, _ALONE, "broker trading events"),
    ("FOPT", "free-of-payment transfer", True, True, _PRICE, _ALONE, "broker trading events"),
    ("OCT", "on-chain transfer of coins", True, True, _PRICE, _ALONE, "broker trading events"),
    (MEMO, "instant-funding memo", False, True, _NOTHING, _ALONE, "events"),
    (FEE, "fee", True, False, _NOTHING, _ALONE, "broker trading events"),
    (CRYPTO_FEE, "crypto fee, in coins or dollars", True, False, _NOTHING, _ALONE, "trading"),
    ("DIVFEE", "fee on a dividend", False, False, _NOTHING, _ALONE, "trading"),
    ("INT", "interest", False, False, _NOTHING, _ALONE, "broker trading events"),
    ("INTNRA", "tax on interest, non-resident", False, False, _NOTHING, _ALONE, "trading"),
    ("INTTW", "tax on interest withheld", False, False, _NOTHING, _ALONE, "trading"),
    ("DIV", "dividend; SDIV: in shares", False, False, _NOTHING, _ALONE, "broker trading events"),
    ("DIVCGL", "dividend, long-term gain", False, False, _NOTHING, _ALONE, "broker trading"),
    ("DIVCGS", "dividend, short-term gain", False, False, _NOTHING, _ALONE, "broker trading"),
    ("DIVFT", "dividend, foreign tax withheld", False, False, _NOTHING, _ALONE, "trading"),
    ("DIVNRA", "dividend, tax of non-residents", False, False, _NOTHING, _ALONE, "broker trading events"),
    ("DIVROC", "dividend, return of capital", False, False, _NOTHING, _ALONE, "broker trading"),
    ("DIVTW", "dividend, Tefra tax withheld", False, False, _NOTHING, _ALONE, "trading"),
    ("DIVTXEX", "dividend, tax exempt", False, False, _NOTHING, _ALONE, "broker trading"),
    ("DIVWH", "dividend, tax withheld", False, False, _NOTHING, _ALONE, "events"),
    ("WH", "tax withheld", False, False, _NOTHING, _ALONE, "events"),
    ("CGD", "capital gain distribution", False, False, _NOTHING, _ALONE, "broker trading events"),
    ("CIL", "cash in lieu of shares", False, False, _NOTHING, _ALONE, "broker"),
    ("PTC", "pass-through change", True, False, _UNKNOWN, _MAYBE, "broker trading"),
    ("PTR", "pass-through rebate", False, False, _NOTHING, _ALONE, "trading"),
    (SPLIT, "split", True, False, _NOTHING, _SEVERAL, "broker trading events"),
    ("MA", "merger or acquisition", True, False, _UNKNOWN, _SEVERAL, "broker trading events"),
    (NEW_NAME, "new name", True, False, _UNKNOWN, _SEVERAL, "trading events"),
    ("REO", "reorganisation", True, False, _UNKNOWN, _SEVERAL, "events"),
    ("REORG", "reorganisation", True, False, _UNKNOWN, _MAYBE, "broker trading events"),
    ("SPIN", "spin-off", True, False, _UNKNOWN, _MAYBE, "broker trading events"),
    ("VOF", "voluntary offer", True, False, _UNKNOWN, _MAYBE, "events"),
    ("FIMAT", "bond repaid", True, False, _UNKNOWN, _MAYBE, "events"),
    ("OPASN", "option assigned", True, False, _NOTHING, _SEVERAL, "broker trading events"),
    ("OPEXC", "option exercised", True, False, _NOTHING, _SEVERAL, "broker trading events"),
    ("OPEXP", "option expired", True, False, _NOTHING, _MAYBE, "broker trading events"),
    ("OPTRD", "shares of an option", True, False, _PRICE, _SEVERAL, "broker trading events"),
    ("OPCSH", "cash of an option", False, False, _NOTHING, _SEVERAL, "broker trading events"),
    (ADJUSTMENT, "option adjusted", True, False, _UNKNOWN, _SEVERAL, "broker trading events"),
    ("MISC", "anything else", True, False, _UNKNOWN, _MAYBE, "trading"),
)
# fmt: on
TABLE: Final = {row[0]: ActivityType(*row) for row in _ROWS}

UNDESCRIBED: Final = frozenset({"MISC"})  # in the enums, but not documented

_STOCK_DIVIDEND: Final = "SDIV"
_THREE_LEGS: Final = ("SCMA", "REOSC", "SCMGR")  # the position leaves; shares and cash come in


def is_described(code: str) -> bool:
    """Whether Alpaca documents that it is earned, paid, or brought in by the client."""
    return code in TABLE and code not in UNDESCRIBED


def of(code: str) -> ActivityType:
    """The type with this code. An unknown type is applied as it states, at an unknown cost."""
    return TABLE.get(code) or ActivityType(code, "not described", True, False, _UNKNOWN, _MAYBE, "")


def moves_position(code: str, subtype: str, symbol: str) -> bool:
    """Whether `qty` changes the position. It does for dividends in shares and fees in coins."""
    if code == FEE:
        return "/" in symbol
    return of(code).moves or (code == "DIV" and subtype == _STOCK_DIVIDEND)


def legs_min(subtype: str) -> int:
    """The smallest number of legs in a group of this subtype."""
    return 3 if subtype.rpartition(".")[2] in _THREE_LEGS else 2


def as_markdown() -> str:
    """The table for the documentation."""
    lines = [
        "| type | what it is | quantity | whose | cost of the quantity | in a group | named in |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in TABLE.values():
        moves, whose = "moves" if one.moves else "—", "the client's" if one.is_external else "earned or paid"
        if not is_described(one.code):
            whose = "not described"
        cost = one.cost.value if one.moves else "—"
        lines.append(
            f"| {one.code} | {one.meaning} | {moves} | {whose} | {cost} | {one.legs.value} | {one.source} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
