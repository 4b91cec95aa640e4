"""Which account is fetched next.

There are two queues: accounts that are waited for (watched, or undecided) and all others. In each, the
account that has been due for longest comes first. One pass over all accounts is spread over the interval.
Pure: times are arguments, in nanoseconds.
"""

import heapq
from collections.abc import Callable
from typing import Final, NamedTuple

STALE_FACTOR_MAX: Final = 4  # a queue is swept above this many entries per account …
FIRST_NS: Final = -1  # due before all others
MOVED_MAX: Final = 10_000  # accounts named by events before they are listed
STALE_MAX: Final = 1_000  # … and this many more


class DueFetch(NamedTuple):
    """An account to be fetched now; urgent if it is waited for."""

    account_id: str
    is_urgent: bool


class FetchSchedule:
    """When each account is due, and which are being fetched."""

    def __init__(self, queued: Callable[[], None] = lambda: None) -> None:
        """`queued` is called when an account enters a queue: it may be due before all others."""
        self._queued = queued
        self._due: dict[str, int] = {}
        self._watched: set[str] = set()
        self._hurried: set[str] = set()
        self._moved: set[str] = set()  # have an event, but are not due yet
        self._first: set[str] = set()  # have an event and are due, but are not fetched yet
        self._fetching: set[str] = set()
        self._lines: dict[bool, list[tuple[int, int, str]]] = {True: [], False: []}
        self._order = 0

    def set_due(self, account_id: str, due_ns: int, *, is_hurried: bool = False) -> None:
        """Make the account due at this time. Hurried: before all accounts that are not watched."""
        if account_id in self._moved:
            self._moved.discard(account_id)
            self._first.add(account_id)
            due_ns, is_hurried = FIRST_NS, True
        if is_hurried:
            self._hurried.add(account_id)
        self._due[account_id] = due_ns
        if account_id not in self._fetching:
            self._queue(account_id)

    def put_first(self, account_id: str) -> None:
        """Put the account before all others: it has an event, and its record is from a former owner.

        This also holds if it becomes due only later, because the list comes after the events.
        """
        if account_id in self._due:
            self._first.add(account_id)
            self.set_due(account_id, FIRST_NS, is_hurried=True)
        elif len(self._moved) < MOVED_MAX:
            self._moved.add(account_id)

    @property
    def is_behind(self) -> bool:
        """Whether an account with an event still has only a former owner's record."""
        return bool(self._first)

    def forget(self, account_id: str) -> None:
        """Remove an account that no longer exists."""
        self._moved.discard(account_id)
        self._first.discard(account_id)
        self._due.pop(account_id, None)
        self._watched.discard(account_id)
        self._hurried.discard(account_id)

    def watch(self, watched: set[str]) -> None:
        """Set which accounts are watched."""
        moved = watched ^ self._watched
        self._watched = set(watched)
        for account_id in moved & self._due.keys():
            if account_id not in self._fetching:
                self._queue(account_id)

    def begin_to_watch(self, account_id: str) -> None:
        """Watch one more account. The cost does not depend on how many are watched already."""
        if account_id in self._watched:
            return
        self._watched.add(account_id)
        if account_id in self._due and account_id not in self._fetching:
            self._queue(account_id)

    def next(self, now_ns: int, *, is_urgent_only: bool = False) -> DueFetch | None:
        """The account to fetch now, which counts as being fetched until `done`; None when none is due."""
        for is_urgent in (True,) if is_urgent_only else (True, False):
            line = self._lines[is_urgent]
            while line and line[0][0] <= now_ns:
                due_ns, _, account_id = heapq.heappop(line)
                is_stale = self._due.get(account_id) != due_ns or self._is_urgent(account_id) != is_urgent
                if not is_stale and account_id not in self._fetching:
                    self._fetching.add(account_id)
                    return DueFetch(account_id, is_urgent)
        return None

    def earliest_ns(self, *, is_urgent_only: bool = False) -> int | None:
        """No account is due before this time; None: as long as none enters a queue."""
        lines = [self._lines[True]] if is_urgent_only else self._lines.values()
        return min((line[0][0] for line in lines if line), default=None)

    def done(
        self, account_id: str, due_ns: int, *, is_hurried: bool = False, is_answered: bool = True
    ) -> None:
        """Note that the account has been fetched and is due again at this time.

        Without an answer (not `is_answered`), an account that was put first still counts as behind.
        """
        self._fetching.discard(account_id)
        self._hurried.discard(account_id)
        if is_answered:
            self._first.discard(account_id)
        elif account_id in self._first:
            is_hurried = True
        if account_id in self._due:
            self.set_due(account_id, due_ns, is_hurried=is_hurried)

    def release_all(self) -> None:
        """Make all accounts that were being fetched due again: their fetches were cancelled."""
        for account_id in tuple(self._fetching):
            is_first = account_id in self._first
            self.done(account_id, self._due.get(account_id, 0))
            if is_first:
                self.put_first(account_id)

    def _is_urgent(self, account_id: str) -> bool:
        return account_id in self._watched or account_id in self._hurried

    def _queue(self, account_id: str) -> None:
        self._order += 1
        entry = (self._due[account_id], self._order, account_id)
        line = self._lines[self._is_urgent(account_id)]
        heapq.heappush(line, entry)
        if len(line) > STALE_FACTOR_MAX * len(self._due) + STALE_MAX:
            kept = {entry[2]: entry for entry in line if self._due.get(entry[2]) == entry[0]}
            line[:] = kept.values()
            heapq.heapify(line)
        self._queued()
