"""A million published figures against whole-number arithmetic, with half-cent ties built in.

    python -m tests.golden.million

The oracle shares nothing with the product: amounts are Python integers of 10^-18 dollars, rounded to cents by
the remainder. A price is a whole number of 10^-9, a quantity too, so their product is exact.
"""

import random
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import msgspec

from portfolio_realtime.model import US_EQUITY, Account, Mark, Position
from portfolio_realtime.valuation.valuer import Valuer

SEED: Final = 20261120
BATCH_ACCOUNTS: Final = 10_000
BATCHES_OF_A_MILLION: Final = 14
SYMBOLS: Final = 500
HELD: Final = 4_000  # different positions; each account holds some of them
POSITIONS: Final = (0, 1, 3, 5, 8, 16)
NOW_NS: Final = 1_763_650_800_000_000_000
CENT: Final = 10**16  # in units of 10^-18 dollars
NEAR: Final = (0, 0, 0, 1, -1, 10**6, -(10**6), 10**9, -(10**9))  # a tie, and its closest neighbours
CASH_MAX: Final = 10**9  # dollars: an account of this size has a float spacing of 10^-7


class _Figures(msgspec.Struct):
    equity: str
    day_pnl: str
    cash: str
    last_equity: str


class _Row(msgspec.Struct):
    symbol: str
    market_value: str


@dataclass(frozen=True)
class Held:
    """A position with what it is worth by the oracle, in 10^-18 dollars."""

    position: Position
    worth: int


@dataclass
class Tally:
    """What has been compared, and how much of it float could not decide."""

    figures: int = 0
    ties: int = 0  # of the figures, those exactly between two cents
    accounts: int = 0
    exact_accounts: int = 0

    @property
    def text(self) -> str:
        """The result in one line."""
        share = self.exact_accounts / self.accounts
        return (
            f"seed {SEED}: {self.figures:,} figures compared, {self.ties:,} of them exact half cents; "
            f"{self.exact_accounts:,} of {self.accounts:,} accounts ({share:.1%}) needed the exact fallback"
        )


def cents_text(amount: int) -> str:
    """10^-18 dollars as dollars and cents, half to even, by the remainder."""
    cents, rest = divmod(amount, CENT)
    cents += 2 * rest > CENT or (2 * rest == CENT and cents % 2 == 1)
    return f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02d}"


def _prices(source: random.Random) -> list[int]:
    """Of 10^-9 dollars: cents, odd tenths of cents, and eight decimals."""
    kinds = (
        lambda: source.randrange(1, 100_000) * 10**7,
        lambda: (2 * source.randrange(1, 50_000) + 1) * 10**7,
        lambda: source.randrange(1, 10**8) * 10**5,
        lambda: source.randrange(1, 10**13) * 10,
    )
    return [source.choice(kinds)() for _ in range(SYMBOLS)]


def _held(source: random.Random, prices: list[int]) -> Held:
    """Long and short: shares, half shares, fractions of nine decimals, and contracts."""
    index = source.randrange(SYMBOLS)
    kinds = (
        lambda: source.randrange(1, 5_000) * 10**9,
        lambda: (2 * source.randrange(1, 5_000) + 1) * 5 * 10**8,
        lambda: source.randrange(1, 10**12),
    )
    quantity = source.choice((1, 1, -1)) * source.choice(kinds)()
    multiplier = source.choice((1, 1, 1, 100))
    position = Position(
        f"S{index}", US_EQUITY, Decimal(quantity).scaleb(-9), Decimal(multiplier), cost_basis=Decimal(0)
    )
    return Held(position, quantity * multiplier * prices[index])


def _to_tie(source: random.Random, amount: int) -> int:
    """The closest amount below that lies between two cents, or right beside that."""
    return amount - amount % CENT + CENT // 2 + source.choice(NEAR)


@dataclass(frozen=True)
class Case:
    """An account with what must be published of it, in 10^-18 dollars."""

    account: Account
    held: list[Held]
    cash: int
    last_equity: int
    flow: int

    @property
    def equity(self) -> int:
        """What it is worth."""
        return self.cash + sum(one.worth for one in self.held)

    @property
    def day_pnl(self) -> int:
        """What it has gained."""
        return self.equity - self.last_equity - self.flow


def _dollars(amount: int) -> Decimal:
    return Decimal(f"{amount}E-18")  # text makes a Decimal without rounding, arithmetic might not


def _case(source: random.Random, pool: list[Held], index: int) -> Case:
    """A twentieth has a tie in equity, one in the day P&L, one in both; the rest is as it comes."""
    drawn = source.sample(pool, source.choice(POSITIONS))
    held = list({one.position.symbol: one for one in drawn}.values())
    worth = sum(one.worth for one in held)
    cash = source.randrange(-CASH_MAX * 100, CASH_MAX * 100) * CENT
    flow = source.choice((0, 0, source.randrange(-(10**7), 10**7) * CENT))
    kind = source.random()
    if kind < 0.1:
        cash = _to_tie(source, cash + worth) - worth
    equity = cash + worth
    day_pnl = source.randrange(-(10**15), 10**15) * 10**9
    if 0.05 < kind < 0.15:
        day_pnl = _to_tie(source, day_pnl)
    last_equity = equity - flow - day_pnl
    account = Account(
        f"account-{index}",
        1,
        "ACTIVE",
        "USD",
        _dollars(cash),
        _dollars(last_equity),
        "2025-11-19",
        _dollars(flow),
        tuple(one.position for one in held),
        NOW_NS,
    )
    return Case(account, held, cash, last_equity, flow)


def _compare(case: Case, value: bytes, rows: list[tuple[str, bytes]], tally: Tally) -> None:
    shown = msgspec.json.decode(value, type=_Figures)
    amounts = [case.equity, case.day_pnl, case.cash, case.last_equity]
    texts = [shown.equity, shown.day_pnl, shown.cash, shown.last_equity]
    worths = {one.position.symbol: one.worth for one in case.held}
    for _, row in rows:
        read = msgspec.json.decode(row, type=_Row)
        amounts.append(worths.pop(read.symbol))
        texts.append(read.market_value)
    assert not worths
    for text, amount in zip(texts, amounts, strict=True):
        assert text == cents_text(amount), (SEED, case.account)
    tally.figures += len(texts) - 2  # cash and last equity are only handed through
    tally.ties += sum(2 * (amount % CENT) == CENT for amount in (*amounts[:2], *amounts[4:]))


def run(batches: int) -> Tally:
    """Compare so many batches of 10,000 accounts. Raises AssertionError at the first figure that differs."""
    source, tally = random.Random(SEED), Tally()
    for _ in range(batches):
        prices = _prices(source)
        pool = [_held(source, prices) for _ in range(HELD)]
        cases = [_case(source, pool, index) for index in range(BATCH_ACCOUNTS)]
        valuer = Valuer(price_ttl_s=3600, min_update_interval_s=0)
        valuer.apply_marks([Mark(f"S{i}", p / 10**9, NOW_NS, NOW_NS, "iex") for i, p in enumerate(prices)])
        for case in cases:
            valuer.watch(case.account, 1, with_positions=True)
        flush = valuer.flush(NOW_NS, 1.0)
        for case, publication in zip(cases, flush.publications, strict=True):
            _compare(case, publication.value, publication.rows or [], tally)
        tally.accounts += len(cases)
        tally.exact_accounts += flush.exact_count
    return tally


if __name__ == "__main__":
    print(run(BATCHES_OF_A_MILLION).text)
