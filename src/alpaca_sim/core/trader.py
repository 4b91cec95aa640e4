"""Activities of account holders: trades at the mark, deposits, withdrawals, fees, dividends."""

import random
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal

from alpaca_sim.core.clock import Clock, new_york
from alpaca_sim.core.decimals import CENT, ZERO, exact, text, to_cents
from alpaca_sim.core.ledger import Activity, Ledger, pair_of
from alpaca_sim.core.market import TEST_SYMBOL, Market, asset_id_of

ACTIVITIES_PER_STEP_MAX = 1_000
CASH_TYPES = ("CSD", "CSW", "JNLC", "FEE", "DIV", "MEM", "ACATC", "OCT", "INT")
SECURITY_TYPES = ("JNLS", "ACATS", "FOPT", "OCT")
CORRECTION_RATIO = Decimal("0.99")
_SIGNS = {"CSD": (1,), "CSW": (-1,), "JNLC": (1, -1), "FEE": (-1,), "DIV": (1,)}  # of the amount, by type
_CENTS = {"FEE": (1, 900), "DIV": (1, 5_000)}  # the smallest and the largest amount, by type
_CENTS_OF_CASH = (100, 500_000)  # of what the account holder brings in or takes out
SUBTYPES = {"FEE": "TAF", "DIV": "CDIV", "INT": "MGN"}
_MIX = ("TRD",) * 14 + ("CSD", "CSD", "CSW", "JNLC", "FEE", "DIV")
NEW_SYMBOL_SHARE = 0.3
CLOSE_SHARE = 0.15


class Trader:
    """Books activities: random ones by `step` and `act`, given ones by `trade`, `move_cash` and others."""

    def __init__(
        self, ledger: Ledger, market: Market, clock: Clock, rng: random.Random, activities_per_second: float
    ) -> None:
        """`rng` makes all random choices and all ids. `on_trade` is called after each trade."""
        self._ledger = ledger
        self._market = market
        self._clock = clock
        self._rng = rng
        self._activities_per_second = activities_per_second
        self._due = 0.0
        self.on_trade: Callable[[Activity], None] = lambda _activity: None
        self._account_ids: list[str] = []

    def step(self, elapsed_s: float) -> None:
        """Book the random activities of the next `elapsed_s` seconds."""
        self._due = min(self._due + elapsed_s * self._activities_per_second, ACTIVITIES_PER_STEP_MAX)
        while self._due >= 1:
            self._due -= 1
            if self._ledger.accounts:
                self.act(self._random_account())

    def act(self, account_id: str, at_ns: int | None = None) -> Activity:
        """Book one random activity of an account now, or at `at_ns`, which is not before its last one."""
        kind = self._rng.choice(_MIX)
        if kind == "TRD":
            symbol, quantity = self._random_order(account_id)
            return self.trade(account_id, symbol, quantity, at_ns=at_ns)
        if kind == "DIV" and not self._held_equities(account_id):
            kind = "CSD"
        cents = self._rng.randint(*_CENTS.get(kind, _CENTS_OF_CASH))
        sign = self._rng.choice(_SIGNS[kind])
        return self.move_cash(account_id, kind, sign * cents * CENT, at_ns)

    def trade(
        self,
        account_id: str,
        symbol: str,
        quantity: Decimal,
        price: Decimal | None = None,
        at_ns: int | None = None,
    ) -> Activity:
        """Buy (+) or sell (−) at the mark, or at `price` in dollars.

        Raises KeyError for an unknown account or symbol.
        """
        listing = self._market.listing(symbol)
        if price is None:
            price = self._market.mark(symbol)
        with exact():
            net_amount = to_cents(-quantity * listing.multiplier * price)
        if pair_of(symbol) is not None:
            net_amount = ZERO  # no dollars move: the other coin pays
        details = {
            "asset_id": listing.asset_id,
            "order_id": self._uuid(),
            "client_order_id": self._uuid(),
            "side": "buy" if quantity > 0 else "sell",
            "order_status": "filled",
            "execution_type": "fill",
            "symbol": symbol,
            "cum_qty": text(abs(quantity)),
            "leaves_qty": "0",
        }
        booked = self._book(
            account_id, "TRD", net_amount, details, at_ns, (symbol, quantity, price, listing.multiplier)
        )
        self.on_trade(booked)
        return booked

    def amend(self, original: Activity, price: Decimal | None) -> Activity:
        """Correct the price of a trade, or bust the trade if `price` is None."""
        is_void = price is None
        execution_type = "trade_bust" if is_void else "trade_correct"
        details = {**original.details, "execution_type": execution_type}
        # A bust reports what it reverses.
        if price is None:
            leg = (original.symbol, -original.quantity, original.price, original.multiplier)
            net_amount = -original.net_amount
        else:
            leg = (original.symbol, original.quantity, price, original.multiplier)
            with exact():
                net_amount = to_cents(-original.quantity * original.multiplier * price)
        return self._book(
            original.account_id, "TRD", net_amount, details, None, leg, previous=original, is_void=is_void
        )

    def amend_some(self, count: int, is_bust: bool) -> None:
        """Correct or bust up to `count` random trades of the present day that still count."""
        standing = [
            activity
            for account in self._ledger.accounts.values()
            for activity in account.activities[account.first :]
            if activity.activity_type == "TRD"
            and not activity.is_void
            and activity.ref_id not in self._ledger.superseded
            and activity.symbol in account.current.positions
        ]
        for activity in self._rng.sample(standing, min(count, len(standing))):
            decimals = self._market.listing(activity.symbol).price_decimals
            corrected = round(activity.price * CORRECTION_RATIO, decimals) or activity.price
            self.amend(activity, None if is_bust else corrected)

    def move_securities(
        self, account_id: str, activity_type: str, symbol: str, quantity: Decimal, price: Decimal
    ) -> Activity:
        """Transfer securities in (+) or out (−) at `price` dollars. The type is one of `SECURITY_TYPES`."""
        listing = self._market.listing(symbol)
        named = symbol.replace("/", "") if activity_type == "OCT" else symbol
        details = {"system_date": new_york(self._clock.now_ns()).date().isoformat(), "symbol": named}
        details |= self._transfer_ids(activity_type)
        leg = (symbol, quantity, price, listing.multiplier)
        return self._book(account_id, activity_type, Decimal(0), details, None, leg)

    def book_leg(
        self,
        account_id: str,
        kind: tuple[str, str],
        details: Mapping[str, str],
        leg: tuple[str, Decimal] | None = None,
        net_amount: Decimal = ZERO,
        *,
        is_told: bool = True,
    ) -> Activity:
        """Book one leg of a corporate action.

        `kind` is (type, subtype), `leg` is (symbol, signed quantity). Without `is_told`, the leg is booked
        and not published.
        """
        moved = None if leg is None else (*leg, ZERO, self._market.listing(leg[0]).multiplier)
        return self._book(
            account_id, kind[0], net_amount, details, None, moved, subtype=kind[1], is_told=is_told
        )

    def book_priced(
        self,
        account_id: str,
        activity_type: str,
        details: Mapping[str, str],
        leg: tuple[str, Decimal, Decimal],
        net_amount: Decimal,
    ) -> Activity:
        """Book one leg that has a price; `leg` is (symbol, signed quantity, price in dollars)."""
        moved = (*leg, self._market.listing(leg[0]).multiplier)
        return self._book(account_id, activity_type, net_amount, details, None, moved)

    def _transfer_ids(self, activity_type: str) -> dict[str, str]:
        """The ids in the details of a transfer, by its type."""
        if activity_type in ("JNLC", "JNLS"):
            return {"journal_id": self._uuid()}
        if activity_type in ("ACATC", "ACATS"):
            return {"external_id": self._uuid()[:14], "request_id": self._uuid()}
        if activity_type == "FOPT":
            return {"external_id": self._uuid()[:14], "contra": "0000"}
        return {"transfer_id": self._uuid()} if activity_type == "OCT" else {}

    def new_id(self) -> str:
        """A new UUID. The same seed gives the same ids."""
        return self._uuid()

    def move_cash(
        self,
        account_id: str,
        activity_type: str,
        net_amount: Decimal,
        at_ns: int | None = None,
        status: str = "executed",
        transfer_id: str = "",
        executed_ns: int = 0,
        *,
        is_told: bool = True,
    ) -> Activity:
        """Book a cash activity; the type is one of `CASH_TYPES`. A withdrawal has a negative `net_amount`.

        `executed_ns` backdates the execution (0: the time of the booking). Without `is_told`, the activity is
        booked and not published.
        """
        system_date = new_york(at_ns or self._clock.now_ns()).date().isoformat()
        details = {"system_date": system_date}
        details |= self._transfer_ids(activity_type)
        if activity_type == "CSW":
            details["bank_transaction_id"] = self._uuid()
        elif activity_type == "FEE":
            details["parent_id"] = self._uuid()
        elif activity_type == "DIV":
            details |= self._dividend(account_id, net_amount, system_date)
        if activity_type == "OCT":
            details["symbol"] = "USDC"
        if activity_type == "MEM" or transfer_id:
            details["transfer_id"] = transfer_id or self._uuid()
        return self._book(
            account_id,
            activity_type,
            net_amount,
            details,
            at_ns,
            None,
            status=status,
            executed_ns=executed_ns,
            is_told=is_told,
        )

    def _book(
        self,
        account_id: str,
        activity_type: str,
        net_amount: Decimal,
        details: Mapping[str, str],
        at_ns: int | None,
        leg: tuple[str, Decimal, Decimal, Decimal] | None,
        *,
        subtype: str = "",
        status: str = "executed",
        previous: Activity | None = None,
        is_void: bool = False,
        executed_ns: int = 0,
        is_told: bool = True,
    ) -> Activity:
        symbol, quantity, price, multiplier = leg or ("", Decimal(0), Decimal(0), Decimal(1))
        booked_ns = self._clock.stamp_ns() if at_ns is None else at_ns
        activity = Activity(
            event_id=self._ledger.next_event_id(booked_ns),
            ref_id=self._uuid(),
            account_id=account_id,
            activity_type=activity_type,
            subtype=subtype or SUBTYPES.get(activity_type, ""),
            symbol=symbol,
            quantity=quantity,
            price=price,
            multiplier=multiplier,
            net_amount=net_amount,
            at_ns=booked_ns,
            details=details,
            status=status,
            previous=previous,
            is_void=is_void,
            executed_ns=executed_ns,
        )
        self._ledger.book(activity, is_told)
        return activity

    def _dividend(self, account_id: str, net_amount: Decimal, system_date: str) -> dict[str, str]:
        held = self._held_equities(account_id)
        symbol = self._rng.choice(held) if held else next(iter(self._market.symbols))
        position = self._ledger.accounts[account_id].current.positions.get(symbol)
        days = dict.fromkeys(("ex_date", "record_date", "payable_date", "position_date"), system_date)
        return {
            "ca_id": str(asset_id_of(f"dividend/{symbol}/{system_date}")),
            "group_id": self._uuid(),
            "symbol": symbol,
            "cusip": "000000000",
            "entitled_qty": text(position.quantity) if position else "0",
            "rate": "0.25",
            "cash_payout": text(net_amount),
            "foreign": "false",
            "special": "false",
            **days,
        }

    def _held_equities(self, account_id: str) -> list[str]:
        positions = self._ledger.accounts[account_id].current.positions
        return [s for s in positions if self._market.listing(s).asset_class == "us_equity"]

    def _random_account(self) -> str:
        if len(self._account_ids) != len(self._ledger.accounts):
            self._account_ids = list(self._ledger.accounts)
        return self._rng.choice(self._account_ids)

    def _random_order(self, account_id: str) -> tuple[str, Decimal]:
        rng = self._rng
        positions = self._ledger.accounts[account_id].current.positions
        if positions and rng.random() >= NEW_SYMBOL_SHARE:
            symbol = rng.choice(list(positions))
            held = positions[symbol].quantity
            if rng.random() < CLOSE_SHARE:
                return symbol, -held
        else:
            symbol = rng.choice([s for s in self._market.symbols if s != TEST_SYMBOL and not pair_of(s)])
        listing = self._market.listing(symbol)
        if listing.asset_class == "crypto":
            return symbol, max(
                Decimal("0.000000001"), round(rng.randint(10, 900) / self._market.mark(symbol), 9)
            )
        if listing.asset_class == "us_option":
            return symbol, Decimal(rng.choice((-2, -1, 1, 2, 3)))
        whole = Decimal(rng.choice((1, 2, 5, 10, 25)))
        fraction = Decimal(rng.randrange(10**9)).scaleb(-9) if rng.random() < 0.3 else Decimal(0)
        return symbol, (whole + fraction) * rng.choice((1, 1, -1))

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
