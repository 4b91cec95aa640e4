"""Who is published when: never too often, never the last change lost, always in sequence."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_realtime.market_data_consumer.trade_eligibility import PRICE_MAX
from portfolio_realtime.model import Account, Mark, Publication
from portfolio_realtime.valuation.valuer import CHECK_ALL_NS, Valuer

from .records import NOW_NS, NS_PER_S, account, mark, message_of, oracle_figures, position

INTERVAL_S = 1.0
TTL_S = 60.0
EPOCH = 1_763_822_405_123


class Desk:
    """A valuer and its clocks, moved by the test."""

    def __init__(self, *, is_told_unmarked: bool = False) -> None:
        self.valuer = Valuer(
            price_ttl_s=TTL_S, min_update_interval_s=INTERVAL_S, is_told_unmarked=is_told_unmarked
        )
        self.now_s = 0.0
        self.next_due_s: float | None = None

    @property
    def now_ns(self) -> int:
        return NOW_NS + round(self.now_s * NS_PER_S)

    def watch(self, one: Account, epoch: int = EPOCH, *, with_positions: bool = False) -> None:
        self.valuer.watch(one, epoch, with_positions=with_positions)

    def mark(self, symbol: str, price: float, **changes: Any) -> Mark:
        """A mark traded now."""
        made = mark(symbol, price, **{"as_of_ns": self.now_ns, **changes})
        assert self.valuer.apply_marks([made])
        return made

    def publications(self, at_s: float | None = None) -> list[Publication]:
        """What a flush publishes, by default now."""
        self.now_s = self.now_s if at_s is None else at_s
        flush = self.valuer.flush(self.now_ns, self.now_s)
        self.next_due_s = flush.next_due_s
        return list(flush.publications)

    def messages(self, at_s: float | None = None) -> list[dict[str, Any]]:
        """The same as messages."""
        return [message_of(publication) for publication in self.publications(at_s)]

    def message(self, at_s: float | None = None) -> dict[str, Any]:
        """The only one."""
        (only,) = self.messages(at_s)
        return only


@pytest.fixture
def desk() -> Desk:
    """One account's desk at second 0: `alice`, 10 A, nothing published yet."""
    made = Desk()
    made.mark("A", 100.0)
    made.watch(account("alice", [position("A", 10)], last_equity=2000))
    return made


# When


def test_whoever_is_newly_watched_is_due_at_once(desk: Desk) -> None:
    """The first flush after the watch publishes, and then there is nothing to say."""
    assert desk.message()["equity"] == "2000.00"
    assert desk.messages(TTL_S) == []


def test_nothing_is_published_without_a_visible_change(desk: Desk) -> None:
    """A mark at the same price, or a change below half a cent, is no news."""
    desk.message()
    desk.mark("A", 100.0)
    assert desk.messages(5.0) == []
    desk.mark("A", 100.0001)
    assert desk.messages(10.0) == []
    assert desk.next_due_s is None


def test_the_last_change_of_a_burst_is_published_when_the_interval_is_over(desk: Desk) -> None:
    """Changes inside the interval wait for its end; then the newest value goes out, once."""
    desk.message()
    for step in range(1, 10):
        desk.mark("A", 100.0 + step)
        assert desk.messages(step / 10) == []
        assert desk.next_due_s == INTERVAL_S
    assert desk.message(INTERVAL_S)["equity"] == "2090.00"
    assert desk.messages(10.0) == []


def test_a_change_after_a_quiet_interval_is_published_at_once(desk: Desk) -> None:
    """Only what follows too closely waits."""
    desk.message()
    desk.mark("A", 101.0)
    assert desk.message(1.5)["equity"] == "2010.00"
    desk.mark("A", 102.0)
    assert desk.messages(2.0) == []
    assert desk.next_due_s == 2.5


def test_a_change_that_is_taken_back_within_the_interval_is_no_news(desk: Desk) -> None:
    """What the client sees is still right, so nothing is sent."""
    desk.message()
    desk.mark("A", 101.0)
    assert desk.messages(0.5) == []
    desk.mark("A", 100.0)
    assert desk.messages(INTERVAL_S) == []


def test_each_account_has_an_interval_of_its_own(desk: Desk) -> None:
    """One that is due does not wait for another; the next due time is the earliest."""
    desk.message()
    desk.watch(account("bob", [position("A", 1)]))
    assert desk.message(0.4)["account_id"] == "bob"
    desk.mark("A", 200.0)
    assert desk.messages(0.5) == []
    assert desk.next_due_s == 1.0
    assert desk.message(1.0)["account_id"] == "alice"
    assert desk.next_due_s == 1.4
    assert desk.message(1.4)["account_id"] == "bob"


@pytest.mark.parametrize(
    ("before", "after", "equity", "day_pnl"),
    [(1.000, 1.002, "1.00", "1.00"), (1.002, 1.000, "1.00", "0.99"), (1.006, 1.004, "1.00", "1.00")],
)
def test_either_figure_alone_is_a_change(before: float, after: float, equity: str, day_pnl: str) -> None:
    """Last equity is 0.006: equity and day P&L cross their half cents at different prices."""
    desk = Desk()
    desk.mark("A", before)
    desk.watch(account("alice", [position("A", 1)], cash=0, last_equity="0.006"))
    desk.message()
    desk.mark("A", after)
    message = desk.message(5.0)
    assert (message["equity"], message["day_pnl"]) == (equity, day_pnl)


def test_a_changed_record_is_published_though_equity_stays(desk: Desk) -> None:
    """Cash in and the same external cash flow: other fields have changed."""
    desk.message()
    moved = account("alice", [position("A", 10)], version=2, last_equity=1500, external_cash_flow=500)
    desk.valuer.put_account(moved)
    assert desk.messages(0.5) == []
    assert desk.message(1.0)["external_cash_flow"] == "500.00"


def test_nobody_who_is_not_watched_is_published(desk: Desk) -> None:
    """An account is in the book, but only watched ones are published; unwatched ones no more."""
    desk.valuer.put_account(account("carol", [position("A", 1)]))
    assert [message["account_id"] for message in desk.messages()] == ["alice"]
    desk.valuer.unwatch("alice")
    desk.mark("A", 200.0)
    assert desk.messages(10.0) == []
    assert desk.next_due_s is None


# Pauses are sums of powers of two, so that the test's own clock is exact.
changes_in_time = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1 / 128, 0.25, 0.5, 1.0, 3.0]),
        st.sampled_from(["mark", "record", "flush", "flush", "flush"]),
        st.integers(1, 6),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=150)
@given(changes_in_time)
def test_never_too_often_and_never_the_last_one_lost(steps: list[tuple[float, str, int]]) -> None:
    """Over any history: publications keep their distance, count +1, and the last shows the final state."""
    desk = Desk()
    held = account("alice", [position("A", 10)])
    prices = {"A": 1.0}
    desk.mark("A", prices["A"])
    desk.watch(held)
    published: list[tuple[float, dict[str, Any]]] = []

    def flush() -> None:
        published.extend((desk.now_s, message) for message in desk.messages())

    for pause_s, what, number in steps:
        desk.now_s += pause_s
        if what == "mark":
            prices["A"] = number / 100
            desk.mark("A", prices["A"])
        elif what == "record":
            held = account("alice", [position("A", number)], version=held.version + 1)
            desk.valuer.put_account(held)
        else:
            flush()
    flush()
    while desk.next_due_s is not None:
        assert desk.now_s < desk.next_due_s <= desk.now_s + INTERVAL_S
        desk.now_s = desk.next_due_s
        flush()
    times_s = [at_s for at_s, _ in published]
    assert all(later - earlier >= INTERVAL_S for earlier, later in itertools.pairwise(times_s))
    assert [message["sequence"] for _, message in published] == list(range(1, len(published) + 1))
    expected = oracle_figures(held, prices)
    assert published[-1][1]["equity"] == expected.equity
    assert published[-1][1]["day_pnl"] == expected.day_pnl


def test_many_accounts_keep_apart() -> None:
    """More accounts than the first arrays take, coming and going: each message is its own account's."""
    desk = Desk()
    desk.mark("A", 2.0)
    for index in range(300):
        desk.watch(account(f"a{index}", [position("A", index)], cash=0, last_equity=0))
    for index in range(0, 300, 3):
        desk.valuer.unwatch(f"a{index}")
    for index in range(300, 400):
        desk.watch(account(f"a{index}", [position("A", index)], cash=0, last_equity=0))
    messages = desk.messages()
    assert len(messages) == len(desk.valuer.watchlist) == 300
    assert all(message["equity"] == f"{2 * int(message['account_id'][1:])}.00" for message in messages)


# Sequence and epoch


def test_a_sequence_goes_on_when_somebody_comes_back(desk: Desk) -> None:
    """Within an epoch nobody sees a sequence twice, also across an unwatch or a removal by the broker."""
    assert desk.message()["sequence"] == 1
    desk.valuer.unwatch("alice")
    desk.watch(account("alice", [position("A", 10)]))
    assert desk.message()["sequence"] == 2
    desk.valuer.drop("alice")
    assert desk.messages() == []
    desk.watch(account("alice", [position("A", 10)]))
    assert desk.message()["sequence"] == 3


def test_a_new_epoch_begins_at_one(desk: Desk) -> None:
    """Another life of the shard counts from one again, under the greater epoch."""
    assert (desk.message()["epoch"], desk.now_s) == (EPOCH, 0.0)
    desk.valuer.forget("alice")
    desk.watch(account("alice", [position("A", 10)]), EPOCH + 1)
    message = desk.message()
    assert (message["epoch"], message["sequence"]) == (EPOCH + 1, 1)


def test_an_account_that_is_forgotten_leaves_nothing(desk: Desk) -> None:
    """What another calculator owns now costs no memory here."""
    desk.watch(account("alice", [position("A", 10)], version=2), with_positions=True)
    desk.message()
    desk.valuer.forget("alice")
    assert desk.valuer.published_ids == []
    assert len(desk.valuer.book) == len(desk.valuer.watchlist) == 0
    kept = (desk.valuer._sequences, desk.valuer._epochs, desk.valuer._rows, desk.valuer.watchlist.accounts())
    assert kept == ({}, {}, {}, [])


def test_accounts_that_come_and_go_leave_nothing_and_no_sequence_twice(desk: Desk) -> None:
    """A broker's closed accounts cost no memory; one that is opened again in the epoch goes on higher."""
    desk.message()
    for number in range(20):
        guest = f"guest-{number % 7}"
        desk.watch(account(guest, [position("B", 10)], as_of_ns=NOW_NS + number), with_positions=True)
        assert desk.message(2.0 * number)["sequence"] == 2 * number + 1
        desk.mark("B", 200 + number, version=NOW_NS + number)
        assert desk.message(2.0 * number + 1)["sequence"] == 2 * number + 2
        desk.valuer.drop(guest)
    valuer = desk.valuer
    kept = (valuer._sequences, valuer._epochs)
    assert [list(one) for one in kept] == [["alice"]] * 2
    assert [one.account_id for one in valuer.watchlist.accounts()] == ["alice"]
    assert valuer._rows == {}
    assert valuer.published_ids == ["alice"]
    assert list(valuer.book.ids()) == [["alice"]]


def test_a_symbol_that_is_forgotten_comes_back_without_its_past(desk: Desk) -> None:
    """Neither its mark nor the moment of its split is kept once nobody holds it."""
    valuer = desk.valuer
    since_ns = NOW_NS + 10
    valuer.put_account(account("bob", [position("OPT", 1, marks_from_ns=since_ns)]))
    valuer.apply_marks([mark("OPT", 5.0, as_of_ns=since_ns, version=since_ns)])
    valuer.put_account(account("bob", []))
    for _ in valuer.book.count_holders():
        pass
    assert valuer.free(valuer.book.unheld()) >= 1
    assert "OPT" not in valuer.book.marks
    assert valuer.apply_marks([mark("OPT", 4.0, as_of_ns=since_ns - 5, version=since_ns - 5)])


def test_an_older_record_of_a_watched_account_is_ignored(desk: Desk) -> None:
    """Records may arrive out of order; the newest version stays."""
    desk.valuer.put_account(account("alice", [position("A", 20)], version=9))
    desk.valuer.put_account(account("alice", [position("A", 30)], version=8))
    assert desk.message()["equity"] == "3000.00"
    desk.watch(account("alice", [position("A", 30)], version=8))
    desk.valuer.put_account(account("alice", [position("A", 40)], version=9))
    assert desk.message(5.0)["equity"] == "5000.00"


# What is not known


def test_an_unpriced_position_makes_the_total_unknown(desk: Desk) -> None:
    """No total is invented: it is null, what is missing is named, and what is known is said."""
    desk.watch(account("bob", [position("A", 3), position("X", 1), position("Y", 1), position("Z", 0)]))
    (_, bob) = desk.messages()
    assert bob["equity"] is bob["day_pnl"] is bob["day_pnl_ratio"] is None
    assert bob["total_value"] == bob["today_return"] == "—"
    assert bob["known_equity"] == "1300.00"
    assert bob["unpriced"] == ["X", "Y"]
    desk.mark("X", 5.0)
    assert desk.messages(1.0)[0]["unpriced"] == ["Y"]
    desk.mark("Y", 5.0)
    priced = desk.message(2.0)
    assert (priced["equity"], priced["unpriced"]) == ("1310.00", [])
    assert "known_equity" not in priced


def test_what_is_known_of_an_unpriced_account_stays_live(desk: Desk) -> None:
    """A mark that moves only the known part is a visible change too."""
    desk.watch(account("bob", [position("A", 3), position("X", 1)]))
    desk.messages()
    desk.mark("A", 101.0)
    known = {message["account_id"]: message.get("known_equity") for message in desk.messages(1.0)}
    assert known == {"alice": None, "bob": "1303.00"}


def test_a_mark_grows_stale_by_time_alone(desk: Desk) -> None:
    """When its time to live is over, a mark is still used, and named; a fresh one ends that."""
    assert desk.message()["stale"] == []
    assert desk.messages(TTL_S) == []
    stale = desk.message(TTL_S + CHECK_ALL_NS / NS_PER_S)
    assert (stale["equity"], stale["stale"]) == ("2000.00", ["A"])
    assert stale["stale_ages_s"] == {"A": TTL_S}
    desk.mark("A", 100.0)
    assert desk.message(TTL_S + 5)["stale"] == []


def test_marks_of_a_source_that_is_away_are_stale_however_young(desk: Desk) -> None:
    """Also one that arrives meanwhile (from a snapshot, say); those of other sources are not."""
    desk.mark("B", 50.0, source="crypto")
    desk.watch(account("bob", [position("A", 1), position("B", 1)]))
    assert [message["stale"] for message in desk.messages()] == [[], []]

    assert desk.valuer.book.set_away({"iex"})
    assert not desk.valuer.book.set_away({"iex"})
    told = desk.messages(5)
    assert [(one["stale"], one["stale_ages_s"]) for one in told] == [(["A"], {"A": 5})] * 2
    desk.mark("A", 101.0)
    assert [one["stale"] for one in desk.messages(10)] == [["A"], ["A"]]

    desk.valuer.book.set_away([])
    assert [one["stale"] for one in desk.messages(15)] == [[], []]


def test_another_stale_symbol_is_a_change_though_as_many_are_stale(desk: Desk) -> None:
    """Of two symbols one gets fresh while the other grows stale: the names change, the number does not."""
    desk.mark("B", 50.0)
    desk.watch(account("bob", [position("A", 1), position("B", 1)]))
    desk.mark("B", 50.0, as_of_ns=NOW_NS + 30 * NS_PER_S)
    desk.messages()
    assert desk.messages(TTL_S + 1)[-1]["stale"] == ["A"]
    desk.mark("A", 100.0)
    assert [m["stale"] for m in desk.messages(TTL_S + 31) if m["account_id"] == "bob"] == [["B"]]


def test_a_closed_position_is_neither_unpriced_nor_stale(desk: Desk) -> None:
    """Quantity 0 needs no mark."""
    desk.watch(account("bob", [position("X", 0, day_quantity=-3), position("A", 0)]))
    bob = desk.messages(TTL_S + 1)[1]
    assert (bob["equity"], bob["unpriced"], bob["stale"]) == ("1000.00", [], [])


# Rows


def rows_of(publication: Publication) -> dict[str, dict[str, Any]]:
    """Symbol -> row."""
    rows: dict[str, dict[str, Any]] = {
        symbol: msgspec.json.decode(row) for symbol, row in publication.rows or []
    }
    assert [row["symbol"] for row in rows.values()] == list(rows)
    return rows


def test_rows_are_published_only_where_somebody_watches_them(desk: Desk) -> None:
    """Without positions there are no rows; with them, also closed ones are there."""
    assert desk.publications()[0].rows is None
    held = account("alice", [position("A", 10, cost_basis="900"), position("B", 0, day_quantity=-1)])
    desk.watch(held, with_positions=True)
    (publication,) = desk.publications(0.1)  # the newly wanted rows do not wait
    assert set(rows_of(publication)) == {"A", "B"}
    assert rows_of(publication)["A"]["market_value"] == "1000.00"
    assert rows_of(publication)["A"]["unrealized_pnl"] == "100.00"
    desk.watch(held, with_positions=False)
    desk.mark("A", 1.0)
    assert desk.publications(5.0)[0].rows is None


def test_a_moved_mark_is_published_though_the_sum_stays(desk: Desk) -> None:
    """Two positions that cancel out: equity stays, the rows do not."""
    desk.mark("B", 100.0)
    desk.watch(account("alice", [position("A", 1), position("B", -1)], version=2), with_positions=True)
    desk.publications()
    desk.mark("A", 120.0)
    desk.mark("B", 120.0)
    (publication,) = desk.publications(1.0)
    assert [row["mark"] for row in rows_of(publication).values()] == ["120.0", "120.0"]
    assert message_of(publication)["equity"] == "1000.00"
    assert desk.publications(2.0) == []


def test_an_unpriced_row_is_null(desk: Desk) -> None:
    """The row of a position without a mark says what is known and nothing else."""
    desk.watch(account("bob", [position("X", "0.25", cost_basis=7)]), with_positions=True)
    row = rows_of(desk.publications()[1])["X"]
    assert row.pop("symbol") == "X"
    assert row.pop("quantity") == "0.25"
    assert set(row.values()) == {None}


# The flush's own figures


def test_a_flush_counts_what_it_saw(desk: Desk) -> None:
    """Unpriced and stale accounts, exact recomputations and the newest input are reported."""
    desk.watch(account("bob", [position("X", 1)]))
    desk.watch(account("tie", [position("H", "0.5")], cash=0, last_equity=0))
    desk.mark("H", 0.01)
    flush = desk.valuer.flush(NOW_NS + int((TTL_S + 1) * NS_PER_S), 0.0)
    assert (flush.unpriced_accounts, flush.stale_accounts, flush.exact_count) == (1, 2, 1)
    assert flush.newest_as_of_ns == NOW_NS
    assert desk.valuer.flush(NOW_NS, 0.0).newest_as_of_ns == 0


def test_the_whole_book_is_everybody(desk: Desk) -> None:
    """Watched or not, every account of the book is valued."""
    desk.valuer.put_account(account("carol", [position("A", 2)]))
    (stretch,) = desk.valuer.whole.stretches()
    stretch.recalculate()
    assert sorted(stretch.equity.tolist()) == [1200.0, 2000.0]


def test_what_the_book_learns_of_others_leaves_the_watched_right(desk: Desk) -> None:
    """Accounts that nobody watches and hundreds of new symbols come; the next value is of all of it."""
    desk.message()
    desk.valuer.put_account(account("bob", [position(f"S{index}", 1) for index in range(300)]))
    for index in range(300):
        desk.mark(f"S{index}", 1.0)
    desk.mark("A", 101.0)
    assert desk.message(5.0)["equity"] == "2010.00"
    assert desk.valuer.book.position_count == 301


def test_a_position_that_cannot_be_worth_so_much_is_unpriced_and_harms_nobody(desk: Desk) -> None:
    """A quantity or a price of another order is a fault; its account's total is unknown, all others go on."""
    desk.watch(account("alice", [position("AAPL", "1" + 12 * "0"), position("MSFT", 1)]))
    desk.watch(account("bob", [position("AAPL", 1), position("MSFT", 2)]))
    desk.mark("AAPL", PRICE_MAX)
    desk.mark("MSFT", 10.25)
    alice, bob = desk.messages()
    assert (alice["equity"], alice["day_pnl"], alice["known_equity"]) == (None, None, "1010.25")
    assert alice["unpriced"] == ["AAPL"]
    assert (bob["equity"], bob["unpriced"]) == ("1000001020.50", [])


def test_a_price_that_was_not_read_yet_is_awaited_and_not_unpriced() -> None:
    """Equity is unknown in both cases; once somebody has looked in vain it is said so, in a new message."""
    desk = Desk(is_told_unmarked=True)
    bond = position("912797", 1, asset_class="treasury")
    desk.watch(account("alice", [position("AAPL", 1), position("MSFT", 1), bond], last_equity="1000"))
    desk.mark("MSFT", 10.25)
    early = desk.message()
    assert (early["equity"], early["awaited"], early["unpriced"]) == (None, ["AAPL"], ["912797"])
    assert early["known_equity"] == "1010.25"
    assert not desk.valuer.take_unmarked(["GE"])
    assert desk.messages(5.0) == []
    assert desk.valuer.take_unmarked(["AAPL", "MSFT"])
    later = desk.message(10.0)
    assert (later["equity"], later["unpriced"]) == (None, ["AAPL", "912797"])
    assert "awaited" not in later
    desk.mark("AAPL", 5.0)
    assert desk.message(15.0)["unpriced"] == ["912797"]
