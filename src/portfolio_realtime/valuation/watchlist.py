"""Who is watched, what they last saw, and who is due for a publication now.

A watched account is published when something visible has changed: never more often than the interval, and
always with the newest value once the interval has passed, so that the last change of a burst is never lost.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.valuation.arrays import Floats, Ints
from portfolio_realtime.valuation.book import NEVER_NS
from portfolio_realtime.valuation.kernel import Valued

INITIAL: Final = 64
NEVER_S: Final = float("-inf")


class Watchlist:
    """One slot per watched account in flat arrays, so that a flush asks all at once."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self.with_positions: set[str] = set()
        self._equity: Ints = np.zeros(INITIAL, np.int64)
        self._day_pnl: Ints = np.zeros(INITIAL, np.int64)
        self._unpriced: Ints = np.zeros(INITIAL, np.int64)
        self._stale: Ints = np.zeros(INITIAL, np.int64)
        self._stale_sum_ns: Ints = np.zeros(INITIAL, np.int64)
        self._received_ns: Ints = np.zeros(INITIAL, np.int64)
        self._published_s: Floats = np.zeros(INITIAL)
        self._is_touched: NDArray[np.bool_] = np.zeros(INITIAL, bool)
        self._has_rows: NDArray[np.bool_] = np.zeros(INITIAL, bool)

    def __contains__(self, account_id: str) -> bool:
        return account_id in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def account_ids(self) -> list[str]:
        """The watched accounts."""
        return list(self._slots)

    def watch(self, account_id: str, *, with_positions: bool) -> None:
        """Begin to watch; an account that is new here, or newly with positions, is due at once."""
        slot = self._slots.get(account_id)
        is_new = slot is None
        if slot is None:
            slot = self._slots[account_id] = self._new_slot()
        if is_new or with_positions > (account_id in self.with_positions):
            self._published_s[slot] = NEVER_S
            self._is_touched[slot] = True
        self._has_rows[slot] = with_positions
        (self.with_positions.add if with_positions else self.with_positions.discard)(account_id)

    def unwatch(self, account_id: str) -> None:
        """Nobody watches it any more."""
        slot = self._slots.pop(account_id, None)
        if slot is not None:
            self._free.append(slot)
            self.with_positions.discard(account_id)

    def touch(self, account_id: str) -> None:
        """Its record has changed: publish it when it may be, whatever the figures say."""
        slot = self._slots.get(account_id)
        if slot is not None:
            self._is_touched[slot] = True

    def slots(self, account_ids: Sequence[str]) -> Ints:
        """The slots of these watched accounts."""
        return np.fromiter(
            (self._slots[account_id] for account_id in account_ids), np.int64, len(account_ids)
        )

    def due(
        self, slots: Ints, valued: Valued, equity: Ints, day_pnl: Ints, now_s: float, interval_s: float
    ) -> tuple[Ints, float | None]:
        """Which of these accounts to publish now (indices), and when the next of the others is due.

        `equity` (as far as known) and `day_pnl` are in cents. What is returned counts as published now.
        """
        is_changed = (
            self._is_touched[slots]
            | (equity != self._equity[slots])
            | (day_pnl != self._day_pnl[slots])
            | (valued.unpriced_count != self._unpriced[slots])
            | (valued.stale_count != self._stale[slots])
            | (valued.stale_sum_ns != self._stale_sum_ns[slots])
            | (self._has_rows[slots] & (valued.received_ns > self._received_ns[slots]))
        )
        due_s = self._published_s[slots] + interval_s
        is_due = is_changed & (due_s <= now_s)
        waiting = due_s[is_changed & ~is_due]
        chosen = np.flatnonzero(is_due)
        at = slots[chosen]
        self._equity[at], self._day_pnl[at] = equity[chosen], day_pnl[chosen]
        self._unpriced[at], self._stale[at] = valued.unpriced_count[chosen], valued.stale_count[chosen]
        self._stale_sum_ns[at] = valued.stale_sum_ns[chosen]
        self._received_ns[at] = valued.received_ns[chosen]
        self._published_s[at] = now_s
        self._is_touched[at] = False
        return chosen, float(waiting.min()) if len(waiting) else None

    def _new_slot(self) -> int:
        if self._free:
            slot = self._free.pop()
        else:
            slot = len(self._slots)
            if slot >= len(self._equity):
                self._grow()
        self._received_ns[slot] = NEVER_NS
        return slot

    def _grow(self) -> None:
        arrays: dict[str, NDArray[Any]] = {
            name: array for name, array in vars(self).items() if isinstance(array, np.ndarray)
        }
        for name, array in arrays.items():
            setattr(self, name, np.concatenate((array, np.zeros_like(array))))
