"""Watched accounts that are not in the broker's list: just opened, or nonexistent.

Pure: times are arguments, in nanoseconds.
"""

from collections.abc import Collection
from typing import Final

from portfolio_realtime.clock import NS_PER_S

MISSED_MAX: Final = 1_000  # that wait to be asked for; who comes beyond waits for the next list
ABSENT_NS: Final = 5 * NS_PER_S  # so long the broker's no is good for others who want the same account


class UnlistedAccounts:
    """Accounts to ask the broker for, and accounts that were found not to exist."""

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}
        self._absent_ns: dict[str, int] = {}  # -> when the broker said so

    def add(self, account_id: str) -> None:
        """Ask the broker for this account."""
        if len(self._waiting) < MISSED_MAX:
            self._waiting[account_id] = None

    def next_to_fetch(self, count_max: int) -> list[str]:
        """The accounts to ask for now."""
        taken = [account_id for account_id, _ in zip(self._waiting, range(count_max), strict=False)]
        for account_id in taken:
            del self._waiting[account_id]
        return taken

    def is_absent(self, account_id: str, now_ns: int) -> bool:
        """Whether the broker has recently said that the account does not exist."""
        return now_ns - self._absent_ns.get(account_id, now_ns - ABSENT_NS) < ABSENT_NS

    def mark_absent(self, account_id: str, now_ns: int) -> None:
        """The broker says that the account does not exist."""
        self._absent_ns[account_id] = now_ns

    def watch(self, unlisted: Collection[str]) -> None:
        """These accounts are watched and not listed; ask for those not asked for yet."""
        self._absent_ns = {
            account_id: said_ns for account_id, said_ns in self._absent_ns.items() if account_id in unlisted
        }
        for account_id in unlisted:
            if account_id not in self._absent_ns:
                self.add(account_id)
