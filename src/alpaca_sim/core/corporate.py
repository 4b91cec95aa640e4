"""Corporate actions: splits in two bookings with a gap between them, and dividends paid after the ex-date."""

from datetime import date
from decimal import Decimal

from alpaca_sim.core.agenda import Agenda
from alpaca_sim.core.clock import SECOND_NS, Clock, new_york
from alpaca_sim.core.conditions import regular_condition
from alpaca_sim.core.decimals import CENT, exact, text, to_cents
from alpaca_sim.core.ledger import SPLIT, Ledger
from alpaca_sim.core.market import Market, asset_id_of
from alpaca_sim.core.trader import Trader

CUSIP = "000000000"
SPLIT_QUANTITY_DECIMALS = 9


class CorporateActions:
    """Splits and dividends over all accounts that hold a symbol."""

    def __init__(self, ledger: Ledger, market: Market, trader: Trader, agenda: Agenda, clock: Clock) -> None:
        """`trader` books; `agenda` runs later legs and payments."""
        self._ledger = ledger
        self._market = market
        self._trader = trader
        self._agenda = agenda
        self._clock = clock

    def split(
        self,
        symbol: str,
        new_rate: Decimal,
        old_rate: Decimal,
        gap_s: float,
        ex_date: date | None,
        is_told: bool = True,
    ) -> int:
        """Give `new_rate` shares for `old_rate` in all accounts, and return how many hold the symbol.

        The old quantity leaves now. The new one arrives `gap_s` seconds later, followed by the first trade at
        the new price; prices before that are not adjusted. Without `is_told`, no event and no row reports it.
        """
        now_ns = self._clock.now_ns()
        today = new_york(now_ns).date().isoformat()
        shared = {
            "ca_id": str(asset_id_of(f"split/{symbol}/{today}")),
            "symbol": symbol,
            "old_cusip": CUSIP,
            "new_cusip": CUSIP,
            "old_rate": text(old_rate),
            "new_rate": text(new_rate),
            "system_date": today,
            "position_date": today,
            "payable_date": today,
        }
        if ex_date is not None:
            shared["ex_date"] = ex_date.isoformat()
        subtype = "FSPLIT" if new_rate > old_rate else "RSPLIT"
        arriving: list[tuple[str, Decimal, dict[str, str]]] = []
        for account in self._ledger.accounts.values():
            position = account.current.positions.get(symbol)
            if position is None:
                continue
            old = position.quantity
            new = round(old * new_rate / old_rate, SPLIT_QUANTITY_DECIMALS)
            details = {
                **shared,
                "group_id": self._trader.new_id(),
                "old_qty": text(old),
                "new_qty": text(new),
            }
            leg = (symbol, -old)
            self._trader.book_leg(account.account_id, (SPLIT, subtype), details, leg, is_told=is_told)
            arriving.append((account.account_id, new, details))

        def arrive(_at_ns: int) -> None:
            for account_id, quantity, details in arriving:
                leg = (symbol, quantity)
                self._trader.book_leg(account_id, (SPLIT, subtype), details, leg, is_told=is_told)
            self._trade_at_ratio(symbol, old_rate / new_rate)

        self._agenda.plan(now_ns + int(gap_s * SECOND_NS), arrive)
        return len(arriving)

    def _trade_at_ratio(self, symbol: str, ratio: Decimal) -> None:
        """Print the first trade at the new price, and adjust the previous close by the same ratio."""
        state = self._market.symbols[symbol]
        listing = state.listing
        self._market.set_previous_close(symbol, round(listing.previous_close * ratio, 4))
        tick = Decimal(1).scaleb(-listing.price_decimals)
        price = max(tick, round(state.mark * ratio, listing.price_decimals))
        self._market.print_trade(symbol, price, Decimal(100), (regular_condition(listing.tape),))

    def dividend(self, symbol: str, rate: Decimal, pay_in_s: float, withheld: Decimal) -> int:
        """Pay `rate` dollars a share in `pay_in_s` seconds to all accounts that hold the symbol now.

        The price falls by the rate now, as on an ex-date. The ratio `withheld` of a long position's dividend
        is booked as tax (`DIVNRA`). A short position pays the dividend. Returns the number of accounts.
        """
        now_ns = self._clock.now_ns()
        today = new_york(now_ns).date().isoformat()
        entitled = {
            account.account_id: account.current.positions[symbol].quantity
            for account in self._ledger.accounts.values()
            if symbol in account.current.positions
        }
        state = self._market.symbols[symbol]
        price = max(CENT, state.mark - rate)
        self._market.print_trade(symbol, price, Decimal(100), (regular_condition(state.listing.tape),))

        def pay(at_ns: int) -> None:
            paid_on = new_york(at_ns).date().isoformat()
            for account_id, quantity in entitled.items():
                self._pay(account_id, symbol, quantity, rate, withheld, (today, paid_on))

        self._agenda.plan(now_ns + int(pay_in_s * SECOND_NS), pay)
        return len(entitled)

    def _pay(
        self,
        account_id: str,
        symbol: str,
        quantity: Decimal,
        rate: Decimal,
        withheld: Decimal,
        dates: tuple[str, str],
    ) -> None:
        ex_date, paid_on = dates
        with exact():
            amount, tax = to_cents(quantity * rate), to_cents(-abs(quantity * rate) * withheld)
        details = {
            "ca_id": str(asset_id_of(f"dividend/{symbol}/{ex_date}")),
            "group_id": self._trader.new_id(),
            "symbol": symbol,
            "cusip": CUSIP,
            "entitled_qty": text(quantity),
            "rate": text(rate),
            "cash_payout": text(amount),
            "foreign": "false",
            "special": "false",
            "ex_date": ex_date,
            "record_date": ex_date,
            "position_date": ex_date,
            "payable_date": paid_on,
            "system_date": paid_on,
        }
        booked = self._trader.book_leg(account_id, ("DIV", "CDIV"), details, net_amount=amount)
        if tax and quantity > 0:
            taxed = {"symbol": symbol, "cusip": CUSIP, "parent_id": booked.ref_id, "system_date": paid_on}
            self._trader.book_leg(account_id, ("DIVNRA", ""), taxed, net_amount=tax)
