"""Accounts that the broker lists and that cannot be valued yet, or ever, each with the reason.

Who asks for one is told: not yet is another answer than no such account. Pure.
"""

from portfolio_realtime.model import Pending


class PendingAccounts:
    """Why listed accounts have no record, and which of that is still to be written."""

    def __init__(self) -> None:
        self._pending: dict[str, Pending] = {}
        self._changed: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def has_changes(self) -> bool:
        """Is anything to be written?"""
        return bool(self._changed)

    def add(self, account_id: str, reason: str, *, is_final: bool = False) -> None:
        """It cannot be valued now; final: nor later, as long as the broker says the same."""
        pending = Pending(account_id, reason, is_final)
        if self._pending.get(account_id) != pending:
            self._pending[account_id] = pending
            self._changed[account_id] = None

    def discard(self, account_id: str) -> None:
        """It has a record, or is gone."""
        if self._pending.pop(account_id, None) is not None:
            self._changed[account_id] = None

    def take_changes(self, count_max: int) -> tuple[list[Pending], list[str]]:
        """What is to be written now, of so many: (pending, no longer pending)."""
        changed = [account_id for account_id, _ in zip(self._changed, range(count_max), strict=False)]
        for account_id in changed:
            del self._changed[account_id]
        added = [self._pending[account_id] for account_id in changed if account_id in self._pending]
        return added, [account_id for account_id in changed if account_id not in self._pending]

    def write_all_again(self) -> None:
        """What was written may be lost."""
        self._changed.update(dict.fromkeys(self._pending))
