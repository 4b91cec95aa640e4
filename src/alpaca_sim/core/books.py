"""The broker's end of day: the state at 16:00, and the overnight roll that makes it the `last_` figures.

Source: Alpaca, "Daily Processes": end of day 23:00-23:30 New York, beginning of day 02:15-02:30. Until the
roll, all `last_` figures are those of the day before; `balance_asof` names their day.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal

from alpaca_sim.core.agenda import Agenda
from alpaca_sim.core.clock import new_york
from alpaca_sim.core.decimals import ZERO, exact
from alpaca_sim.core.ledger import Account, Activity, Holdings, Ledger, Position, compressed_cost
from alpaca_sim.core.market import Market, MarketSymbol
from alpaca_sim.core.sessions import CLOSE, Calendar, at_time_ns
from alpaca_sim.core.trader import Trader

ROLL_AT = time(2, 15)
SYSTEM_EVENTS_MAX = 10_000
HISTORY_DAYS_MAX = 400
CRYPTO_FEE_RATE = Decimal("0.0025")
READY = {
    "eod_balances_ready": "End-of-day balances are now available.",
    "eod_positions_ready": "End-of-day positions are now available.",
}


@dataclass(frozen=True, slots=True)
class SystemEvent:
    """One event of `/v2/events/system`."""

    event_id: str
    at_ns: int
    kind: str
    system_date: date


@dataclass(frozen=True, slots=True)
class Closing:
    """One account at 16:00: its holdings, and how many of its activities they include."""

    holdings: Holdings
    count: int


@dataclass(frozen=True, slots=True)
class DayEnd:
    """One account at the end of a day: equity, and the day's cash movements by activity type, in dollars."""

    day: date
    equity: Decimal
    flows: Mapping[str, Decimal]


class Books:
    """Closes each trading day at 16:00 New York, and rolls at `roll_at` of the next date."""

    def __init__(
        self,
        ledger: Ledger,
        market: Market,
        trader: Trader,
        calendar: Calendar,
        agenda: Agenda,
        roll_at: time | None,
        takes_crypto_fee: bool,
    ) -> None:
        """Without `roll_at`, the `last_` figures never change.

        With `takes_crypto_fee`, the fee of the day's crypto purchases is booked at 16:00 (`CFEE`).
        """
        self.balance_date = date.min
        self.events: list[SystemEvent] = []
        self.history: dict[str, list[DayEnd]] = {}  # by account, the newest `HISTORY_DAYS_MAX` days
        self.on_event: Callable[[], None] = lambda: None
        self._ledger = ledger
        self._market = market
        self._trader = trader
        self._calendar = calendar
        self._agenda = agenda
        self._roll_at = roll_at
        self._takes_crypto_fee = takes_crypto_fee
        self._closings: dict[str, Closing] = {}
        self._closes: dict[str, Decimal] = {}

    def first_balance_date(self, now_ns: int) -> date:
        """The `balance_asof` of a simulator that starts at `now_ns`: the last day that has been rolled."""
        day = self._calendar.previous_day(new_york(now_ns).date()).day
        if self._roll_at is not None and self._roll_ns(day) > now_ns:
            day = self._calendar.previous_day(day).day
        return day

    def start(self, balance_date: date) -> None:
        """Plan the next close and roll. A close that is past and not rolled yet runs at once."""
        self.balance_date = balance_date
        if self._roll_at is not None:
            self._plan_close(self._calendar.next_day(balance_date).day)

    def _roll_ns(self, day: date) -> int:
        assert self._roll_at is not None
        return at_time_ns(day + timedelta(days=1), self._roll_at)

    def _plan_close(self, day: date) -> None:
        self._agenda.plan(at_time_ns(day, CLOSE), lambda at_ns: self._close(day, at_ns))

    def _close(self, day: date, at_ns: int) -> None:
        """Keep all holdings and closing prices of 16:00, and plan the roll and the next close."""
        if self._takes_crypto_fee:
            self._book_crypto_fees()
        for account in self._ledger.accounts.values():
            count = sum(activity.at_ns <= at_ns for activity in account.activities[account.first :])
            self._closings[account.account_id] = Closing(
                account.holdings(at_ns).copy(), account.first + count
            )
        self._closes = {symbol: close_price(state) for symbol, state in self._market.symbols.items()}
        self._agenda.plan(self._roll_ns(day), lambda roll_ns: self._roll(day, roll_ns))
        self._plan_close(self._calendar.next_day(day).day)

    def _roll(self, day: date, at_ns: int) -> None:
        """Make the state of 16:00 the new `last_` figures, and compress the average entry prices."""
        for symbol, close in self._closes.items():
            self._market.set_previous_close(symbol, close, raw=close)
        for account_id, closing in self._closings.items():
            account = self._ledger.accounts[account_id]
            opening = opened(account, closing)
            equity = self._ledger.equity_at_closes(opening)
            self._keep(account, DayEnd(day, equity, _cash_flows(account, closing.count)))
            self._ledger.roll(account_id, opening, closing.count, equity)
        self._closings, self._closes = {}, {}
        self.balance_date = day
        assert len(self.events) < SYSTEM_EVENTS_MAX, "the simulator keeps every system event: restart it"
        for kind in READY:
            self.events.append(SystemEvent(self._ledger.next_event_id(at_ns), at_ns, kind, day))
        self.on_event()

    def _keep(self, account: Account, end: DayEnd) -> None:
        days = self.history.setdefault(account.account_id, [])
        days.append(end)
        del days[:-HISTORY_DAYS_MAX]

    def _book_crypto_fees(self) -> None:
        """Book the fee of the day's crypto purchases: CRYPTO_FEE_RATE of the coins bought, in that coin."""
        for account in self._ledger.accounts.values():
            bought: dict[str, Decimal] = {}
            for activity in account.activities[account.first :]:
                is_buy = activity.activity_type == "TRD" and activity.quantity > 0 and not activity.is_void
                if is_buy and "/" in activity.symbol and activity.ref_id not in self._ledger.superseded:
                    bought[activity.symbol] = bought.get(activity.symbol, ZERO) + activity.quantity
            for symbol, quantity in bought.items():
                fee = round(quantity * CRYPTO_FEE_RATE, 9)
                position = account.current.positions.get(symbol)
                if fee and position is not None and position.quantity > fee:
                    self._trader.book_leg(
                        account.account_id, ("CFEE", ""), {"symbol": symbol}, (symbol, -fee)
                    )


def _cash_flows(account: Account, until: int) -> dict[str, Decimal]:
    """Cash movements since the last roll by activity type, without trades, in dollars."""
    flows: dict[str, Decimal] = {}
    for activity in account.activities[account.first : until]:
        if activity.activity_type != "TRD" and activity.net_amount:
            flows[activity.activity_type] = flows.get(activity.activity_type, ZERO) + activity.net_amount
    return flows


def close_price(state: MarketSymbol) -> Decimal:
    """The day's official close. Crypto trades around the clock, so its close is the last price."""
    return state.mark if state.listing.asset_class == "crypto" else state.daily_bar.close


def opened(account: Account, closing: Closing) -> Holdings:
    """The holdings with which a new day begins: no position is new, no cash flow yet, costs compressed."""
    moves: dict[str, list[tuple[Decimal, Decimal]]] = {}
    # Symbols moved by anything but plain trades keep their cost.
    others: set[str] = set()
    for activity in account.activities[account.first : closing.count]:
        if not activity.symbol:
            continue
        if activity.activity_type != "TRD" or activity.previous is not None:
            others.add(activity.symbol)
        moves.setdefault(activity.symbol, []).append((activity.quantity, _unit_price(activity)))
    positions: dict[str, Position] = {}
    for symbol, position in closing.holdings.positions.items():
        cost = position.cost_basis
        if symbol in moves and symbol not in others:
            with exact():
                cost = compressed_cost(
                    account.opening.positions.get(symbol), moves[symbol], position.quantity
                )
        positions[symbol] = Position(position.quantity, cost)
    return Holdings(closing.holdings.cash, positions, ZERO, dict(closing.holdings.in_transit))


def _unit_price(activity: Activity) -> Decimal:
    return activity.price * activity.multiplier
