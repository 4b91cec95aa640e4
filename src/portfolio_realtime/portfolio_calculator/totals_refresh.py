"""The whole book, watched or not: keeps its totals current, frees its memory, values it from scratch."""

import asyncio
from collections.abc import Iterator
from typing import Final

import structlog

from portfolio_realtime.service import Context
from portfolio_realtime.telemetry import CalculatorMetrics
from portfolio_realtime.valuation.book_totals import BookTotals
from portfolio_realtime.valuation.valuer import Valuer

TOTALS_S: Final = 1.0  # between two refreshes of the whole book
ENDED: Final = object()

log = structlog.get_logger()


class TotalsRefresh:
    """Goes through the whole book in stretches. Rows keep their numbers while it holds `numbering`."""

    def __init__(
        self, context: Context, metrics: CalculatorMetrics, valuer: Valuer, numbering: asyncio.Lock
    ) -> None:
        self._state = context.state
        self._clock = context.clock
        self._interval_s = context.settings.recalculation_interval
        self._metrics = metrics
        self._valuer = valuer
        self._numbering = numbering

    async def run(self) -> None:
        """Refresh the whole book every TOTALS_S, and value it from scratch every RECALCULATION_INTERVAL."""
        clock, interval_s = self._clock, self._interval_s
        check_s = clock.monotonic_s() + interval_s
        while True:
            await asyncio.sleep(min(TOTALS_S, interval_s))
            if clock.monotonic_s() >= check_s:
                check_s = clock.monotonic_s() + interval_s
                await self._check_book()
            await self._tidy_book()
            await self._refresh_book()

    async def _tidy_book(self) -> None:
        """Free, step by step, the memory of accounts and symbols that are gone."""
        book = self._valuer.book
        async with self._numbering:
            if book.is_loose:
                await self._in_steps(book.pack())
                log.info("book packed", rows=book.row_count)
            if not book.is_crowded:
                return
            await self._in_steps(book.count_holders())
        unheld = book.unheld()
        # A symbol with a mark in Valkey may be held in other shards, or soon in ours again.
        marked = await self._state.marks.read(list(unheld))
        gone = {symbol: mark for symbol, mark in unheld.items() if symbol not in marked}
        if count := self._valuer.free(gone):
            log.info("symbols forgotten", symbols=count)

    async def _in_steps(self, steps: Iterator[None]) -> None:
        """Do all steps, and let other tasks run between them."""
        while True:
            with self._metrics.recalculation_block.time():
                if next(steps, ENDED) is ENDED:
                    return
            await asyncio.sleep(0)

    async def _refresh_book(self) -> None:
        """Update the totals by what has changed, stretch by stretch."""
        metrics, totals = self._metrics, BookTotals()
        for stretch in self._valuer.whole.stretches():
            with metrics.book_refresh.time():
                stretch.refresh()
                totals = totals.plus(stretch.totals())
            # Publish first what has become due meanwhile.
            await asyncio.sleep(0)
        metrics.accounts.set(len(self._valuer.book))
        metrics.positions.set(self._valuer.book.position_count)
        metrics.symbols.set(len(self._valuer.book.columns))
        metrics.book_equity.set(totals.equity)
        metrics.book_unpriced.set(totals.unpriced)
        metrics.book_negative.set(totals.negative)

    async def _check_book(self) -> None:
        """Value everything from scratch, stretch by stretch, and report the drift of the refreshes."""
        metrics, drift = self._metrics, 0.0
        with metrics.recalculation.time():
            for stretch in self._valuer.whole.stretches():
                with metrics.recalculation_block.time():
                    drift = max(drift, stretch.measure_drift())
                await asyncio.sleep(0)
        metrics.book_drift.set(drift)
