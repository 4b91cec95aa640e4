"""Every published cent is the exact one, however the numbers conspire against float64."""

import random
from collections.abc import Callable
from decimal import Decimal
from typing import Final

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from portfolio_realtime.model import Account, Position
from portfolio_realtime.valuation import float_rounding, kernel, rounding
from portfolio_realtime.valuation.book import Book
from portfolio_realtime.valuation.valuer import Valuer

from .records import NOW_NS, account, mark, message_of, oracle_figures, position, selected

SEEDS: Final = (7, 11)
ACCOUNTS: Final = 9_000  # of each seed; each publishes six figures
SYMBOLS: Final = 400
FIGURES_MIN: Final = 100_000


def priced(held: list[Account], prices: dict[str, float]) -> Valuer:
    """A valuer that watches these accounts at these prices."""
    valuer = Valuer(price_ttl_s=3600, min_update_interval_s=1)
    for one in held:
        valuer.watch(one, 1, with_positions=False)
    valuer.apply_marks([mark(symbol, price) for symbol, price in prices.items()])
    return valuer


def assert_exact(held: Account, prices: dict[str, float], message: dict[str, str | None]) -> int:
    """The message's money equals the oracle's, digit for digit; how many figures that were."""
    expected = oracle_figures(held, prices)
    assert message["equity"] == expected.equity, held
    assert message["day_pnl"] == expected.day_pnl, held
    assert message.get("known_equity", expected.known_equity) == expected.known_equity, held
    for name in ("cash", "last_equity", "external_cash_flow"):
        stated = account(cash=getattr(held, name))
        assert message[name] == oracle_figures(stated, {}).equity, held
    shown = "—" if expected.equity is None else f"${Decimal(expected.equity):,}".replace("$-", "-$")
    assert message["total_value"] == shown, held
    return 6


# Many figures from one seed


def _symbols(rng: random.Random) -> dict[str, float]:
    """Prices of every kind: cents, odd cents, sub-cents, crypto, and huge."""
    kinds: list[Callable[[], float]] = [
        lambda: rng.randrange(1, 100_000) / 100,
        lambda: (2 * rng.randrange(1, 50_000) + 1) / 100,
        lambda: rng.randrange(1, 10_000_000) / 10_000,
        lambda: rng.uniform(1e-8, 1e-4),
        lambda: rng.uniform(1_000, 120_000),
        lambda: rng.uniform(1e5, 7e5),
    ]
    return {f"S{index}": rng.choice(kinds)() for index in range(SYMBOLS)}


def _tie(rng: random.Random) -> tuple[str, Decimal]:
    """A quantity of half a share (or an odd multiple): times an odd cent this is a half cent exactly."""
    return str(rng.randrange(SYMBOLS)), Decimal(2 * rng.randrange(-500, 500) + 1) / 2


def _position(rng: random.Random) -> Position:
    symbol = f"S{rng.randrange(SYMBOLS)}"
    kind = rng.randrange(7)
    if kind == 0:
        index, quantity = _tie(rng)
        return position(f"S{index}", quantity)
    if kind == 1:
        return position(symbol, Decimal(rng.randrange(-(10**14), 10**14)).scaleb(-9))
    if kind == 2:
        return position(symbol, rng.randrange(-50, 50), multiplier=100)
    if kind == 3:
        return position(symbol, Decimal(rng.randrange(1, 10**10)).scaleb(-8))
    if kind == 4:
        return position(symbol, Decimal("1e-8") * rng.randrange(1, 50))
    if kind == 5:
        return position(symbol, -rng.randrange(1, 5000))
    return position(symbol, rng.randrange(1, 10**7))


def _money(rng: random.Random) -> Decimal:
    scale = rng.choice((0, 2, 2, 2, 3, 3, 9, 15))
    amount = Decimal(rng.randrange(-(10**12), 10**12)).scaleb(-scale)
    if rng.random() < 0.1:
        amount = Decimal(rng.randrange(-(10**13), 10**13)) + Decimal("0.005")
    return amount


def _account(rng: random.Random, index: int) -> Account:
    count = rng.choice((0, 1, 1, 2, 5, 20))
    positions = {p.symbol: p for p in (_position(rng) for _ in range(count))}
    return account(
        f"account-{index}",
        positions.values(),
        cash=_money(rng),
        last_equity=_money(rng),
        external_cash_flow=_money(rng) if rng.random() < 0.3 else 0,
    )


def test_a_hundred_thousand_published_figures_equal_the_oracle() -> None:
    """Ties, fractions, shorts, options, crypto and huge accounts: every cent is the Decimal oracle's."""
    compared = recomputed = 0
    for seed in SEEDS:
        rng = random.Random(seed)
        prices = _symbols(rng)
        held = [_account(rng, index) for index in range(ACCOUNTS)]
        flush = priced(held, prices).flush(NOW_NS, 0.0)
        assert len(flush.publications) == ACCOUNTS
        for one, publication in zip(held, flush.publications, strict=True):
            compared += assert_exact(one, prices, message_of(publication))
        recomputed += flush.exact_count
    print(
        f"seeds {SEEDS}: {compared} published figures compared, {recomputed} accounts recomputed in Decimal"
    )
    assert compared >= FIGURES_MIN
    assert 0 < recomputed < len(SEEDS) * ACCOUNTS / 2, "both ways to a cent must have been walked"


# Any figure that hypothesis can think of

decimals = st.decimals(
    min_value=Decimal("-1e13"), max_value=Decimal("1e13"), allow_nan=False, allow_infinity=False, places=None
)
cash = st.one_of(
    st.integers(-(10**15), 10**15).map(lambda cents: Decimal(cents).scaleb(-2)),
    st.integers(-(10**15), 10**15).map(lambda mills: (2 * Decimal(mills) + 1).scaleb(-3) * 5),
    decimals,
)
quantities = st.one_of(
    st.integers(-(10**6), 10**6).map(Decimal),
    st.integers(-(10**6), 10**6).map(lambda halves: Decimal(halves) / 2),
    st.integers(-(10**15), 10**15).map(lambda nanos: Decimal(nanos).scaleb(-9)),
    st.integers(-(10**9), 10**9).map(lambda units: Decimal(units).scaleb(-8)),
)
prices_of_one = st.one_of(
    st.integers(1, 10**7).map(lambda cents: cents / 100),
    st.integers(1, 10**9).map(lambda tenths: tenths / 10_000),
    st.floats(min_value=1e-9, max_value=1e6, allow_nan=False, allow_infinity=False),
)


@st.composite
def accounts_and_prices(draw: st.DrawFn) -> tuple[Account, dict[str, float]]:
    """An account with up to eight positions, of which some may be unpriced."""
    symbols = draw(st.lists(st.sampled_from([f"S{i}" for i in range(12)]), max_size=8, unique=True))
    multipliers = st.sampled_from([1, 1, 10, 100])
    held = account(
        "alice",
        [position(symbol, draw(quantities), multiplier=draw(multipliers)) for symbol in symbols],
        cash=draw(cash),
        last_equity=draw(cash),
        external_cash_flow=draw(cash),
    )
    known = draw(st.sets(st.sampled_from(symbols), max_size=8)) if symbols else set[str]()
    is_whole = draw(st.booleans())
    return held, {symbol: draw(prices_of_one) for symbol in symbols if is_whole or symbol in known}


@settings(deadline=None, max_examples=400)
@given(accounts_and_prices())
@example((account(positions=[position("A", "0.5")], cash="0.00", last_equity=0), {"A": 0.01}))
@example((account(positions=[position("A", "-0.5")], cash="0.02", last_equity=0), {"A": 0.03}))
@example((account(positions=[position("A", "1.5")], cash="9999999999999.99"), {"A": 0.07}))
def test_any_published_figure_equals_the_oracle(example_: tuple[Account, dict[str, float]]) -> None:
    """Whatever an account holds, its published figures are exact; what is unknown is null."""
    held, prices = example_
    (publication,) = priced([held], prices).flush(NOW_NS, 0.0).publications
    assert_exact(held, prices, message_of(publication))


@settings(deadline=None, max_examples=400)
@given(accounts_and_prices())
def test_the_error_bound_bounds(example_: tuple[Account, dict[str, float]]) -> None:
    """The float result is never further from the exact result than the bound says."""
    held, prices = example_
    book = Book()
    book.put_account(held)
    book.apply_marks([mark(symbol, price) for symbol, price in prices.items()])
    valued = kernel.value(selected(book, ["alice"]), book.prices, book.as_of_ns, book.applied, 0)
    exact = rounding.exact_equity(held, prices)
    bound = Decimal(float(valued.error_bound[0]))
    assert abs(Decimal(float(valued.known_equity[0])) - exact) <= bound
    if not valued.unpriced_count[0]:
        day_pnl = rounding.exact_day_pnl(held, exact)
        assert abs(Decimal(float(valued.day_pnl[0])) - day_pnl) <= bound


def test_the_error_bound_is_not_beyond_use() -> None:
    """An ordinary account is decided in float: its bound lies far below a cent."""
    book = Book()
    book.put_account(account(positions=[position(f"S{i}", 100) for i in range(50)], cash="25000.00"))
    book.apply_marks([mark(f"S{i}", 123.45) for i in range(50)])
    valued = kernel.value(selected(book, ["alice"]), book.prices, book.as_of_ns, book.applied, 0)
    assert valued.error_bound[0] < 1e-6


# The rounding test itself


@pytest.mark.parametrize(
    ("dollars", "cents"),
    [("0.005", 0), ("0.015", 2), ("0.025", 2), ("-0.005", 0), ("-0.015", -2), ("1.0050000001", 101)],
)
def test_half_a_cent_goes_to_the_even_cent(dollars: str, cents: int) -> None:
    """Rounding is half-even, on both sides of zero."""
    assert rounding.cents(Decimal(dollars)) == cents


@pytest.mark.parametrize("dollars", [0.005, 1.005, 104211.375, -0.015, 1e13 + 0.5])
def test_a_half_cent_is_not_left_to_float(dollars: float) -> None:
    """Where the error bound reaches a half cent, float does not decide."""
    _, is_unsure = float_rounding.round_to_cents(np.array([dollars]), np.array([abs(dollars) * 1e-15]))
    assert is_unsure.tolist() == [True]


def test_what_is_not_a_number_is_not_decided() -> None:
    """NaN has no cents."""
    cents, is_unsure = float_rounding.round_to_cents(np.array([np.nan, 1.234]), np.array([0.0, 1e-12]))
    assert is_unsure.tolist() == [True, False]
    assert cents[1] == 123


@given(st.integers(-(10**18), 10**18))
def test_money_reads_back_as_the_same_cents(amount_cents: int) -> None:
    """Cents as text are the same number of dollars, always with two decimals."""
    text = rounding.money(amount_cents)
    assert Decimal(text).scaleb(2) == amount_cents
    assert text[-3] == "."


def test_exact_sums_lose_no_digit() -> None:
    """Forty digits before and thirty after the point are added without rounding."""
    held = account(cash="1" + "0" * 39, positions=[position("A", "0." + "0" * 29 + "1")])
    whole, fraction = str(rounding.exact_equity(held, {"A": 1.0})).split(".")
    assert whole == "1" + "0" * 39
    assert fraction.rstrip("0") == "0" * 29 + "1"
