"""What the records of accounts were before their newest changes, and until when.

Whoever compares a client with the ledger reads both at intervals. These times tell for how long a client has
shown something that is not true any more, however long the interval was.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

FORMER_MAX = 20_000  # of all accounts together; the oldest are forgotten


@dataclass(frozen=True, slots=True)
class FormerRecord:
    """An account's record that was true until `ended_s` of this machine's monotonic clock, in seconds.

    Amounts are in dollars; `quantities` are by symbol, without zeros. `is_in_transit`: between the legs of a
    split.
    """

    account_id: str
    ended_s: float
    cash: Decimal
    last_equity: Decimal
    external_cash_flow: Decimal
    quantities: Mapping[str, Decimal]
    is_in_transit: bool


class FormerRecords:
    """The newest former records of all accounts, oldest first."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._records: deque[FormerRecord] = deque(maxlen=FORMER_MAX)
        self._now_s = now_s
        self._forgotten_s = float("-inf")  # when the newest of those ended that are forgotten

    def end(
        self,
        account_id: str,
        cash: Decimal,
        last_equity: Decimal,
        external_cash_flow: Decimal,
        quantities: Mapping[str, Decimal],
        *,
        is_in_transit: bool,
    ) -> None:
        """Note that this record ends now: the account is about to change."""
        if len(self._records) == FORMER_MAX:
            self._forgotten_s = self._records[0].ended_s
        self._records.append(
            FormerRecord(
                account_id, self._now_s(), cash, last_equity, external_cash_flow, quantities, is_in_transit
            )
        )

    def since(self, after_s: float) -> tuple[list[FormerRecord], bool]:
        """The records that ended after this time, oldest first, and whether none of them is forgotten."""
        found: list[FormerRecord] = []
        for record in reversed(self._records):
            if record.ended_s <= after_s:
                break
            found.append(record)
        return found[::-1], self._forgotten_s <= after_s
