"""The book says what a plain dict of accounts would say, whatever was put, dropped and packed before."""

import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from portfolio_realtime.model import Account, Mark
from portfolio_realtime.valuation import book as module
from portfolio_realtime.valuation.book import INITIAL, Book

from .records import account, mark, position, selected


def rows_of(book: Book, account_ids: Sequence[str]) -> dict[str, dict[str, float]]:
    """A selection of these as account -> symbol -> units, read from its arrays alone."""
    selection = selected(book, account_ids)
    ends = np.cumsum(selection.counts)
    rows: dict[str, dict[str, float]] = {}
    for account_id, count, end in zip(account_ids, selection.counts.tolist(), ends.tolist(), strict=True):
        inside = slice(end - count, end)
        symbols = [book.symbols[column] for column in selection.columns[inside]]
        rows[account_id] = dict(zip(symbols, selection.quantity[inside].tolist(), strict=True))
    return rows


def units_of(held: Account) -> dict[str, float]:
    """What a row must hold: units by symbol, without closed positions."""
    return {p.symbol: float(p.quantity * p.multiplier) for p in held.positions if p.quantity}


def assert_same(book: Book, model: dict[str, Account], account_ids: Sequence[str]) -> None:
    """A selection of these accounts equals the model."""
    selection = selected(book, account_ids)
    assert rows_of(book, account_ids) == {key: units_of(model[key]) for key in account_ids}
    assert selection.counts.tolist() == [len(units_of(model[key])) for key in account_ids]
    assert selection.cash.tolist() == [float(model[key].cash) for key in account_ids]
    bases = [float(model[key].last_equity + model[key].external_cash_flow) for key in account_ids]
    assert selection.day_base.tolist() == bases
    assert selection.record_as_of_ns.tolist() == [model[key].as_of_ns for key in account_ids]


def ids_of(book: Book) -> list[str]:
    """Every account of the book, as its rows lie."""
    return [account_id for step in book.ids() for account_id in step]


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows and places in a step, and no columns to spare, so that small books take several."""
    monkeypatch.setattr(module, "STEP_ROWS", 7)
    monkeypatch.setattr(module, "STEP_PLACES", 23)
    monkeypatch.setattr(module, "SPARE_COLUMNS", 5)


def exhaust(steps: Iterator[None]) -> int:
    """Take all steps; how many."""
    return sum(1 for _ in steps)


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
        self.packing: Iterator[None] = iter(())

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
        self.book.put_account(one)
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

    @rule()
    def begin_to_pack(self) -> None:
        """Pack from the beginning, perhaps instead of going on with an earlier packing."""
        self.packing = self.book.pack()

    @rule(steps=st.integers(1, 9))
    def pack(self, steps: int) -> None:
        """Some steps of the packing."""
        for _ in zip(range(steps), self.packing, strict=False):
            assert_same(self.book, self.model, sorted(self.model))

    @rule(changes=st.lists(st.tuples(ids, holdings), max_size=9))
    def free(self, changes: list[tuple[str, dict[str, int]]]) -> None:
        """Count who holds what while records change, and forget the symbols that nobody holds."""
        self.packing = iter(())
        coming = iter(changes)
        held_before = self.held()
        for _ in self.book.count_holders():
            if change := next(coming, None):
                self.put(*change, 0)
        unheld = self.book.unheld()
        for change in coming:
            self.put(*change, 0)
        freed = self.book.free(unheld)
        assert not self.held().intersection(freed)
        assert (
            not self.book.columns.keys()
            - held_before
            - self.held()
            - {symbol for _, held in changes for symbol in held}
        )
        for symbol in freed:
            self.prices.pop(symbol, None)

    def held(self) -> set[str]:
        """Symbols that an account holds."""
        return {symbol for one in self.model.values() for symbol in units_of(one)}

    @rule(symbol=symbols, price=st.integers(1, 1000))
    def apply(self, symbol: str, price: int) -> None:
        """A newer mark counts."""
        assert self.book.apply_marks([mark(symbol, price / 100)])
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
        assert sorted(ids_of(self.book)) == sorted(self.model)
        assert len(self.book) == len(self.model)
        assert self.book.position_count == sum(len(units_of(held)) for held in self.model.values())
        assert_same(self.book, self.model, ids_of(self.book))
        for symbol, column in self.book.columns.items():
            known = self.prices.get(symbol)
            price = self.book.prices[column]
            assert price == known if known is not None else np.isnan(price)


BookMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestBookAgainstADict = BookMachine.TestCase


def test_a_book_that_is_rewritten_a_lot_stays_small() -> None:
    """What rows abandon is packed away: the arrays stay within a few times what is held."""
    rng = random.Random(5)
    book = Book()
    model: dict[str, Account] = {}
    for step in range(6000):
        key = f"account-{rng.randrange(60)}"
        count = rng.randrange(1, 40)
        chosen = rng.sample(range(200), count)
        if rng.random() < 0.5:
            book.drop(key)
        model[key] = account(key, [position(f"S{i}", i + 1) for i in chosen], cash=step)
        book.put_account(model[key])
        if book.is_loose:
            exhaust(book.pack())
    assert_same(book, model, ids_of(book))
    assert len(book._quantity) <= 8 * max(INITIAL, 60 * 40)


def test_dropped_rows_are_used_again() -> None:
    """Accounts that come and go leave few rows behind."""
    book = Book()
    for index in range(10 * INITIAL):
        book.put_account(account(f"account-{index}", [position("A", 1)]))
        book.drop(f"account-{index}")
        if book.is_loose:
            exhaust(book.pack())
    assert len(book) == 0
    assert book.position_count == 0
    assert len(book._cash) <= 2 * INITIAL


def test_a_step_of_packing_moves_a_few_rows_only() -> None:
    """However many rows there are, one step looks at STEP_ROWS; what comes meanwhile is kept."""
    book = Book()
    for index in range(100):
        book.put_account(account(f"account-{index}", [position("A", index + 1)]))
    for index in range(0, 100, 2):
        book.drop(f"account-{index}")
    assert book.is_loose
    steps = book.pack()
    next(steps)
    first = module.STEP_ROWS // 2
    assert ids_of(book)[:first] == [f"account-{index}" for index in range(1, 2 * first, 2)]
    assert ids_of(book)[-1] == "account-99"
    assert book.rows(0, 100).lines.elements.sum() == sum(range(2, 101, 2))
    book.put_account(account("late", [position("B", 5)]))
    book.drop("account-1")
    assert exhaust(steps) == -(-101 // module.STEP_ROWS) - 1
    assert book.row_count == 51  # 49 that were left, one that came, one abandoned meanwhile
    assert not book.is_loose
    assert rows_of(book, ["late", "account-99"]) == {"late": {"B": 5}, "account-99": {"A": 100}}


def test_symbols_that_nobody_holds_give_their_columns_back() -> None:
    """A year of daily options takes as many columns as a few days of them."""
    book = Book()
    for day in range(100):
        book.put_account(account("alice", [position(f"option-{day}", 1)]))
        book.apply_marks([mark(f"option-{day}", 1.0)])
        if book.is_crowded:
            exhaust(book.count_holders())
            book.free(book.unheld())
    assert len(book.symbols) <= 3 * module.SPARE_COLUMNS
    assert len(book.marks) <= 3 * module.SPARE_COLUMNS
    assert rows_of(book, ["alice"]) == {"alice": {"option-99": 1.0}}
    assert book.prices[book.columns["option-99"]] == 1.0


def test_a_used_column_knows_nothing_of_its_former_symbol() -> None:
    """The new symbol has no price until its own mark comes, be that received earlier than the other's."""
    book = Book()
    early, late = mark("B", 2.0), mark("A", 1.0)
    book.apply_marks([late])
    column = book.columns["A"]
    exhaust(book.count_holders())
    assert book.free(book.unheld()) == ["A"]
    book.put_account(account("alice", [position("B", 1)]))
    assert book.columns == {"B": column}
    assert np.isnan(book.prices[column])
    assert book.apply_marks([early])
    assert book.prices[column] == 2.0


def test_a_symbol_that_is_traded_or_held_again_is_not_forgotten() -> None:
    """Between counting and forgetting a mark may come, or an account: then the symbol stays."""
    book = Book()
    book.apply_marks([mark("A", 1.0), mark("B", 1.0), mark("C", 1.0)])
    exhaust(book.count_holders())
    unheld: dict[str, Mark | None] = book.unheld()
    assert sorted(unheld) == ["A", "B", "C"]
    book.apply_marks([mark("A", 2.0)])
    book.put_account(account("alice", [position("B", 1)]))
    assert book.free(unheld) == ["C"]
    assert book.prices[book.columns["A"]] == 2.0
    assert book.prices[book.columns["B"]] == 1.0


def test_a_mark_that_was_received_earlier_is_ignored() -> None:
    """Of two marks the one received later counts, in whatever order they come."""
    book = Book()
    older, newer = mark("A", 1.0), mark("A", 2.0)
    assert book.apply_marks([newer])
    assert not book.apply_marks([older])
    assert not book.apply_marks([newer])
    assert book.prices[book.columns["A"]] == 2.0
    assert book.marks["A"] is newer


def test_a_later_mark_may_be_of_an_earlier_trade() -> None:
    """A withdrawn trade brings the one before it back: arrival orders, not trade time."""
    book = Book()
    first = mark("A", 2.0)
    back = mark("A", 1.0, as_of_ns=first.as_of_ns - 5)
    assert book.apply_marks([first])
    assert book.apply_marks([back])
    assert book.prices[book.columns["A"]] == 1.0
    assert book.as_of_ns[book.columns["A"]] == first.as_of_ns - 5


def test_an_empty_selection_is_valid() -> None:
    """Nobody watched: nothing is cut out, and it has the right shape."""
    selection = selected(Book(), [])
    assert selection.counts.tolist() == selection.columns.tolist() == []
    assert selection.cash.tolist() == []
