"""The ledger: exact, replayable, and equal to a recomputation that shares nothing with it."""

import random
from dataclasses import FrozenInstanceError
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpaca_sim.control.routes import truth_json
from alpaca_sim.core.clock import SECOND_NS, new_york, rfc3339
from alpaca_sim.core.decimals import text, to_cents
from alpaca_sim.core.ledger import Activity
from alpaca_sim.simulator import Simulator
from tests.alpaca_sim.conftest import Start, quiet
from tests.support.clocks import SetClock

SYMBOLS = ["AAPL", "MSFT", "SPY", "BTC/USD"]
quantities = st.decimals("-5000", "5000", places=9).filter(bool)
prices = st.decimals("0.0001", "99999", places=4)
amounts = st.decimals("-100000", "100000", places=2)
trades = st.tuples(st.just("TRD"), st.sampled_from(SYMBOLS), quantities, prices)
flows = st.tuples(
    st.sampled_from(["CSD", "CSW", "JNLC", "FEE", "DIV"]), st.just(""), amounts, st.just(Decimal(0))
)


def make_sim(**options: Any) -> Simulator:
    """A quiet simulator on a clock that stands still."""
    return Simulator(quiet(symbol_count=60, **options), SetClock())


def recompute(
    sim: Simulator, account_id: str, happened: list[Activity]
) -> tuple[Fraction, Fraction, Fraction]:
    """Equity, cash and external cash flow from the opening state and the activities, in fractions."""
    account = sim.ledger.accounts[account_id]
    cash = Fraction(account.opening.cash)
    flow = Fraction(0)
    held = {symbol: Fraction(position.quantity) for symbol, position in account.opening.positions.items()}
    for activity in happened:
        cash += Fraction(activity.net_amount)
        if activity.activity_type in ("CSD", "CSW", "JNLC"):
            flow += Fraction(activity.net_amount)
        if activity.activity_type == "TRD":
            held[activity.symbol] = held.get(activity.symbol, Fraction(0)) + Fraction(activity.quantity)
    equity = cash
    for symbol, quantity in held.items():
        contract = 100 if len(symbol) > 12 else 1
        equity += quantity * contract * Fraction(sim.market.mark(symbol))
    return equity, cash, flow


@settings(max_examples=60, deadline=None)
@given(
    happened=st.lists(st.one_of(trades, flows), max_size=25),
    marks=st.lists(st.tuples(st.sampled_from(SYMBOLS), prices), max_size=10),
)
def test_truth_is_the_opening_state_plus_the_activities(
    happened: list[tuple[str, str, Decimal, Decimal]], marks: list[tuple[str, Decimal]]
) -> None:
    """Whatever happens, to the last decimal; positions of zero are gone."""
    sim = make_sim()
    account_id = next(iter(sim.ledger.accounts))
    for kind, symbol, amount, price in happened:
        if kind == "TRD":
            sim.trader.trade(account_id, symbol, amount, price)
        else:
            sim.trader.move_cash(account_id, kind, amount)
    for symbol, price in marks:
        assert sim.market.print_trade(symbol, price, Decimal(1), (" ",) if symbol == "SPY" else ("@",))
    truth = sim.ledger.truth(account_id, sim.clock.stamp_ns())
    account = sim.ledger.accounts[account_id]
    equity, cash, flow = recompute(sim, account_id, account.activities)
    assert (Fraction(truth.equity), Fraction(truth.cash)) == (equity, cash)
    assert Fraction(truth.external_cash_flow) == flow
    assert Fraction(truth.day_pnl) == equity - Fraction(account.last_equity) - flow
    assert all(position.quantity for position in truth.positions)


def test_a_replay_of_the_activities_gives_the_present_state() -> None:
    """Opening state plus all activities is the current state, cost basis included."""
    sim = make_sim(account_count=40)
    for account_id in sim.ledger.accounts:
        for _ in range(30):
            sim.trader.act(account_id)
    for account in sim.ledger.accounts.values():
        replayed = account.opening.copy()
        for activity in account.activities:
            replayed.book_activity(activity)
        assert replayed == account.current


def test_truth_at_a_past_moment_is_what_was_true_then() -> None:
    """State, marks and flows of then, while everything has moved on since."""
    sim = make_sim()
    clock = sim.clock
    assert isinstance(clock, SetClock)
    account_id = next(iter(sim.ledger.accounts))
    recorded: list[tuple[int, dict[str, object]]] = []
    rng = random.Random(7)
    for _ in range(40):
        clock.at_ns += SECOND_NS
        sim.trader.act(account_id)
        sim.market.print_trade(
            rng.choice(SYMBOLS[:2]), Decimal(rng.randint(100, 30_000)) / 100, Decimal(1), ("@",)
        )
        at_ns = clock.stamp_ns()
        recorded.append((at_ns, truth_json(sim.ledger.truth(account_id, at_ns))))
    for at_ns, then in recorded:
        assert truth_json(sim.ledger.truth(account_id, at_ns, past=True)) == then
    with pytest.raises(LookupError):
        sim.ledger.truth(account_id, 1, past=True)


def test_a_past_moment_includes_what_was_booked_at_it() -> None:
    """At the stamp of a booking it is in, a nanosecond before it is not."""
    sim = make_sim()
    account = next(iter(sim.ledger.accounts.values()))
    booked = [sim.trader.move_cash(account.account_id, "CSD", Decimal(100)) for _ in range(3)]
    opening = account.opening.cash
    assert account.holdings(booked[1].at_ns).cash == opening + 200
    assert account.holdings(booked[1].at_ns - 1).cash == opening + 100
    assert account.holdings(booked[0].at_ns - 1).cash == opening


def test_a_trade_books_cents_and_a_fraction_keeps_its_nine_decimals() -> None:
    """0.04 × 480.338 costs 19.21, as in Alpaca's own example; the mark values the rest exactly."""
    sim = make_sim()
    account = next(iter(sim.ledger.accounts.values()))
    before = account.current.cash
    activity = sim.trader.trade(account.account_id, "MSFT", Decimal("0.04"), Decimal("480.338"))
    assert activity.net_amount == Decimal("-19.21")
    assert account.current.cash == before - Decimal("19.21")


def test_an_option_counts_a_hundred_times() -> None:
    """One contract at 9.30 costs 930 dollars."""
    sim = make_sim()
    account_id = next(iter(sim.ledger.accounts))
    contract = next(s for s, state in sim.market.symbols.items() if state.listing.asset_class == "us_option")
    assert sim.trader.trade(account_id, contract, Decimal(1), Decimal("9.3")).net_amount == Decimal(-930)


@pytest.mark.parametrize(
    ("legs", "quantity", "cost_basis"),
    [
        ([("10", "100"), ("10", "200")], "20", "3000"),
        ([("10", "100"), ("-4", "500")], "6", "600"),
        ([("10", "100"), ("-15", "120")], "-5", "-600"),
        ([("-10", "50"), ("-10", "70")], "-20", "-1200"),
        ([("-10", "50"), ("4", "10")], "-6", "-300"),
        ([("-10", "50"), ("25", "60")], "15", "900"),
        ([("10", "100"), ("-10", "120")], None, None),
    ],
)
def test_cost_basis_is_a_weighted_average(
    legs: list[tuple[str, str]], quantity: str | None, cost_basis: str | None
) -> None:
    """Adding averages, reducing keeps the average, crossing zero starts again, zero is gone."""
    sim = make_sim()
    made = sim.ledger.accounts[next(iter(sim.ledger.accounts))]
    made.current.positions.clear()
    for leg_quantity, price in legs:
        sim.trader.trade(made.account_id, "AAPL", Decimal(leg_quantity), Decimal(price))
    position = made.current.positions.get("AAPL")
    if quantity is None or cost_basis is None:
        assert position is None
    else:
        assert position is not None
        assert (position.quantity, position.cost_basis) == (Decimal(quantity), Decimal(cost_basis))


def test_accounts_begin_with_a_last_equity_that_adds_up() -> None:
    """Exactly the opening cash plus the opening positions at their previous closes."""
    sim = make_sim(account_count=300)
    kinds: set[str] = set()
    for account in sim.ledger.accounts.values():
        value = Fraction(account.opening.cash)
        for symbol, position in account.opening.positions.items():
            listing = sim.market.listing(symbol)
            value += (
                Fraction(position.quantity) * Fraction(listing.multiplier) * Fraction(listing.previous_close)
            )
            kinds.add(listing.asset_class + ("" if position.quantity > 0 else " short"))
        assert Fraction(account.last_equity) == value
    assert kinds >= {"us_equity", "us_equity short", "crypto", "us_option"}
    assert any(account.opening.cash < 0 for account in sim.ledger.accounts.values())
    shorts = [
        a for a in sim.ledger.accounts.values() if any(p.quantity < 0 for p in a.opening.positions.values())
    ]
    assert 0.05 < len(shorts) / 300 < 0.35


def test_what_happened_since_the_last_close_is_in_the_state_and_in_the_record() -> None:
    """Start-up bookings lie after 16:00 New York of the balance date, and in the past."""
    sim = make_sim(account_count=100, has_history=True)
    now_ns = sim.clock.now_ns()
    assert sim.ledger.activities
    for activity in sim.ledger.activities:
        at = new_york(activity.at_ns)
        assert activity.at_ns < now_ns
        assert at.date() > sim.balance_date or (at.date() == sim.balance_date and at.hour >= 16), rfc3339(
            activity.at_ns
        )
    changed = [a for a in sim.ledger.accounts.values() if a.current != a.opening]
    assert 0.15 < len(changed) / 100 < 0.5


def test_activities_never_change() -> None:
    """A booking is a fact."""
    sim = make_sim()
    activity = sim.trader.act(next(iter(sim.ledger.accounts)))
    with pytest.raises(FrozenInstanceError):
        activity.net_amount = Decimal(0)  # pyright: ignore[reportAttributeAccessIssue] - that is the point


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=12))
def test_text_is_plain_and_exact(number: Decimal) -> None:
    """No exponent, no trailing zero, the same number."""
    written = text(number)
    assert Decimal(written) == number
    assert "E" not in written and not (written.endswith("0") and "." in written) and written != "-0"


def test_cents_round_half_away_from_zero() -> None:
    """As stated in its docstring."""
    assert [to_cents(Decimal(number)) for number in ("0.005", "-0.005", "0.0049", "2.675")] == [
        Decimal("0.01"),
        Decimal("-0.01"),
        Decimal("0.00"),
        Decimal("2.68"),
    ]


async def test_all_truths_are_of_one_instant_and_match_rest(start: Start) -> None:
    """The control endpoint, the single truth and the broker's own balance agree exactly."""
    running = await start(account_count=25, symbol_count=60)
    for account_id in running.account_ids:
        running.sim.trader.act(account_id)
    everything = await running.get("/_sim/truth")
    assert list(everything["accounts"]) == running.account_ids
    for account_id, truth in everything["accounts"].items():
        assert truth["as_of"] == everything["as_of"]
        balance = await running.get(f"/v1/trading/accounts/{account_id}/account")
        assert (truth["equity"], truth["cash"]) == (balance["equity"], balance["cash"])
        assert truth["last_equity"] == balance["last_equity"]
        alone = await running.get(f"/_sim/accounts/{account_id}")
        assert {**alone, "as_of": ""} == {**truth, "as_of": ""}
    two = await running.get("/_sim/truth", ids=",".join(running.account_ids[:2]))
    assert list(two["accounts"]) == running.account_ids[:2]
