"""Which accounts are watched, what was last published of them, and which are due now.

A watched account is published when something visible has changed, never more often than the interval. After
the interval its newest value is always published, so that the last change of a burst is never lost.
"""

from collections.abc import KeysView
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.model import Account
from portfolio_realtime.valuation.arrays import Floats, Ints
from portfolio_realtime.valuation.kernel import Valued
from portfolio_realtime.valuation.portfolio_message import Constant

INITIAL: Final = 64
NEVER_S: Final = float("-inf")


class Watchlist:
    """One slot per watched account in flat arrays, so that a flush checks all at once."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self.unwatched = 0  # how often an account ceased to be watched
        self.with_positions: set[str] = set()
        self._sequence: Ints = np.zeros(INITIAL, np.int64)
        self._equity: Ints = np.zeros(INITIAL, np.int64)
        self._day_pnl: Ints = np.zeros(INITIAL, np.int64)
        self._unpriced: Ints = np.zeros(INITIAL, np.int64)
        self._stale: Ints = np.zeros(INITIAL, np.int64)
        self._stale_sum_ns: Ints = np.zeros(INITIAL, np.int64)
        self._applied: Ints = np.zeros(INITIAL, np.int64)
        self._published_s: Floats = np.zeros(INITIAL)
        self._is_touched: NDArray[np.bool_] = np.zeros(INITIAL, bool)
        self._has_rows: NDArray[np.bool_] = np.zeros(INITIAL, bool)
        self._ids: list[str] = [""] * INITIAL  # by slot, as the next two
        self._accounts: list[Account | None] = [None] * INITIAL
        self._constants: list[Constant | None] = [None] * INITIAL
        self._rows: Ints = np.zeros(INITIAL, np.int64)  # row of the book, by slot
        self._shards: Ints = np.zeros(INITIAL, np.int64)
        self._is_used: NDArray[np.bool_] = np.zeros(INITIAL, bool)
        self._is_unchecked: NDArray[np.bool_] = np.zeros(INITIAL, bool)  # may have changed

    def __contains__(self, account_id: str) -> bool:
        return account_id in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def account_ids(self) -> KeysView[str]:
        """The watched accounts."""
        return self._slots.keys()

    def watch(self, account_id: str, *, with_positions: bool, shard: int = 0) -> bool:
        """Watch an account of a shard; return whether it is new.

        If it is, or has new positions, it is due at once.
        """
        slot = self._slots.get(account_id)
        is_new = slot is None
        if slot is None:
            slot = self._slots[account_id] = self._new_slot()
            self._ids[slot], self._is_used[slot], self._shards[slot] = account_id, True, shard
        if is_new or with_positions > (account_id in self.with_positions):
            self._published_s[slot] = NEVER_S
            self._is_touched[slot] = self._is_unchecked[slot] = True
        self._has_rows[slot] = with_positions
        (self.with_positions.add if with_positions else self.with_positions.discard)(account_id)
        return is_new

    def unwatch(self, account_id: str) -> int | None:
        """Stop watching an account; return its sequence, or None if it was not watched."""
        slot = self._slots.pop(account_id, None)
        if slot is not None:
            self.unwatched += 1
            self._free.append(slot)
            self._is_used[slot] = self._is_unchecked[slot] = False
            self._unpriced[slot] = self._stale[slot] = 0
            self.with_positions.discard(account_id)
            self._accounts[slot] = self._constants[slot] = None
        return None if slot is None else int(self._sequence[slot])

    def account(self, account_id: str) -> Account | None:
        """The record of an account; None if it is not watched."""
        slot = self._slots.get(account_id)
        return None if slot is None else self._accounts[slot]

    def accounts(self) -> list[Account]:
        """The records of all watched accounts."""
        return [account for account in self._accounts if account is not None]

    def number(self, account_id: str, sequence: int) -> None:
        """Set the sequence of the newest publication of a watched account."""
        self._sequence[self._slots[account_id]] = sequence

    def touch(self, account_id: str) -> None:
        """Publish an account when it is next due, even with the same figures: its record has changed."""
        slot = self._slots.get(account_id)
        if slot is not None:
            self._is_touched[slot] = self._is_unchecked[slot] = True

    def put(self, account: Account, always: Constant, row: int) -> int:
        """Set the record of a watched account and its row of the book; return its slot."""
        slot = self._slots[account.account_id]
        self._accounts[slot], self._constants[slot], self._rows[slot] = account, always, row
        return slot

    def move(self, account_id: str, row: int) -> None:
        """Set the row of the book of a watched account."""
        self._rows[self._slots[account_id]] = row

    def mark_unchecked(self, slots: Ints) -> None:
        """Check these slots when they are next due: their values may have changed."""
        self._is_unchecked[slots] = self._is_used[slots]

    def mark_all_unchecked(self) -> None:
        """Check all slots when they are next due."""
        self._is_unchecked[:] = self._is_used

    @property
    def slots(self) -> Ints:
        """The slots of all watched accounts."""
        return np.flatnonzero(self._is_used)

    def ids(self, slots: Ints) -> list[str]:
        """The accounts in these slots."""
        return [self._ids[slot] for slot in slots.tolist()]

    def records(self, slots: Ints) -> list[Account]:
        """The records of the accounts in these slots."""
        return cast("list[Account]", [self._accounts[slot] for slot in slots.tolist()])

    def constants(self, slots: Ints) -> list[Constant]:
        """The constant parts of the messages of the accounts in these slots."""
        return cast("list[Constant]", [self._constants[slot] for slot in slots.tolist()])

    def sequences(self, slots: Ints) -> list[int]:
        """The sequences of the newest publications of the accounts in these slots."""
        return self._sequence[slots].tolist()

    def has_rows(self, slots: Ints) -> NDArray[np.bool_]:
        """Whether the accounts in these slots are published with their positions."""
        return self._has_rows[slots]

    def shards(self, slots: Ints) -> Ints:
        """The shards of the accounts in these slots."""
        return self._shards[slots]

    def rows(self, slots: Ints) -> Ints:
        """The rows of the book of these slots."""
        return self._rows[slots]

    def due(self, now_s: float, interval_s: float) -> tuple[Ints, float | None]:
        """The slots to check now: they may have changed, and their interval has passed.

        Also when the next of the others is due, in monotonic seconds; None: none waits.
        """
        unchecked = self._is_unchecked.nonzero()[0]
        due_s = self._published_s[unchecked] + interval_s
        is_due = due_s <= now_s
        waiting = due_s[~is_due]
        return unchecked[is_due], float(waiting.min()) if len(waiting) else None

    def changed(self, slots: Ints, valued: Valued, equity: Ints, day_pnl: Ints, now_s: float) -> Ints:
        """The indices into `slots` whose values have changed since their publication.

        They count as published now, under their next sequence. `equity` (without unpriced positions) and
        `day_pnl` are in cents.
        """
        is_changed = (
            self._is_touched[slots]
            | (equity != self._equity[slots])
            | (day_pnl != self._day_pnl[slots])
            | (valued.unpriced_count != self._unpriced[slots])
            | (valued.stale_count != self._stale[slots])
            | (valued.stale_sum_ns != self._stale_sum_ns[slots])
            | (self._has_rows[slots] & (valued.applied > self._applied[slots]))
        )
        self._is_unchecked[slots] = False
        chosen = is_changed.nonzero()[0]
        at = slots[chosen]
        self._equity[at], self._day_pnl[at] = equity[chosen], day_pnl[chosen]
        self._unpriced[at], self._stale[at] = valued.unpriced_count[chosen], valued.stale_count[chosen]
        self._stale_sum_ns[at] = valued.stale_sum_ns[chosen]
        self._applied[at] = valued.applied[chosen]
        self._published_s[at] = now_s
        self._sequence[at] += 1
        self._is_touched[at] = False
        return chosen

    @property
    def unpriced_accounts(self) -> int:
        """How many accounts were published with an unpriced position."""
        return int(np.count_nonzero(self._unpriced))

    @property
    def stale_accounts(self) -> int:
        """How many accounts were published with a stale mark or record."""
        return int(np.count_nonzero(self._stale))

    def _new_slot(self) -> int:
        if self._free:
            slot = self._free.pop()
        else:
            slot = len(self._slots)
            if slot >= len(self._equity):
                self._grow()
        self._applied[slot] = 0
        return slot

    def _grow(self) -> None:
        arrays: dict[str, NDArray[Any]] = {
            name: array for name, array in vars(self).items() if isinstance(array, np.ndarray)
        }
        for name, array in arrays.items():
            setattr(self, name, np.concatenate((array, np.zeros_like(array))))
        self._ids += [""] * len(self._ids)
        self._accounts += [None] * len(self._accounts)
        self._constants += [None] * len(self._constants)
