"""The oldest of all records, without looking at each: with a million accounts that took 0.1 s each second.

Pure: times are arguments, in nanoseconds.
"""

import heapq
from collections.abc import Mapping
from typing import Final

from portfolio_realtime.model import Account

LEFT_MIN: Final = 1_000  # entries that are no record's any more are kept up to this many, and one per record


class RecordAges:
    """The times of these records, the oldest first. Each change of a record's time must be noted."""

    def __init__(self, accounts: Mapping[str, Account]) -> None:
        self._accounts = accounts
        self._line: list[tuple[int, str]] = []

    def note(self, account: Account) -> None:
        """This record is new, or has another time."""
        heapq.heappush(self._line, (account.as_of_ns, account.account_id))
        if len(self._line) > 2 * len(self._accounts) + LEFT_MIN:
            self._line = [(one.as_of_ns, one.account_id) for one in self._accounts.values()]
            heapq.heapify(self._line)

    @property
    def oldest_ns(self) -> int | None:
        """The oldest `as_of_ns` of all records, or None without records."""
        while self._line and not self._is_current(*self._line[0]):
            heapq.heappop(self._line)
        return self._line[0][0] if self._line else None

    def _is_current(self, as_of_ns: int, account_id: str) -> bool:
        account = self._accounts.get(account_id)
        return account is not None and account.as_of_ns == as_of_ns
