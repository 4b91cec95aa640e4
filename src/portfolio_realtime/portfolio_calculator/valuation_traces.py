"""The middle spans of a trace: from a traced mark to the first publication of an account that holds it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from portfolio_realtime.clock import NS_PER_S, Clock
from portfolio_realtime.state.marks import TracedMark
from portfolio_realtime.tracing import Tracing
from portfolio_realtime.valuation.valuer import Valuer

if TYPE_CHECKING:
    from opentelemetry.trace import Span

SPAN: Final = "mark to publication"
WAIT_S_MAX: Final = 10  # for a publication: perhaps no watched account holds the symbol
WAITING_MAX: Final = 64  # symbols


class _Waiting(NamedTuple):
    mark: TracedMark
    heard_ns: int


class _Begun(NamedTuple):
    span: "Span"
    valued_ns: int


class ValuationTraces:
    """Traced marks that wait for a publication, until a newer mark replaces them."""

    def __init__(self, tracing: Tracing, clock: Clock, valuer: Valuer) -> None:
        self._tracing = tracing
        self._clock = clock
        self._valuer = valuer
        self._waiting: dict[str, _Waiting] = {}
        self._begun: list[_Begun] = []

    def hear(self, mark: TracedMark, heard_ns: int) -> None:
        """Note the traced mark of a batch that has been applied."""
        self._waiting.pop(mark.symbol, None)
        self._waiting[mark.symbol] = _Waiting(mark, heard_ns)
        if len(self._waiting) > WAITING_MAX:
            del self._waiting[next(iter(self._waiting))]

    def begin(self, account_ids: Sequence[str], began_ns: int) -> dict[str, str]:
        """Account id -> traceparent, of one just valued account per traced mark that it shows."""
        valued_ns = self._clock.now_ns()
        found: dict[str, str] = {}
        for symbol, waiting in tuple(self._waiting.items()):
            is_over = valued_ns - waiting.heard_ns > WAIT_S_MAX * NS_PER_S or not self._is_newest(
                waiting.mark
            )
            account_id = None if is_over else self._holder(symbol, account_ids)
            if is_over or account_id is not None:
                del self._waiting[symbol]
            if account_id is None or account_id in found:
                continue
            span = self._tracing.go_on(waiting.mark.traceparent, SPAN, waiting.heard_ns, symbol=symbol)
            if span is not None:
                self._tracing.add_part(span, "wait for the account's turn", waiting.heard_ns, began_ns)
                self._tracing.add_part(span, "value", began_ns, valued_ns)
                self._begun.append(_Begun(span, valued_ns))
                found[account_id] = self._tracing.traceparent(span)
        return found

    def _is_newest(self, mark: TracedMark) -> bool:
        newest = self._valuer.book.marks.get(mark.symbol)
        return newest is not None and newest.version == mark.version

    def _holder(self, symbol: str, account_ids: Sequence[str]) -> str | None:
        return next((one for one in account_ids if self._valuer.holds(one, symbol)), None)

    def end(self) -> None:
        """End the spans of `begin`: the accounts are published."""
        published_ns = self._clock.now_ns()
        for span, valued_ns in self._begun:
            self._tracing.add_part(span, "publish", valued_ns, published_ns)
            span.end(published_ns)
        self._begun.clear()
