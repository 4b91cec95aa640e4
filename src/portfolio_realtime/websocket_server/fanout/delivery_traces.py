"""The last spans of a trace: from a publication to its frame in the socket of the first client."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from portfolio_realtime.clock import Clock
from portfolio_realtime.model import PublicationBatch
from portfolio_realtime.tracing import Tracing
from portfolio_realtime.websocket_server.fanout.newest_columns import StreamPosition
from portfolio_realtime.websocket_server.fanout.watched_account import WatchedAccount

SPAN: Final = "publication to client"
WAITING_MAX: Final = 64  # accounts


class _Waiting(NamedTuple):
    at: StreamPosition
    traceparent: str
    heard_ns: int


class DeliveryTraces:
    """Traced publications that are gathered and not handed on yet."""

    def __init__(self, tracing: Tracing, clock: Clock) -> None:
        self._tracing = tracing
        self._clock = clock
        self._waiting: dict[str, _Waiting] = {}
        self._began_ns = 0

    def hear(self, batch: PublicationBatch) -> None:
        """Note the traced publications of a batch that has arrived."""
        for place, traceparent in batch.traceparents.items():
            if place < len(batch.account_ids) and len(self._waiting) < WAITING_MAX:
                at = StreamPosition(batch.epoch, batch.sequences[place])
                waiting = _Waiting(at, traceparent, self._clock.now_ns())
                self._waiting[batch.account_ids[place]] = waiting

    def begin(self) -> None:
        """Note that the gathered publications are handed on now."""
        self._began_ns = self._clock.now_ns()

    def end(self, accounts: Mapping[str, WatchedAccount]) -> None:
        """End the spans of publications that were sent to a client.

        Accounts that are not watched here are dropped: another server traces them.
        """
        ended_ns = self._clock.now_ns()
        for account_id, waiting in tuple(self._waiting.items()):
            account = accounts.get(account_id)
            if account is None or (account.at is not None and account.at >= waiting.at):
                del self._waiting[account_id]
                if account is not None and _is_sent(account, waiting.at):
                    self._record(waiting, ended_ns)

    def _record(self, waiting: _Waiting, ended_ns: int) -> None:
        span = self._tracing.go_on(waiting.traceparent, SPAN, waiting.heard_ns)
        if span is not None:
            self._tracing.add_part(span, "gather", waiting.heard_ns, self._began_ns)
            self._tracing.add_part(span, "write frames", self._began_ns, ended_ns)
            span.end(ended_ns)


def _is_sent(account: WatchedAccount, at: StreamPosition) -> bool:
    """Whether this or a newer publication was written to any client's socket. A slow one gets it later."""
    sent = (subscriber.position_sent(account.account_id) for subscriber in account.subscribers)
    return any(position is not None and position >= at for position in sent)
