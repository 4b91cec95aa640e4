"""Accounts that had events while another collector was active.

That one may have ended before it wrote them. It writes down the place in the stream up to which its records
are written; whoever takes over asks first for the accounts that have moved since.
"""

from typing import Final

from portfolio_realtime.clock import NS_PER_S

OVERLAP_NS: Final = NS_PER_S // 2  # events of one moment have no order, and brokers' servers differ a little
KEPT_NS: Final = 3600 * NS_PER_S  # an older place is not resumed


class MovedAccounts:
    """Account -> when its newest event was published, in ns since the epoch. Kept for KEPT_NS."""

    def __init__(self) -> None:
        self._moved_ns: dict[str, int] = {}

    def note(self, account_id: str, at_ns: int) -> None:
        """Note an event of the account."""
        self._moved_ns[account_id] = max(at_ns, self._moved_ns.get(account_id, 0))

    def forget_old(self, now_ns: int) -> None:
        """Forget what is older than KEPT_NS."""
        self._moved_ns = {one: at_ns for one, at_ns in self._moved_ns.items() if now_ns - at_ns < KEPT_NS}

    def take(self, written_ns: int | None) -> list[str]:
        """Who has moved since `written_ns`, or at any time if that is None; all are forgotten."""
        since_ns = 0 if written_ns is None else written_ns - OVERLAP_NS
        moved = [account_id for account_id, at_ns in self._moved_ns.items() if at_ns >= since_ns]
        self._moved_ns.clear()
        return moved
