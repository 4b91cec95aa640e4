"""Compares our equity with the broker's: counted, logged by account, and marked in the record."""

import asyncio
from decimal import Decimal
from typing import Final, NamedTuple, NoReturn

import structlog

from portfolio_realtime.clock import Clock
from portfolio_realtime.model import PRICED_CLASSES, Account
from portfolio_realtime.state import State
from portfolio_realtime.symbol_collector.model import Statement
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from portfolio_realtime.telemetry import CollectorMetrics
from portfolio_realtime.valuation.rounding import exact_equity, exposure

DRIFT_MAX: Final = 0.01  # of equity or positions; above it the account is logged
GATHER_S: Final = 0.1  # accounts within this time are compared with marks together

log = structlog.get_logger()


class _Compared(NamedTuple):
    """An account whose arithmetic has been compared, and its marks not yet."""

    account: Account
    symbols: frozenset[str]  # held
    at_brokers: Decimal  # equity in dollars at the broker's prices
    at_stake: Decimal


class EquityDrift:
    """Compares each statement that agrees with its record."""

    def __init__(
        self, records: AccountRecords, state: State, clock: Clock, metrics: CollectorMetrics
    ) -> None:
        self._records = records
        self._state = state
        self._clock = clock
        self._metrics = metrics
        self._compared: dict[str, _Compared] = {}
        self._has_some = asyncio.Event()

    def compare(self, statement: Statement) -> None:
        """Measure how far our equity is from the broker's, in metrics and log; no figure changes.

        This needs equal cash and quantities; other differences are drift of the record. First our arithmetic
        is compared at the broker's own prices, which are of the same moment. Above DRIFT_MAX the broker
        counts something that we do not, and the account is unconfirmed. Then our marks are compared with
        these prices, which are of another moment and venue (`compare_marks`).
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
        if symbols:
            self._compared[account.account_id] = _Compared(account, frozenset(symbols), at_brokers, at_stake)
            self._has_some.set()

    async def compare_marks(self) -> NoReturn:
        """Compare, without end, our marks with the broker's prices. Raises StateUnavailable."""
        while True:
            await self._has_some.wait()
            await asyncio.sleep(GATHER_S)
            self._has_some.clear()
            compared, self._compared = self._compared, {}
            symbols = frozenset[str]().union(*(one.symbols for one in compared.values()))
            marks = await self._state.marks.read(sorted(symbols))
            prices = {symbol: mark.price for symbol, mark in marks.items()}
            for one in compared.values():
                if one.symbols <= prices.keys():  # without all marks there is no equity of ours
                    self._compare_marks(one, prices)

    def _compare_marks(self, one: _Compared, prices: dict[str, float]) -> None:
        own = exact_equity(one.account, prices)
        drift = _ratio(own - one.at_brokers, one.at_stake)
        self._metrics.price_drift.observe(drift)
        _tell_drift("price drift", one.account.account_id, own, one.at_brokers, drift)


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
