"""Watched accounts that are not in the broker's list: just opened, or nonexistent.

Pure: times are arguments, in nanoseconds.
"""

from collections.abc import Collection
from typing import Final

from portfolio_realtime.clock import NS_PER_S

MISSED_MAX: Final = 1_000  # waiting accounts; further ones wait for the next list
ABSENT_NS: Final = 5 * NS_PER_S  # for how long the broker's answer counts for other clients


class UnlistedAccounts:
    """Accounts to ask the broker for, and accounts that were found not to exist."""

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}
        self._absent_ns: dict[str, int] = {}  # account -> when the broker said that it does not exist

    def add(self, account_id: str) -> None:
        """Ask the broker for this account."""
        if len(self._waiting) < MISSED_MAX:
            self._waiting[account_id] = None

    def next_to_fetch(self, count_max: int) -> list[str]:
        """Remove and return up to `count_max` accounts to ask for now."""
        taken = [account_id for account_id, _ in zip(self._waiting, range(count_max), strict=False)]
        for account_id in taken:
            del self._waiting[account_id]
        return taken

    def is_absent(self, account_id: str, now_ns: int) -> bool:
        """Whether the broker has recently said that the account does not exist."""
        return now_ns - self._absent_ns.get(account_id, now_ns - ABSENT_NS) < ABSENT_NS

    def mark_absent(self, account_id: str, now_ns: int) -> None:
        """Note that the broker says that the account does not exist."""
        self._absent_ns[account_id] = now_ns

    def watch(self, unlisted: Collection[str]) -> None:
        """Set which watched accounts are not listed; ask for those not asked for yet."""
        self._absent_ns = {
            account_id: said_ns for account_id, said_ns in self._absent_ns.items() if account_id in unlisted
        }
        for account_id in unlisted:
            if account_id not in self._absent_ns:
                self.add(account_id)
