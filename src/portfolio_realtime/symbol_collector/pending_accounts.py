"""Accounts that the broker lists and that cannot be valued yet, or ever, each with the reason.

Clients get a different answer for these than for accounts that do not exist. Pure.
"""

from collections.abc import Iterable

from portfolio_realtime.model import Pending


class PendingAccounts:
    """Why listed accounts have no record, and which of these reasons are still to be written."""

    def __init__(self) -> None:
        self._pending: dict[str, Pending] = {}
        self._changed: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def ids(self) -> list[str]:
        """The pending accounts."""
        return list(self._pending)

    @property
    def has_changes(self) -> bool:
        """Whether anything is to be written."""
        return bool(self._changed)

    def add(self, account_id: str, reason: str, *, is_final: bool = False) -> None:
        """Note that the account cannot be valued now, and why.

        `is_final`: nor later, unless the broker's answer changes.
        """
        pending = Pending(account_id, reason, is_final)
        if self._pending.get(account_id) != pending:
            self._pending[account_id] = pending
            self._changed[account_id] = None

    def discard(self, account_id: str) -> None:
        """Remove an account that has a record or no longer exists."""
        if self._pending.pop(account_id, None) is not None:
            self._changed[account_id] = None

    def take_changes(self, count_max: int) -> tuple[list[Pending], list[str]]:
        """The changes to be written now, at most this many: (pending, no longer pending)."""
        changed = [account_id for account_id, _ in zip(self._changed, range(count_max), strict=False)]
        for account_id in changed:
            del self._changed[account_id]
        added = [self._pending[account_id] for account_id in changed if account_id in self._pending]
        return added, [account_id for account_id in changed if account_id not in self._pending]

    def write_again(self, account_ids: Iterable[str]) -> None:
        """Count these accounts as changed, because what was written may be lost."""
        self._changed.update(dict.fromkeys(account_ids))

    def write_all_again(self) -> None:
        """Count every account as changed, because what was written may be lost."""
        self.write_again(self._pending)
