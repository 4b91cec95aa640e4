"""Bookings that are hard for clients: published late or never, in groups, or with adjusted option roots."""

import random
from dataclasses import replace
from decimal import Decimal

from alpaca_sim.core.agenda import Agenda
from alpaca_sim.core.clock import SECOND_NS, Clock, new_york
from alpaca_sim.core.decimals import CENT, ZERO, exact, to_cents
from alpaca_sim.core.ledger import Account, Activity, Ledger, pair_of
from alpaca_sim.core.leg_details import FORMS, OCC_TAIL, LegDetails, leg_details, underlying_of
from alpaca_sim.core.market import Market
from alpaca_sim.core.trader import Trader

CRYPTO_FEE_RATE = Decimal("0.0025")
FEE_TOLD_IN_S = 60.0  # Alpaca's rows of real fees came seconds to hours after the fill
MEMO_SETTLES_IN_S = 2.0
COINS = Decimal("0.25")
MERGER_SHARE = 0.5  # of exchanges at random; the others are new names
NEVER = ""  # the activity type of a change that is never published
MERGER, NEW_NAME = ("MA", "SCMA"), ("NC", "SNC")  # activity type and subtype


class OddBookings:
    """Makes unusual bookings. `trader` books; `agenda` runs what happens later."""

    def __init__(
        self,
        ledger: Ledger,
        market: Market,
        trader: Trader,
        agenda: Agenda,
        clock: Clock,
        rng: random.Random,
        form: str = FORMS[0],
    ) -> None:
        """`form`: one of FORMS, in which the legs of a group name what they move."""
        self._ledger = ledger
        self._market = market
        self._trader = trader
        self._agenda = agenda
        self._clock = clock
        self._rng = rng
        self._form = form

    def take_fee(self, trade: Activity) -> None:
        """Take the fee of a crypto purchase from the position now, and publish it FEE_TOLD_IN_S later."""
        is_crypto = "/" in trade.symbol and self._market.listing(trade.symbol).asset_class == "crypto"
        if not is_crypto or trade.quantity <= 0:
            return
        fee = round(trade.quantity * CRYPTO_FEE_RATE, 9)
        if fee:
            details = {"symbol": trade.symbol.replace("/", "")}
            leg = (trade.symbol, -fee)
            booked = self._trader.book_leg(trade.account_id, ("CFEE", ""), details, leg, is_told=False)
            self._tell(booked, FEE_TOLD_IN_S)

    def late_deposit(self, account_id: str, amount: Decimal, told_in_s: float) -> Activity:
        """Deposit cash: balances show it now, events and rows `told_in_s` seconds later."""
        booked = self._trader.move_cash(account_id, "CSD", amount, is_told=False)
        self._tell(booked, told_in_s)
        return booked

    def reset(self, account: Account, cash: Decimal) -> None:
        """Reset a paper account to `cash` dollars without positions. No event or row ever reports it."""
        for symbol, position in list(account.current.positions.items()):
            self._trader.book_leg(
                account.account_id, (NEVER, ""), {}, (symbol, -position.quantity), is_told=False
            )
        change = cash - account.current.cash
        self._trader.book_leg(account.account_id, (NEVER, ""), {}, None, change, is_told=False)

    def instant_deposit(self, account_id: str, amount: Decimal, settle_in_s: float) -> str:
        """Credit an account now (MEM), and return the transfer id.

        After `settle_in_s` seconds the money arrives (CSD) and the credit is taken back.
        """
        transfer_id = self._trader.new_id()
        self._trader.move_cash(account_id, "MEM", amount, transfer_id=transfer_id)

        def settle(_at_ns: int) -> None:
            self._trader.move_cash(account_id, "CSD", amount, transfer_id=transfer_id)
            self._trader.move_cash(account_id, "MEM", -amount, transfer_id=transfer_id)

        self._agenda.plan(self._clock.now_ns() + int(settle_in_s * SECOND_NS), settle)
        return transfer_id

    def exchange(
        self,
        account: Account,
        symbol: str,
        into: str,
        ratio: Decimal,
        cash: Decimal,
        gap_s: float,
        kind: tuple[str, str] = MERGER,
        form: str = "",
    ) -> str:
        """Book a merger, or another `kind` of exchange, as the legs of one group, and return the group's id.

        All of `symbol` leaves now. After `gap_s` seconds, `ratio` times its quantity arrives as `into`, and
        `cash` dollars with it, if any. `form` is one of FORMS; empty: that of the settings.
        """
        quantity, group_id = account.current.positions[symbol].quantity, self._trader.new_id()
        details = self._details(form, kind[0], (symbol, into), group_id)
        account_id = account.account_id
        self._trader.book_leg(account_id, kind, details.leaves, (symbol, -quantity))

        def arrive(_at_ns: int) -> None:
            arrived = round(quantity * ratio, 9)
            self._trader.book_leg(account_id, kind, details.comes, (into, arrived))
            if cash:
                self._trader.book_leg(account_id, kind, details.cash, None, cash)

        if gap_s:
            self._agenda.plan(self._clock.now_ns() + int(gap_s * SECOND_NS), arrive)
        else:
            arrive(0)
        return group_id

    def exercise(self, account: Account, contract: str, form: str = "") -> str:
        """Exercise a long option, or assign a short one, and return the group's id.

        Two legs of one group: the contract leaves, and shares are bought or sold at its strike. The
        underlying must be listed.
        """
        quantity, group_id = account.current.positions[contract].quantity, self._trader.new_id()
        kind, strike = contract[-9], Decimal(contract[-8:]) / 1000
        underlying = underlying_of(contract)
        multiplier = self._market.listing(contract).multiplier
        shares = quantity * multiplier * (1 if kind == "C" else -1)
        with exact():
            paid = to_cents(-shares * strike)
        code = "OPEXC" if quantity > 0 else "OPASN"
        details = self._details(form, code, (contract, underlying), group_id)
        self._trader.book_leg(account.account_id, (code, ""), details.leaves, (contract, -quantity))
        self._trader.book_priced(
            account.account_id, "OPTRD", details.comes, (underlying, shares, strike), paid
        )
        return group_id

    def adjust(self, contract: str) -> tuple[str, int]:
        """Replace a contract by one whose root has a digit, as after a corporate action, in every account.

        The legs state its value as amounts that cancel. Returns the new symbol and the number of accounts.
        """
        adjusted = f"{underlying_of(contract)}1{contract[-OCC_TAIL:]}"
        state = self._market.symbols[contract]
        if adjusted not in self._market.symbols:
            close = state.listing.previous_close
            listing = replace(state.listing, symbol=adjusted, exchange="OPCA", first_price=state.mark)
            self._market.list_symbol(replace(listing, previous_close=close))
        held = [
            account for account in self._ledger.accounts.values() if contract in account.current.positions
        ]
        for account in held:
            quantity, account_id = account.current.positions[contract].quantity, account.account_id
            kind = ("OPCA", "CADJ")
            details = self._details("", kind[0], (contract, adjusted), self._trader.new_id())
            with exact():
                value = to_cents(quantity * state.mark * state.listing.multiplier)
            self._trader.book_leg(account_id, kind, details.leaves, (contract, -quantity), value)
            self._trader.book_leg(account_id, kind, details.comes, (adjusted, quantity), -value)
        return adjusted, len(held)

    def exchange_some(self, count: int) -> None:
        """Exchange one stock for another in up to `count` random accounts: mergers and new names."""
        for account, symbol in self._holders(count, "us_equity"):
            others = [other for other in self._listed("us_equity") if other not in account.current.positions]
            if others:
                into, form = self._rng.choice(others), self._rng.choice(FORMS)
                cash = Decimal(self._rng.randint(100, 50_000)) * CENT
                if self._rng.random() < MERGER_SHARE:
                    self.exchange(account, symbol, into, Decimal("0.5"), cash, 0.0, form=form)
                else:
                    self.exchange(account, symbol, into, Decimal(1), ZERO, 0.0, NEW_NAME, form)

    def exercise_some(self, count: int) -> None:
        """Exercise options in up to `count` random accounts that hold one."""
        for account, contract in self._holders(count, "us_option"):
            if underlying_of(contract) in self._market.symbols:
                self.exercise(account, contract, self._rng.choice(FORMS))

    def coins_for_some(self, count: int) -> None:
        """Transfer coins in on chain (OCT) to up to `count` random accounts."""
        coins = self._listed("crypto")
        for account in self._some_accounts(count) if coins else []:
            symbol = self._rng.choice(coins)
            self._trader.move_securities(account.account_id, "OCT", symbol, COINS, self._market.mark(symbol))

    def memos_for_some(self, count: int) -> None:
        """Give up to `count` random accounts an instant credit, settled MEMO_SETTLES_IN_S later."""
        for account in self._some_accounts(count):
            amount = Decimal(self._rng.randint(1_000, 500_000)) * CENT
            self.instant_deposit(account.account_id, amount, MEMO_SETTLES_IN_S)

    def late_deposit_for_one(self, told_in_s: float) -> None:
        """Deposit cash in one random account, published `told_in_s` seconds later."""
        for account in self._some_accounts(1):
            amount = Decimal(self._rng.randint(1_000, 500_000)) * CENT
            self.late_deposit(account.account_id, amount, told_in_s)

    def _tell(self, booked: Activity, in_s: float) -> None:
        at_ns = self._clock.now_ns() + int(in_s * SECOND_NS)
        self._agenda.plan(at_ns, lambda _due_ns: self._ledger.tell(booked, self._clock.stamp_ns()))

    def _details(self, form: str, code: str, symbols: tuple[str, str], group_id: str) -> LegDetails:
        today = new_york(self._clock.now_ns()).date().isoformat()
        return leg_details(form or self._form, code, symbols, group_id, today)

    def _some_accounts(self, count: int) -> list[Account]:
        accounts = list(self._ledger.accounts.values())
        return self._rng.sample(accounts, min(count, len(accounts)))

    def _holders(self, count: int, asset_class: str) -> list[tuple[Account, str]]:
        held = [
            (account, symbol)
            for account in self._ledger.accounts.values()
            for symbol, position in account.current.positions.items()
            if self._market.listing(symbol).asset_class == asset_class and position.quantity > ZERO
        ]
        one_each = dict(
            self._rng.sample([(account.account_id, symbol) for account, symbol in held], len(held))
        )
        chosen = list(one_each.items())[:count]
        return [(self._ledger.accounts[account_id], symbol) for account_id, symbol in chosen]

    def _listed(self, asset_class: str) -> list[str]:
        return [
            symbol
            for symbol, state in self._market.symbols.items()
            if state.listing.asset_class == asset_class and not state.is_unpriced and not pair_of(symbol)
        ]
