"""Why a record is not confirmed, since when, and by how much.

A record is unconfirmed from the first contradiction, or the first change that only a statement can confirm,
until the broker and our record agree. Several reasons may hold at once; the oldest is reported.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum

from portfolio_realtime.model import ZERO, Unconfirmed


class Reason(StrEnum):
    """Why a record is not confirmed."""

    DIFFERENT = "statement differs"  # its cash or quantities differ from ours
    BOOKING = "booking undecided"  # it is unknown whether the balances contain it
    EVENT_REFUSED = "event refused"  # an event could not be read, and may move the account
    UNPROVED = "booking unconfirmed"  # applied as it states; a statement has to confirm it
    UNREADABLE = "statement refused"
    EQUITY = "equity differs"  # at the same cash, quantities and prices
    HOLD = "cash may be held back"
    UNIT = "contract size unknown"  # counted as 100 shares, and no statement has shown how many


class OpenReasons:
    """The open reasons of one account."""

    def __init__(self) -> None:
        self._open: dict[Reason, tuple[int, Mapping[str, Decimal]]] = {}

    def __contains__(self, reason: Reason) -> bool:
        return reason in self._open

    def note(self, reason: Reason, at_ns: int, by: Mapping[str, Decimal]) -> None:
        """Note a reason and its amounts: symbol, `cash` or `equity` -> the broker's figure minus ours."""
        since_ns, _ = self._open.get(reason, (at_ns, {}))
        self._open[reason] = since_ns, by

    def add(self, reason: Reason, at_ns: int, by: Mapping[str, Decimal]) -> None:
        """Note a reason; its amounts are added to those of before."""
        since_ns, before = self._open.get(reason, (at_ns, {}))
        self._open[reason] = (
            since_ns,
            {
                **before,
                **{name: before.get(name, ZERO) + amount for name, amount in by.items()},
            },
        )

    def settle(self, *reasons: Reason) -> None:
        """Remove these reasons."""
        for reason in reasons:
            self._open.pop(reason, None)

    @property
    def unconfirmed(self) -> Unconfirmed | None:
        """The oldest reason, its start, and all known amounts; None without a reason."""
        if not self._open:
            return None
        reason, (since_ns, _) = min(self._open.items(), key=lambda item: item[1][0])
        by: dict[str, Decimal] = {}
        for _, amounts in self._open.values():
            by.update(amounts)
        return Unconfirmed(since_ns, reason, dict(sorted(by.items())))
