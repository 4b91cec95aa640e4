"""The book says what a plain dict of accounts would say, whatever was put, dropped and packed before."""

import random
from collections.abc import Sequence

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from portfolio_realtime.model import Account
from portfolio_realtime.valuation.book import INITIAL, Book, Selection

from .records import account, mark, position


def rows_of(book: Book, selection: Selection) -> dict[str, dict[str, float]]:
    """The selection as account -> symbol -> units, read from its arrays alone."""
    matrix = selection.quantities
    rows: dict[str, dict[str, float]] = {}
    for index, account_id in enumerate(selection.account_ids):
        inside = slice(matrix.indptr[index], matrix.indptr[index + 1])
        symbols = [book.symbols[column] for column in matrix.indices[inside]]
        rows[account_id] = dict(zip(symbols, matrix.data[inside].tolist(), strict=True))
    return rows


def units_of(held: Account) -> dict[str, float]:
    """What a row must hold: units by symbol, without closed positions."""
    return {p.symbol: float(p.quantity * p.multiplier) for p in held.positions if p.quantity}


def assert_same(book: Book, model: dict[str, Account], account_ids: Sequence[str]) -> None:
    """A selection of these accounts equals the model."""
    selection = book.select(account_ids)
    assert rows_of(book, selection) == {key: units_of(model[key]) for key in account_ids}
    assert selection.counts.tolist() == [len(units_of(model[key])) for key in account_ids]
    assert selection.cash.tolist() == [float(model[key].cash) for key in account_ids]
    bases = [float(model[key].last_equity + model[key].external_cash_flow) for key in account_ids]
    assert selection.day_base.tolist() == bases
    assert selection.record_as_of_ns.tolist() == [model[key].as_of_ns for key in account_ids]
    assert selection.quantities.shape == (len(account_ids), len(book.prices))
    assert np.array_equal(selection.magnitudes.data, np.abs(selection.quantities.data))


ids = st.sampled_from([f"account-{i}" for i in range(90)])
symbols = st.sampled_from([f"S{i}" for i in range(200)])
holdings = st.dictionaries(symbols, st.integers(-9, 9), max_size=30)


class BookMachine(RuleBasedStateMachine):
    """Any order of puts, drops, marks and selections, next to a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.model: dict[str, Account] = {}
        self.prices: dict[str, float] = {}

    @initialize(count=st.sampled_from([0, 3, 70]))
    def fill(self, count: int) -> None:
        """Sometimes begin with more accounts than the first arrays take."""
        for index in range(count):
            self.put(f"account-{index}", {f"S{index}": 1, f"S{index + 1}": -2}, index)

    @rule(account_id=ids, held=holdings, cash=st.integers(-1000, 1000))
    def put(self, account_id: str, held: dict[str, int], cash: int) -> None:
        """Insert or replace: the row grows, shrinks or stays."""
        positions = [
            position(symbol, quantity, multiplier=100 if quantity < 0 else 1)
            for symbol, quantity in held.items()
        ]
        one = account(
            account_id, positions, cash=cash, last_equity=cash - 1, external_cash_flow=cash % 7, as_of_ns=cash
        )
        self.book.put(one)
        self.model[account_id] = one

    @rule(account_id=ids)
    def drop(self, account_id: str) -> None:
        """Forget an account; a later put brings it back."""
        self.book.drop(account_id)
        self.model.pop(account_id, None)

    @rule(count=st.integers(0, 500))
    def reserve(self, count: int) -> None:
        """Room for accounts changes nothing that can be seen."""
        self.book.reserve(count)

    @rule(symbol=symbols, price=st.integers(1, 1000))
    def apply(self, symbol: str, price: int) -> None:
        """A newer mark counts."""
        assert self.book.apply([mark(symbol, price / 100)])
        self.prices[symbol] = price / 100

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def select(self, data: st.DataObject) -> None:
        """Some accounts in some order."""
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.model)), unique=True))
        assert_same(self.book, self.model, chosen)

    @invariant()
    def is_whole(self) -> None:
        """All accounts, all prices, all counts."""
        assert sorted(self.book.account_ids) == sorted(self.model)
        assert len(self.book) == len(self.model)
        assert self.book.position_count == sum(len(units_of(held)) for held in self.model.values())
        assert_same(self.book, self.model, self.book.account_ids)
        for symbol, column in self.book.columns.items():
            known = self.prices.get(symbol)
            price = self.book.prices[column]
            assert price == known if known is not None else np.isnan(price)


BookMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestBookAgainstADict = BookMachine.TestCase


def test_a_book_that_is_rewritten_a_lot_stays_small() -> None:
    """What rows abandon is packed away: the arrays stay within a few times what is held."""
    source = random.Random(5)
    book = Book()
    model: dict[str, Account] = {}
    for step in range(6000):
        key = f"account-{source.randrange(60)}"
        count = source.randrange(1, 40)
        chosen = source.sample(range(200), count)
        if source.random() < 0.5:
            book.drop(key)
        model[key] = account(key, [position(f"S{i}", i + 1) for i in chosen], cash=step)
        book.put(model[key])
    assert_same(book, model, book.account_ids)
    assert len(book._quantity) <= 8 * max(INITIAL, 60 * 40)


def test_dropped_rows_are_used_again() -> None:
    """Accounts that come and go leave few rows behind."""
    book = Book()
    for index in range(10 * INITIAL):
        book.put(account(f"account-{index}", [position("A", 1)]))
        book.drop(f"account-{index}")
    assert len(book) == 0
    assert book.position_count == 0
    assert len(book._cash) <= 2 * INITIAL


def test_a_mark_that_was_received_earlier_is_ignored() -> None:
    """Of two marks the one received later counts, in whatever order they come."""
    book = Book()
    older, newer = mark("A", 1.0), mark("A", 2.0)
    assert book.apply([newer])
    assert not book.apply([older])
    assert not book.apply([newer])
    assert book.prices[book.columns["A"]] == 2.0
    assert book.marks["A"] is newer


def test_a_later_mark_may_be_of_an_earlier_trade() -> None:
    """A withdrawn trade brings the one before it back: arrival orders, not trade time."""
    book = Book()
    first = mark("A", 2.0)
    back = mark("A", 1.0, as_of_ns=first.as_of_ns - 5)
    assert book.apply([first])
    assert book.apply([back])
    assert book.prices[book.columns["A"]] == 1.0
    assert book.as_of_ns[book.columns["A"]] == first.as_of_ns - 5


def test_an_empty_selection_is_valid() -> None:
    """Nobody watched: nothing is cut out, and it has the right shape."""
    selection = Book().select([])
    assert selection.quantities.shape == (0, INITIAL)
    assert selection.cash.tolist() == []
