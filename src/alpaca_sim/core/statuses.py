"""Account statuses and their events: accounts are closed, restricted and reopened."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alpaca_sim.core.clock import Clock, rfc3339
from alpaca_sim.core.ledger import Account, Ledger

ACTIVE = "ACTIVE"
STATUSES = (
    "INACTIVE", "ONBOARDING", "SUBMITTED", "SUBMISSION_FAILED", "ACTION_REQUIRED", "ACCOUNT_UPDATED",
    "APPROVAL_PENDING", "APPROVED", "REJECTED", ACTIVE, "ACCOUNT_CLOSED",
)  # fmt: skip
STATUS_EVENTS_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """One event of `/v1/events/accounts/status`."""

    event_id: str
    at_ns: int
    account_id: str
    account_number: str
    status_from: str
    status_to: str


class Statuses:
    """Changes of status in order. `on_event` is called after each."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self.events: list[StatusEvent] = []
        self.on_event: Callable[[], None] = lambda: None
        self._ledger = ledger
        self._clock = clock

    def change(self, account: Account, status: str) -> None:
        """Change an account's status and publish the change."""
        assert len(self.events) < STATUS_EVENTS_MAX, "the simulator keeps every status event: restart it"
        at_ns = self._clock.stamp_ns()
        event_id = self._ledger.next_event_id(at_ns)
        self.events.append(
            StatusEvent(event_id, at_ns, account.account_id, account.account_number, account.status, status)
        )
        account.status = status
        self.on_event()


def status_json(event: StatusEvent) -> dict[str, Any]:
    """The object of `/v1/events/accounts/status`."""
    return {
        "account_id": event.account_id,
        "account_number": event.account_number,
        "at": rfc3339(event.at_ns),
        "event_ulid": event.event_id,
        "status_from": event.status_from,
        "status_to": event.status_to,
    }
