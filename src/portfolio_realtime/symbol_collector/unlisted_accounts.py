"""Accounts that somebody watches and the broker's list does not have: opened a moment ago, or none at all.

Pure: times are arguments, in nanoseconds.
"""

from collections.abc import Collection
from typing import Final

from portfolio_realtime.clock import NS_PER_S

MISSED_MAX: Final = 1_000  # that wait to be asked for; who comes beyond waits for the next list
ABSENT_NS: Final = 5 * NS_PER_S  # so long the broker's no is good for others who want the same account


class UnlistedAccounts:
    """Who is to be asked for at the broker, and who has been found not to exist."""

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}
        self._absent_ns: dict[str, int] = {}  # -> when the broker said so

    def add(self, account_id: str) -> None:
        """Ask for this one."""
        if len(self._waiting) < MISSED_MAX:
            self._waiting[account_id] = None

    def next_to_fetch(self, count_max: int) -> list[str]:
        """Who is to be asked for now."""
        taken = [account_id for account_id, _ in zip(self._waiting, range(count_max), strict=False)]
        for account_id in taken:
            del self._waiting[account_id]
        return taken

    def is_absent(self, account_id: str, now_ns: int) -> bool:
        """Has the broker just said that there is no such account?"""
        return now_ns - self._absent_ns.get(account_id, now_ns - ABSENT_NS) < ABSENT_NS

    def mark_absent(self, account_id: str, now_ns: int) -> None:
        """The broker says that there is no such account."""
        self._absent_ns[account_id] = now_ns

    def watch(self, unlisted: Collection[str]) -> None:
        """These are watched and not listed, and no others: ask for those that nobody has asked for."""
        self._absent_ns = {
            account_id: said_ns for account_id, said_ns in self._absent_ns.items() if account_id in unlisted
        }
        for account_id in unlisted:
            if account_id not in self._absent_ns:
                self.add(account_id)
