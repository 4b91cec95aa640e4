"""The first spans of a trace: from the frame that carried a trade to the trade's mark in Valkey."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from portfolio_realtime.clock import Clock
from portfolio_realtime.model import Mark
from portfolio_realtime.state.marks import TracedMark
from portfolio_realtime.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

SPAN: Final = "frame to mark"


class Begun(NamedTuple):
    """The traced mark of one flush."""

    span: "Span"
    flushed_ns: int
    received_ns: int
    mark: TracedMark


class MarkTraces:
    """Samples flushes, and traces one mark of each sampled flush."""

    def __init__(self, tracing: Tracing, clock: Clock) -> None:
        self._tracing = tracing
        self._clock = clock

    def begin(self, changed: Sequence[tuple[Mark, bool]], received_ns: int) -> Begun | None:
        """Trace one of the marks moved by a streamed trade; None without one, or if not sampled.

        `received_ns`: when the newest of the trades arrived.
        """
        live = [mark for mark, is_live in changed if is_live]
        if not live:
            return None
        mark = random.choice(live)
        span = self._tracing.begin(SPAN, received_ns, symbol=mark.symbol, source=mark.source)
        if span is None:
            return None
        traced = TracedMark(mark.symbol, mark.version, self._tracing.traceparent(span))
        return Begun(span, self._clock.now_ns(), received_ns, traced)

    def end(self, begun: Begun) -> None:
        """End the span: the flush has been written."""
        written_ns = self._clock.now_ns()
        self._tracing.add_part(begun.span, "conflate", begun.received_ns, begun.flushed_ns)
        self._tracing.add_part(begun.span, "write marks", begun.flushed_ns, written_ns)
        begun.span.end(written_ns)
