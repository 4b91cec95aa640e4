"""Every activity type in every order of arrival, against the simulator's ledger: wrong is always marked.

A made-up broker books one activity, or a group of two, at second 10. Its events and its REST say so when the
order of arrival has it; the record is looked at as often as it asks, and once in 30 s. In steps of a quarter
of a second its figures are compared with the ledger's. Nobody can know of a booking before the broker tells
of it: from then on a figure is right, or null, or the record is marked. `-s` prints the table.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

import msgspec
import pytest
import yaml

from alpaca_sim.core import ledger as simulator
from alpaca_sim.core.activity_types import MEANINGS
from portfolio_realtime.symbol_collector.model import AccountState, Activity, Holding, Statement, coin
from portfolio_realtime.symbol_collector.records.account_record import AccountRecord
from tests.alpaca_sim.openapi import FOLDER
from tests.symbol_collector.bookings import DAY, at_s, booking

STEP_S, END_S = 0.25, 160.0
BOOKED_S = 10.0
INTERVAL_S = 30.0
MARKED_S_MAX = 75.0  # a REST that trails is believed after a minute, and two looks more
ORDERS = ("event first", "statement first", "never booked", "booked twice", "corrected", "in a group")
CODES = sorted(MEANINGS.keys() - {"FILL"})  # the rows' name of a trade
# The enums `ActivityType` of Alpaca's OpenAPI files, broker 1.1.1 and trading 2.0.1, in their order.
PUBLISHED = {
    "broker": "FILL ACATC ACATS CGD CIL CSD CSW DIV DIVCGL DIVCGS DIVNRA DIVROC DIVTXEX FEE INT MEM JNLC JNLS"
    " MA OPASN OPCA OPCSH OPEXC OPEXP OPTRD PTC REORG SPIN SPLIT FOPT OCT",
    "trading": "FILL TRANS MISC ACATC ACATS CFEE CGD CSD CSW DIV DIVCGL DIVCGS DIVFEE DIVFT DIVNRA DIVROC"
    " DIVTW DIVTXEX FEE INT INTNRA INTTW JNL JNLC JNLS MA NC OPASN OPCA OPCSH OPEXC OPEXP OPTRD PTC PTR REORG"
    " SPIN SPLIT FOPT OCT",
}
COINS = ("OCT", "CFEE")
HELD = {"AAPL": Decimal(10), "BTC/USD": Decimal(1)}
CASH = Decimal(10_000)
_seconds: dict[tuple[str, str], tuple[float, float]] = {}  # wrong and marked, marked in all


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Print for how long each case that ran here was wrong or marked; `-s` shows it."""
    yield
    print(f"\n{'seconds wrong and marked / marked':34}" + "".join(f"{order:>18}" for order in ORDERS))
    for code in sorted({code for code, _ in _seconds}):
        cells = [_seconds.get((code, order), (0.0, 0.0)) for order in ORDERS]
        print(f"{code:34}" + "".join(f"{f'{wrong:.1f} / {marked:.1f}':>18}" for wrong, marked in cells))


@dataclass
class Told:
    """One booking: when the ledger has it, and when an event tells of it."""

    activity: Activity
    at_s: float
    event_s: tuple[float, ...]


@dataclass
class Story:
    """What is booked, when REST shows it, and what the record has seen of it."""

    bookings: list[Told]
    rest_lag_s: float
    record: AccountRecord = field(default_factory=lambda: AccountRecord("alice"))
    told_s: float | None = None  # when the broker first told something of it

    def truth(self, now_s: float) -> simulator.Holdings:
        """The ledger at a moment."""
        positions = {symbol: simulator.Position(quantity, quantity) for symbol, quantity in HELD.items()}
        held = simulator.Holdings(CASH, positions)
        by_name = {told.activity.ref_id: _as_simulated(told.activity) for told in self.bookings}
        for told in self.bookings:
            if told.at_s <= now_s:
                one = by_name[told.activity.ref_id]
                if told.activity.previous_id is not None:
                    one = simulator.Activity(
                        **{name: getattr(one, name) for name in one.__slots__ if name != "previous"},
                        previous=by_name[told.activity.previous_id],
                    )
                held.book_activity(one)
        return held

    def stated(self, now_s: float) -> Statement:
        """REST at a moment."""
        held = self.truth(now_s - self.rest_lag_s)
        state = AccountState("alice", "ACTIVE", "USD", held.cash, CASH, DAY, last_cash=CASH)
        holdings = {
            symbol: Holding(symbol, "crypto" if "/" in symbol else "us_equity", one.quantity, one.cost_basis)
            for symbol, one in held.positions.items()
        }
        return Statement(state, holdings, dict.fromkeys(holdings, 50.0))


def _as_simulated(one: Activity) -> simulator.Activity:
    return simulator.Activity(
        event_id=one.event_id,
        ref_id=one.ref_id,
        account_id=one.account_id,
        activity_type="SPIN" if one.activity_type == "SPLIT" else one.activity_type,  # plain legs for all
        subtype="",
        symbol=one.symbol or "",
        quantity=one.quantity,
        price=one.price,
        multiplier=Decimal(1),
        net_amount=one.net_amount,
        at_ns=one.published_ns,
        details={},
    )


def made(
    code: str, second_s: float, *, sign: int = 1, group: str | None = None, previous: str = ""
) -> Activity:
    """A booking of this type: of cash, or of units where the type moves some."""
    meaning = MEANINGS[code]
    has_units = meaning.units and code != "FEE"
    symbol = (coin("BTC") if code in COINS else "AAPL") if has_units else None
    return booking(
        code,
        Decimal(0) if has_units and code != "TRD" else sign * Decimal("-50.25" if code == "TRD" else "50.25"),
        at=second_s,
        symbol=symbol,
        quantity=sign * Decimal("0.5") if has_units else Decimal(0),
        price=Decimal("100.5") if has_units else Decimal(0),
        group_id=group,
        previous_id=previous or None,
    )


def story(code: str, order: str) -> Story:
    """What happens, in this order of arrival."""
    first = made(code, BOOKED_S)
    match order:
        case "event first":
            return Story([Told(first, BOOKED_S, (BOOKED_S,))], rest_lag_s=3)
        case "statement first":
            late = msgspec.structs.replace(first, published_ns=at_s(70), event_id="late")
            return Story([Told(late, BOOKED_S, (70,))], rest_lag_s=0)
        case "never booked":
            return Story([Told(first, BOOKED_S, ())], rest_lag_s=0)
        case "booked twice":
            return Story([Told(first, BOOKED_S, (BOOKED_S, 11, 60))], rest_lag_s=2)
        case "corrected":
            second = made(code, 40, sign=2, previous=first.ref_id)
            return Story([Told(first, BOOKED_S, (BOOKED_S,)), Told(second, 40, (40,))], rest_lag_s=2)
        case _:
            out = made(code, BOOKED_S, sign=-1, group="group")
            into = made(code, 12, group="group")
            into = msgspec.structs.replace(into, symbol="KO" if into.symbol else None)
            return Story([Told(out, BOOKED_S, (BOOKED_S,)), Told(into, 12, (12,))], rest_lag_s=2)


def run(case: Story) -> Iterator[tuple[float, bool, bool]]:
    """Each moment: (second, are its figures right or null, is it marked)."""
    record = case.record
    record.observe(case.stated(0), at_s(0), at_s(0.05))
    looked_s, events = 0.0, [(event_s, told.activity) for told in case.bookings for event_s in told.event_s]
    for step in range(1, int(END_S / STEP_S)):
        now_s = step * STEP_S
        for event_s, activity in events:
            if now_s - STEP_S < event_s <= now_s:
                record.apply_activity(activity, at_s(now_s))
                case.told_s = case.told_s or now_s
        again_ns = record.look_again_ns
        if now_s - looked_s >= INTERVAL_S or (again_ns is not None and again_ns <= at_s(now_s)):
            statement = case.stated(now_s)
            record.observe(statement, at_s(now_s), at_s(now_s + 0.05))
            looked_s = now_s
            if statement.state.cash != CASH or statement.quantities != HELD:
                case.told_s = case.told_s or now_s
        yield now_s, _is_right(case, now_s), record.account(1, 0).unconfirmed is not None


def _is_right(case: Story, now_s: float) -> bool:
    account, true = case.record.account(1, 0), case.truth(now_s)
    held = {one.symbol: one.quantity for one in account.positions if one.quantity}
    quantities = {symbol: one.quantity for symbol, one in true.positions.items()}
    is_flow_right = not account.is_day_pnl_known or account.external_cash_flow == true.external_cash_flow
    return (account.cash, held) == (true.cash, quantities) and is_flow_right


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("code", [*CODES, "NEWTYPE"])
def test_at_no_moment_wrong_and_unmarked(code: str, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And in the end right, with no mark left."""
    if code == "NEWTYPE":
        monkeypatch.setitem(MEANINGS, "NEWTYPE", MEANINGS["MISC"])
    case = story(code, order)
    silent: list[float] = []
    wrong_s = marked_s = 0.0
    is_right = is_marked = False
    for now_s, is_right, is_marked in run(case):
        if case.told_s is not None:
            silent += [now_s] if not is_right and not is_marked else []
            wrong_s += 0 if is_right else STEP_S
            marked_s += STEP_S if is_marked else 0
    _seconds[code, order] = wrong_s, marked_s

    assert not silent, f"wrong and unmarked at {silent[:5]} s"
    assert is_right
    assert not is_marked
    assert marked_s <= MARKED_S_MAX


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_type_that_alpaca_publishes_is_in_the_matrix(name: str) -> None:
    """Those of its OpenAPI files; where these are at hand, the lists above are what they say."""
    codes = PUBLISHED[name].split()
    assert [code for code in codes if code not in CODES] == ["FILL"]
    path = FOLDER / f"{name}.yaml"
    if path.exists():
        described = yaml.load(path.read_text(), yaml.CSafeLoader)["components"]
        published = [described["schemas"]["ActivityType"]]
        published += [described["parameters"]["ActivityType"]["schema"]] if name == "broker" else []
        assert sorted(codes) == sorted({code for one in published for code in one["enum"]})
