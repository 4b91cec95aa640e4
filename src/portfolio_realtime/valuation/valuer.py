"""The valuer: book, watchlist and records. Each flush turns due changes into publications.

All decisions of a portfolio calculator are made here, with time as an argument. The service around it only
moves bytes between Valkey and this class.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.model import (
    ACCOUNT_RECORD,
    PRICED_CLASSES,
    Account,
    Mark,
    Position,
    PositionRows,
    Publications,
)
from portfolio_realtime.valuation import float_rounding, kernel, rounding
from portfolio_realtime.valuation.arrays import Ints
from portfolio_realtime.valuation.book import FOREVER_NS, NEVER_NS, Book, Selection
from portfolio_realtime.valuation.book_totals import WholeBook
from portfolio_realtime.valuation.holders import Holders
from portfolio_realtime.valuation.kernel import Valued
from portfolio_realtime.valuation.portfolio_message import (
    Figures,
    constant,
    encode_row,
    encode_values,
)
from portfolio_realtime.valuation.watchlist import Watchlist

NS_PER_S = 1_000_000_000
RECORD_TTL_S = 3600.0
# Between two checks of all, because marks and records become stale by time alone.
CHECK_ALL_NS: Final = NS_PER_S // 2
NOTHING: Final = Publications([], [], [], {})
WORTH_MAX = 1e14  # dollars of one position, so that sums in cents fit 64 bits


@dataclass(frozen=True)
class Flush:
    """The result of one flush."""

    publications: Publications  # sorted by shard
    parts: list[tuple[int, Publications]]  # shard, its publications
    # When the next waiting change may be published, in monotonic s; None: none waits.
    next_due_s: float | None
    exact_count: int  # accounts computed again in Decimal
    unpriced_accounts: int
    stale_accounts: int
    newest_as_of_ns: int  # newest input of the publications; 0 without any


class Valuer:
    """Values and publishes the watched accounts of one calculator."""

    def __init__(
        self,
        *,
        price_ttl_s: float,
        min_update_interval_s: float,
        record_ttl_s: float = RECORD_TTL_S,
        is_told_unmarked: bool = False,
    ) -> None:
        """`is_told_unmarked`: a symbol without a mark is unpriced only after `take_unmarked` names it."""
        self.book = Book()
        self.whole = WholeBook(self.book)
        self.watchlist = Watchlist()
        self._price_ttl_ns = int(price_ttl_s * NS_PER_S)
        self._record_ttl_ns = int(record_ttl_s * NS_PER_S)
        self._are_records_away = False  # the broker cannot be followed now
        self._interval_s = min_update_interval_s
        self._sequences: dict[str, int] = {}  # of a watched account, as it was when that began
        self._epochs: dict[str, int] = {}
        self._last_sequence = 0  # highest sequence of the dropped accounts
        self._rows: dict[str, dict[str, tuple[Mark | None, bytes]]] = {}
        self._marks_from_ns: dict[str, int] = {}  # symbol -> time of its split; an earlier trade is no mark
        self._holders = Holders()
        self._numbering = self.book.numbering
        self._is_all_unchecked = False
        self._checked_ns = NEVER_NS  # when all accounts were last checked
        self._is_told_unmarked = is_told_unmarked
        self._unmarked: set[str] = set()  # symbols for which no price was found

    def put_account(self, account: Account) -> None:
        """Set an account's record; an older version than the known one is ignored."""
        known = self.watchlist.account(account.account_id)
        if known is not None and account.version < known.version:
            return
        row = self.book.put_account(account)
        for position in account.positions:
            if position.marks_from_ns > self._marks_from_ns.get(position.symbol, 0):
                self._begin_new_prices(position.symbol, position.marks_from_ns)
        if account.account_id in self.watchlist:
            always = constant(account, self._epochs[account.account_id])
            self._rows.pop(account.account_id, None)
            self._holders.loosen(self.watchlist.put(account, always, row))
            self.watchlist.touch(account.account_id)

    @property
    def published_ids(self) -> list[str]:
        """Every account that has been watched and not been dropped since."""
        return list(self._sequences)

    def drop(self, account_id: str) -> None:
        """Remove an account that is gone. If it returns in the same epoch, its sequence grows further."""
        self.book.drop(account_id)
        self.unwatch(account_id)
        self._epochs.pop(account_id, None)
        self._last_sequence = max(self._last_sequence, self._sequences.pop(account_id, 0))

    def forget(self, account_id: str) -> None:
        """Remove an account of another calculator, which publishes it under an epoch of its own."""
        self.unwatch(account_id)
        self._sequences.pop(account_id, None)
        self.drop(account_id)

    def watch(self, account: Account, epoch: int, *, with_positions: bool, shard: int = 0) -> None:
        """Publish an account of a shard under an epoch from now on.

        An account that was published under another epoch starts at sequence 1 again.
        """
        known = self._epochs.get(account.account_id)
        if known != epoch:
            self._epochs[account.account_id] = epoch
            self._sequences[account.account_id] = self._last_sequence if known is None else 0
        is_new = self.watchlist.watch(account.account_id, with_positions=with_positions, shard=shard)
        if is_new or known != epoch:
            self.watchlist.number(account.account_id, self._sequences[account.account_id])
        self.put_account(account)

    def unwatch(self, account_id: str) -> None:
        """Stop publishing an account. Its sequence is kept in case it is watched again."""
        sequence = self.watchlist.unwatch(account_id)
        if sequence is not None:
            self._sequences[account_id] = sequence
        self._rows.pop(account_id, None)

    def apply_marks(self, marks: Iterable[Mark]) -> bool:
        """Apply marks; return whether any was newer than the mark of its symbol.

        A mark from before a split is ignored: it is a price of other shares.
        """
        since = self._marks_from_ns
        if since:
            marks = [mark for mark in marks if mark.as_of_ns >= since.get(mark.symbol, 0)]
        return self.book.apply_marks(marks)

    def apply_stored(self, marks: Sequence[Mark]) -> None:
        """Apply all marks that are stored, before those that are announced from now on."""
        self.apply_marks(marks)
        self.book.set_versions(marks)

    def take_unmarked(self, symbols: Iterable[str]) -> bool:
        """Note that no price was found for these symbols; return whether that changes a publication."""
        new = set(symbols) - self._unmarked
        self._unmarked |= new
        touched = [
            account.account_id
            for account in (self.watchlist.accounts() if new else ())
            if any(one.symbol in new and one.quantity for one in account.positions)
        ]
        for account_id in touched:
            self.watchlist.touch(account_id)
        return bool(touched)

    def free(self, unheld: Mapping[str, Mark | None]) -> int:
        """Remove those of these symbols that are still unheld and have still this mark; return how many."""
        freed = self.book.free(unheld)
        for symbol in freed:
            self._marks_from_ns.pop(symbol, None)
            self._unmarked.discard(symbol)
        return len(freed)

    def _begin_new_prices(self, symbol: str, since_ns: int) -> None:
        """After a split a symbol is unpriced until it trades at its new price."""
        self._marks_from_ns[symbol] = since_ns
        mark = self.book.marks.get(symbol)
        if mark is not None and mark.as_of_ns < since_ns:
            self.book.unprice(symbol)

    def holds(self, account_id: str, symbol: str) -> bool:
        """Whether a watched account holds this symbol."""
        account = self.watchlist.account(account_id)
        return account is not None and any(p.symbol == symbol and p.quantity for p in account.positions)

    def set_records_away(self, are_away: bool) -> bool:
        """Count all records as stale, or each by its age; return whether that is a change."""
        before, self._are_records_away = self._are_records_away, are_away
        self._is_all_unchecked |= before != are_away
        return before != are_away

    def flush(self, now_ns: int, now_s: float) -> Flush:
        """Value the watched accounts that are due and may have changed; return what has.

        `now_ns`: wall clock, for staleness and timestamps. `now_s`: monotonic, for the interval.
        """
        self._mark_unchecked(now_ns)
        slots, next_due_s = self.watchlist.due(now_s, self._interval_s)
        if not len(slots):
            return self._flushed(NOTHING, [], next_due_s)
        selection = self.book.select(self.watchlist.rows(slots))
        valued = self._value(selection, now_ns)
        is_known = valued.unpriced_count == 0
        equity, unsure_equity = float_rounding.round_to_cents(valued.known_equity, valued.error_bound)
        day_pnl, unsure_pnl = float_rounding.round_to_cents(valued.day_pnl, valued.error_bound)
        is_unsure = unsure_equity | (unsure_pnl & is_known)
        for index, account in self._records(slots, is_unsure):
            equity[index], day_pnl[index] = self._exact(account)
            if is_known[index] and self._unpriced(account):
                valued.unpriced_count[index] += 1
        day_pnl[valued.unpriced_count > 0] = 0  # has no meaning there
        chosen = self.watchlist.changed(slots, valued, equity, day_pnl, now_s)
        shards = self.watchlist.shards(slots[chosen])
        order = np.argsort(shards, kind="stable")
        chosen, shards = chosen[order], shards[order]
        publications = self._publications(
            slots[chosen],
            *(column[chosen] for column in (equity, day_pnl, valued.as_of_ns)),
            has_unpriced=valued.unpriced_count[chosen] > 0,
            stale_ages_s=self._stale_ages_s(valued, selection.record_as_of_ns, chosen, now_ns),
            now_ns=now_ns,
        )
        newest_as_of_ns = int(valued.as_of_ns[chosen].max()) if len(chosen) else 0
        parts = _parts(publications, shards)
        return self._flushed(publications, parts, next_due_s, int(is_unsure.sum()), newest_as_of_ns)

    def _flushed(
        self,
        publications: Publications,
        parts: list[tuple[int, Publications]],
        next_due_s: float | None,
        exact_count: int = 0,
        newest_as_of_ns: int = 0,
    ) -> Flush:
        unpriced, stale = self.watchlist.unpriced_accounts, self.watchlist.stale_accounts
        return Flush(publications, parts, next_due_s, exact_count, unpriced, stale, newest_as_of_ns)

    def _mark_unchecked(self, now_ns: int) -> None:
        """Mark the accounts that may have changed: holders of changed marks, and all every CHECK_ALL_NS."""
        moved = self.book.take_moved()
        if self._is_all_unchecked or abs(now_ns - self._checked_ns) >= CHECK_ALL_NS:
            self._is_all_unchecked, self._checked_ns = False, now_ns
            self.watchlist.mark_all_unchecked()
        elif len(moved):
            self.watchlist.mark_unchecked(self._holders.of(moved))
        if self._numbering != self.book.numbering:
            self._numbering = self.book.numbering
            for account in self.watchlist.accounts():
                self.watchlist.move(account.account_id, self.book.row(account.account_id))
        if self._holders.is_loose:
            slots = self.watchlist.slots
            held = self.book.select(self.watchlist.rows(slots))
            self._holders.sort(slots, held, len(self.book.prices))

    def _value(self, selection: Selection, now_ns: int) -> Valued:
        book = self.book
        stale_before_ns: int | Ints = now_ns - self._price_ttl_ns
        if book.away:
            stale_before_ns = np.where(book.is_away, FOREVER_NS, stale_before_ns)
        return kernel.value(
            selection,
            book.prices,
            book.as_of_ns,
            book.applied,
            stale_before_ns,
            self._records_stale_before_ns(now_ns),
        )

    def _records_stale_before_ns(self, now_ns: int) -> int:
        return FOREVER_NS if self._are_records_away else max(NEVER_NS + 1, now_ns - self._record_ttl_ns)

    def _exact(self, account: Account) -> tuple[int, int]:
        equity = rounding.exact_equity(account, self._prices(account))
        return rounding.cents(equity), rounding.cents(rounding.exact_day_pnl(account, equity))

    def _prices(self, account: Account) -> dict[str, float]:
        marks = self.book.marks
        return {p.symbol: marks[p.price_name].price for p in account.positions if self._is_priced(p)}

    def _is_priced(self, position: Position) -> bool:
        """Whether there is a mark and the value is below WORTH_MAX; a larger one must be an error."""
        mark = self.book.marks.get(position.price_name)
        units = float(position.quantity) * float(position.multiplier)
        return mark is not None and abs(units * mark.price) < WORTH_MAX

    def _publications(
        self,
        slots: Ints,
        equity: Ints,
        day_pnl: Ints,
        as_of_ns: Ints,
        *,
        has_unpriced: NDArray[np.bool_],
        stale_ages_s: Mapping[int, Mapping[str, int]],
        now_ns: int,
    ) -> Publications:
        """The publications of the accounts in these slots. All columns have one entry per account."""
        watchlist = self.watchlist
        unpriced, awaited = dict[int, list[str]](), dict[int, list[str]]()
        for index, account in self._records(slots, has_unpriced):
            unpriced[index] = self._unpriced(account)
            if found := self._awaited(account):
                awaited[index] = found
        figures = Figures(equity, day_pnl, as_of_ns, unpriced, stale_ages_s, awaited)
        sequences = watchlist.sequences(slots)
        values = encode_values(watchlist.constants(slots), sequences, figures, now_ns)
        detailed = self._records(slots, watchlist.has_rows(slots))
        rows = {index: self._encoded_rows(account) for index, account in detailed}
        return Publications(watchlist.ids(slots), sequences, values, rows)

    def _records(self, slots: Ints, is_wanted: NDArray[np.bool_]) -> Iterable[tuple[int, Account]]:
        """The index into `slots` and the record of each wanted account."""
        indices = is_wanted.nonzero()[0]
        if not len(indices):
            return ()
        return zip(indices.tolist(), self.watchlist.records(slots[indices]), strict=True)

    def _unpriced(self, account: Account) -> list[str]:
        return [p.symbol for p in account.positions if p.quantity and not self._is_priced(p)]

    def _awaited(self, account: Account) -> list[str]:
        """The held symbols of which it is not known yet whether they have a price."""
        if not self._is_told_unmarked:
            return []
        return [
            p.symbol
            for p in account.positions
            if p.quantity
            and p.asset_class in PRICED_CLASSES
            and p.symbol not in self.book.marks
            and p.symbol not in self._unmarked
            and p.symbol not in self._marks_from_ns
        ]

    def _stale_ages_s(
        self, valued: Valued, record_as_of_ns: Ints, chosen: Ints, now_ns: int
    ) -> dict[int, dict[str, int]]:
        """Index into `chosen` -> symbol -> whole seconds since the trade of its stale mark.

        ACCOUNT_RECORD stands for a stale record. Accounts without anything stale are left out.
        """
        ages_s: dict[int, dict[str, int]] = {}
        if not valued.stale_count.any():
            return ages_s
        places = np.full(len(valued.stale_count), -1)
        places[chosen] = np.arange(len(chosen))
        is_chosen = places[valued.stale_accounts] >= 0
        indices = places[valued.stale_accounts[is_chosen]].tolist()
        columns, symbols = valued.stale_columns[is_chosen], self.book.symbols
        marks_s = _ages_s(self.book.as_of_ns[columns], now_ns)
        for index, column, age_s in zip(indices, columns.tolist(), marks_s, strict=True):
            ages_s.setdefault(index, {})[symbols[column]] = age_s
        indices = valued.is_record_stale[chosen].nonzero()[0]
        records_s = _ages_s(record_as_of_ns[chosen[indices]], now_ns)
        for index, age_s in zip(indices.tolist(), records_s, strict=True):
            ages_s.setdefault(index, {})[ACCOUNT_RECORD] = age_s
        return ages_s

    def _encoded_rows(self, account: Account) -> PositionRows:
        """The account's rows. Only rows whose mark has changed are encoded again."""
        kept = self._rows.setdefault(account.account_id, {})
        for position in account.positions:
            mark = self.book.marks.get(position.price_name)
            if position.symbol not in kept or kept[position.symbol][0] is not mark:
                kept[position.symbol] = (mark, encode_row(position, mark))
        return [(symbol, row) for symbol, (_, row) in kept.items()]


def _parts(publications: Publications, shards: Ints) -> list[tuple[int, Publications]]:
    """The publications of each shard. `shards`: of each publication, sorted."""
    if not len(shards):
        return []
    firsts = [0, *((shards[1:] != shards[:-1]).nonzero()[0] + 1).tolist()]
    return [
        (int(shards[first]), publications.part(first, last))
        for first, last in zip(firsts, [*firsts[1:], len(shards)], strict=True)
    ]


def _ages_s(moments_ns: Ints, now_ns: int) -> list[int]:
    """Whole seconds since these times; 0 for a later one."""
    return (np.maximum(now_ns - moments_ns, 0) // NS_PER_S).tolist()
