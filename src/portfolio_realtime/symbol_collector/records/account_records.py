"""The records of all accounts in memory, the universe, and which of them are still to be written.

Pure: events and statements in, changed records and changed symbols out. Versions only grow. They start at the
owner's fencing token, so that its records are never older than those of a former owner, whatever the clocks
say.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final

import msgspec

from portfolio_realtime.model import Account, Bookings
from portfolio_realtime.symbol_collector.broker_time import Span
from portfolio_realtime.symbol_collector.model import CASH, Activity, Statement
from portfolio_realtime.symbol_collector.records.account_record import AccountRecord, Outcome
from portfolio_realtime.symbol_collector.records.asset_classes import AssetClasses
from portfolio_realtime.symbol_collector.records.open_reasons import OpenReasons, Reason
from portfolio_realtime.symbol_collector.records.record_ages import RecordAges

UNLISTED_MAX: Final = 1_000  # accounts named by events before they are listed


class AccountRecords:
    """The records of all listed accounts, and of a few that only events have named so far."""

    def __init__(self) -> None:
        self._records: dict[str, AccountRecord] = {}
        self._listed: set[str] = set()
        self._missing: set[str] = set()  # listed before, but not the last time
        self._unlisted: dict[str, None] = {}  # named by events only, in order
        self._accounts: dict[str, Account] = {}  # as last built
        self._ages = RecordAges(self._accounts)
        self._unconfirmed: set[str] = set()
        self._changed: dict[str, None] = {}  # to be written, in order
        self._gone: set[str] = set()
        self._holders: Counter[str] = Counter()
        self._universe: dict[str, str] = {}  # keeps symbols that are not held any more until `prune`
        self._added: dict[str, str] = {}
        self._classes = AssetClasses()
        self._is_history_known = True
        self._version_min = 1  # 0 means that a record is gone

    def begin_versions(self, fencing_token: int) -> None:
        """Give records that change from now on at least this version."""
        self._version_min = fencing_token

    @property
    def listed(self) -> frozenset[str]:
        """The accounts that the broker lists."""
        return frozenset(self._listed)

    def is_listed(self, account_id: str) -> bool:
        """Whether the broker lists the account."""
        return account_id in self._listed

    @property
    def known_count(self) -> int:
        """How many accounts have a record."""
        return len(self._accounts)

    @property
    def known_ids(self) -> list[str]:
        """The accounts that have a record."""
        return list(self._accounts)

    @property
    def universe_size(self) -> int:
        """How many symbols are held."""
        return len(self._universe)

    @property
    def universe(self) -> dict[str, str]:
        """Symbol -> asset class of all held symbols."""
        return dict(self._universe)

    @property
    def has_changes(self) -> bool:
        """Whether anything is to be written."""
        return bool(self._changed or self._gone or self._added)

    def is_known(self, account_id: str) -> bool:
        """Whether the account has a record."""
        return account_id in self._accounts

    def account(self, account_id: str) -> Account | None:
        """The account's record as last built, or None before its first statement."""
        return self._accounts.get(account_id)

    def look_again_ns(self, account_id: str) -> int | None:
        """When an undecided account should be fetched again, or None."""
        record = self._records.get(account_id)
        return record.look_again_ns if record else None

    def is_unexplained(self, account_id: str) -> bool:
        """Whether the account's statements have something that no booking explains."""
        record = self._records.get(account_id)
        return record is not None and record.is_unexplained

    def list_accounts(
        self, account_ids: Iterable[str], *, is_whole: bool = True
    ) -> tuple[list[str], list[str]]:
        """Apply the broker's list. Returns (new accounts in list order, accounts that are gone).

        An account is gone when it is missing twice in a row, because one incomplete answer must not remove
        all. While an entry cannot be read (not `is_whole`) no account is gone: it may be the missing one.
        """
        ordered = list(account_ids)
        new = [account_id for account_id in ordered if account_id not in self._listed]
        missing = self._listed.difference(ordered) if is_whole else set[str]()
        gone = sorted(missing & self._missing)
        self._missing = missing
        self._listed = self._listed.union(ordered).difference(gone)
        for account_id in new:
            self._unlisted.pop(account_id, None)
        for account_id in gone:
            self.remove(account_id)
        return new, gone

    def list_one(self, account_id: str) -> None:
        """Add an account that the broker has, although it was not in its last list."""
        self._listed.add(account_id)
        self._unlisted.pop(account_id, None)

    def apply_activity(self, activity: Activity, now_ns: int) -> bool:
        """Apply an event. True if it is new."""
        record = self._record(activity.account_id)
        if not record.apply_activity(activity, now_ns):
            return False
        if record.is_known:
            self._rebuild(record)
        return True

    def untold(self, account_id: str, rows: list[Activity], now_ns: int) -> list[Activity]:
        """Which of these rows of one account no event has reported. The caller applies them."""
        return self._record(account_id).untold(rows, now_ns)

    def observe(
        self, statement: Statement, began_ns: int, ended_ns: int, asked: Span | None = None
    ) -> Outcome:
        """Apply a statement from REST, with its times by our clock and by the broker's (None: the same)."""
        record = self._record(statement.state.account_id)
        outcome = record.observe(statement, began_ns, ended_ns, asked)
        self._relearn_classes()
        self._rebuild(record)
        return outcome

    def know_history(self, is_known: bool) -> None:
        """Set whether the day's bookings are known. Until then, unreported money may have come in."""
        if is_known != self._is_history_known:
            self._is_history_known = is_known
            for record in self._records.values():
                if record.is_known:
                    self._rebuild(record)

    def _relearn_classes(self) -> None:
        """Apply the changed asset class of a symbol to all records at once."""
        changed = self._classes.take_changed()
        if not changed:
            return
        for record in self._records.values():
            account = self._accounts.get(record.account_id)
            if account is not None and any(position.symbol in changed for position in account.positions):
                record.relearn_classes()
                self._rebuild(record)

    def refuse_activity(self, account_id: str, now_ns: int) -> None:
        """Note that an event of this account could not be read."""
        self._note(account_id, lambda record: record.refuse_activity(now_ns))

    def refuse_statement(self, account_id: str, now_ns: int) -> None:
        """Note that the broker's answer about this account could not be read, or did not come."""
        self._note(account_id, lambda record: record.refuse_statement(now_ns))

    def inherit_unreadable(self, stored: Account, now_ns: int) -> None:
        """Keep a former owner's record, about which the broker's answer has not been readable since.

        It stays as it was, marked as old and unconfirmed, until a statement can be read.
        """
        reasons = OpenReasons()
        reasons.note(Reason.UNREADABLE, now_ns, {})
        inherited = msgspec.structs.replace(
            stored,
            version=max(self._version_min, stored.version + 1),
            is_unreadable=True,
            unconfirmed=stored.unconfirmed or reasons.unconfirmed,
        )
        self._keep(inherited)

    def forget_before(self, began_ns: int) -> None:
        """Forget bookings without a statement that are too old to be repeated, of the day that began then."""
        for record in self._records.values():
            if not record.is_known:
                record.forget_before(began_ns)

    def compare_equity(self, account_id: str, difference: Decimal | None, now_ns: int) -> None:
        """Note by how much the broker's equity exceeds ours, all else being equal; None: not at all."""
        if difference is not None or self._differs_in_equity(account_id):
            self._note(account_id, lambda record: record.compare_equity(difference, now_ns))

    def _differs_in_equity(self, account_id: str) -> bool:
        record = self._records.get(account_id)
        return record is not None and record.differs_in_equity

    def _note(self, account_id: str, note: Callable[[AccountRecord], None]) -> None:
        record = self._records.get(account_id)
        if record is not None and record.is_known:
            note(record)
            self._rebuild(record)

    @property
    def unconfirmed_count(self) -> int:
        """How many records the broker contradicts or has not confirmed."""
        return len(self._unconfirmed)

    @property
    def oldest_as_of_ns(self) -> int | None:
        """The oldest `as_of_ns` of all records, or None without records."""
        return self._ages.oldest_ns

    def remove(self, account_id: str) -> None:
        """Remove an account and its record."""
        self._records.pop(account_id, None)
        self._changed.pop(account_id, None)
        self._unconfirmed.discard(account_id)
        account = self._accounts.pop(account_id, None)
        if account is not None:
            self._gone.add(account_id)
            self._holders.subtract(position.symbol for position in account.positions)

    def remove_stale(self, account_id: str) -> None:
        """Remove the stored record of an account that is not listed, which is announced to its clients."""
        if account_id not in self._listed:
            self._gone.add(account_id)

    def prune(self) -> list[str]:
        """Remove symbols that no account holds; return them."""
        gone = [symbol for symbol in self._universe if self._holders[symbol] <= 0]
        for symbol in gone:
            del self._universe[symbol]
            del self._holders[symbol]
            self._added.pop(symbol, None)
        self._classes.keep(self._universe.keys())
        return gone

    def is_older_than(self, stored: Iterable[Account]) -> bool:
        """Whether another collector has written a newer record."""
        return any(
            account.account_id in self._accounts
            and account.version > self._accounts[account.account_id].version
            for account in stored
        )

    def write_again(self, account_ids: Iterable[str]) -> None:
        """Count these accounts as changed: they are missing in the shared state."""
        self._changed.update(dict.fromkeys(one for one in account_ids if one in self._accounts))

    def write_universe_again(self, stored: Iterable[str]) -> None:
        """Count all symbols but these as added: they are missing in the shared state."""
        missing = self._universe.keys() - set(stored)
        self._added.update({symbol: self._universe[symbol] for symbol in missing})

    def write_all_again(self) -> None:
        """Count everything as changed, because what was written may be lost."""
        self._changed = dict.fromkeys(self._accounts)
        self._added = dict(self._universe)

    @property
    def changed_count(self) -> int:
        """How many records are to be written."""
        return len(self._changed)

    def take_changes(self, count_max: int) -> tuple[dict[str, str], list[Account], list[str]]:
        """What is to be written now: (added symbols, changed accounts, removed accounts)."""
        ids = [account_id for account_id, _ in zip(self._changed, range(count_max), strict=False)]
        for account_id in ids:
            del self._changed[account_id]
        added, self._added = self._added, {}
        gone, self._gone = sorted(self._gone.difference(self._accounts)), set()  # some may exist again
        return added, [self._accounts[account_id] for account_id in ids], gone

    def bookings(self, accounts: Iterable[Account]) -> list[Bookings]:
        """The day's bookings of these records, which have just been taken."""
        known = [(account, self._records.get(account.account_id)) for account in accounts]
        return [record.bookings(account.version) for account, record in known if record and record.is_known]

    def _record(self, account_id: str) -> AccountRecord:
        record = self._records.get(account_id)
        if record is None:
            record = self._records[account_id] = AccountRecord(account_id, self._classes)
            if account_id not in self._listed:
                self._bound_unlisted(account_id)
        return record

    def _bound_unlisted(self, account_id: str) -> None:
        self._unlisted[account_id] = None
        if len(self._unlisted) > UNLISTED_MAX:
            oldest = next(iter(self._unlisted))
            del self._unlisted[oldest], self._records[oldest]

    def _rebuild(self, record: AccountRecord) -> None:
        before = self._accounts.get(record.account_id)
        version = max(self._version_min, before.version + 1 if before else 0)
        account = record.account(version, record.as_of_ns)
        if not self._is_history_known and CASH not in account.unvalued:
            account = msgspec.structs.replace(account, unvalued=(*account.unvalued, CASH))
        has_new_bookings = record.take_new_bookings()
        if before is not None:
            is_same = account == msgspec.structs.replace(before, version=version)
            if is_same and not has_new_bookings:
                return
            self._holders.subtract(position.symbol for position in before.positions)
        self._keep(account)

    def _keep(self, account: Account) -> None:
        before = self._accounts.get(account.account_id)
        self._accounts[account.account_id] = account
        self._changed[account.account_id] = None
        if before is None or before.as_of_ns != account.as_of_ns:
            self._ages.note(account)
        if account.unconfirmed is None:
            self._unconfirmed.discard(account.account_id)
        else:
            self._unconfirmed.add(account.account_id)
        for position in account.positions:
            self._holders[position.symbol] += 1
            if self._universe.get(position.symbol) != position.asset_class:
                self._universe[position.symbol] = self._added[position.symbol] = position.asset_class
