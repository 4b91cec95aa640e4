"""Compares our equity with the broker's: counted, logged by account, and marked in the record."""

from decimal import Decimal
from typing import Final

import structlog

from portfolio_realtime.clock import Clock
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.model import PRICED_CLASSES
from portfolio_realtime.service import spare
from portfolio_realtime.state import State
from portfolio_realtime.symbol_collector.model import Statement
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from portfolio_realtime.telemetry import CollectorMetrics
from portfolio_realtime.valuation.rounding import exact_equity, exposure

DRIFT_MAX: Final = 0.01  # of equity or positions; above it the account is logged

log = structlog.get_logger()


class EquityDrift:
    """Compares each statement that agrees with its record."""

    def __init__(
        self, records: AccountRecords, state: State, clock: Clock, metrics: CollectorMetrics
    ) -> None:
        self._records = records
        self._state = state
        self._clock = clock
        self._metrics = metrics

    async def compare(self, statement: Statement) -> None:
        """Measure how far our equity is from the broker's, in metrics and log; no figure changes.

        This needs equal cash and quantities; other differences are drift of the record. First our arithmetic
        is compared at the broker's own prices, which are of the same moment. Above DRIFT_MAX the broker
        counts something that we do not, and the account is unconfirmed. Then our marks are compared with
        these prices, which are of another moment and venue.
        """
        account, stated = self._records.account(statement.state.account_id), statement.state.equity
        symbols, prices = statement.quantities.keys(), statement.prices
        if account is None or stated is None or symbols - prices.keys() or _has_unknown_units(statement):
            return
        if account.cash - account.held_back != statement.state.cash or not statement.has_holdings_of(account):
            return
        at_brokers, at_stake = exact_equity(account, prices), exposure(account, prices)
        drift = _ratio(at_brokers - stated, max(abs(stated), at_stake))
        self._metrics.equity_drift.observe(drift)
        _tell_drift("equity drift", account.account_id, at_brokers, stated, drift)
        difference = stated - at_brokers if drift > DRIFT_MAX else None
        self._records.compare_equity(account.account_id, difference, self._clock.now_ns())
        try:
            marks = await self._state.marks.read(list(symbols))
        except StateUnavailable as error:
            spare(error, is_cluster=self._state.connection.is_cluster)
            return
        # Without all marks there is no equity of ours.
        if symbols and len(marks) == len(symbols):
            own = exact_equity(account, {symbol: mark.price for symbol, mark in marks.items()})
            drift = _ratio(own - at_brokers, at_stake)
            self._metrics.price_drift.observe(drift)
            _tell_drift("price drift", account.account_id, own, at_brokers, drift)


def _has_unknown_units(statement: Statement) -> bool:
    """Whether the account holds a class whose price unit is unknown.

    A bond is priced per 100 of its face value. Counted per unit, it would show a hundredfold drift.
    """
    return any(
        one.quantity and one.asset_class not in PRICED_CLASSES and one.stated_multiplier is None
        for one in statement.holdings.values()
    )


def _ratio(difference: Decimal, at_stake: Decimal) -> float:
    """The difference as a share of equity or positions, whichever is larger."""
    return float(abs(difference / at_stake)) if at_stake else 0.0


def _tell_drift(what: str, account_id: str, ours: Decimal, brokers: Decimal, drift: float) -> None:
    if drift > DRIFT_MAX:
        log.warning(what, account_id=account_id, ours=str(ours), brokers=str(brokers), ratio=drift)
