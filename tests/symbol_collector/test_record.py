"""One account's record follows events and statements to the truth, and never counts anything twice."""

from decimal import Decimal

import pytest

from portfolio_realtime.symbol_collector.records.account_record import AccountRecord, Outcome
from tests.support.account_records import known, leg, look, quantities, shown
from tests.symbol_collector.bookings import at_s, booking, statement, trade


def test_events_move_the_record_without_rest() -> None:
    """A purchase, a sale and a deposit change cash, quantities and the day's sums."""
    record = known("1000", {"AAPL": "4"})

    record.apply_activity(trade("AAPL", 2, "10.015"), at_s(0))
    record.apply_activity(trade("MSFT", -3, "20", at=1), at_s(1))
    record.apply_activity(booking("CSD", "500.50", at=2), at_s(2))

    account = shown(record)
    assert Decimal("1540.47") == account.cash
    assert {"AAPL": Decimal(6), "MSFT": Decimal(-3)} == quantities(record)
    assert Decimal("500.50") == account.external_cash_flow
    apple, microsoft = account.positions
    assert (Decimal(2), Decimal("20.030")) == (apple.day_quantity, apple.day_cost)
    assert (Decimal(-3), Decimal(-60)) == (microsoft.day_quantity, microsoft.day_cost)


def test_a_repeat_changes_nothing() -> None:
    """Events come at least once; `ref_id` tells a repeat, whatever its event id."""
    record = known()
    deposit = booking("CSD", 500)

    assert record.apply_activity(deposit, at_s(0))
    assert not record.apply_activity(booking("CSD", 500, ref_id=deposit.ref_id), at_s(1))
    assert Decimal(1500) == shown(record).cash


def test_cost_basis_is_the_weighted_average() -> None:
    """What is added costs its price, what is reduced takes its share, what turns over starts again."""
    record = known("1000", {"AAPL": "4"})  # cost 40

    def cost_after(quantity: int, price: int) -> Decimal:
        record.apply_activity(trade("AAPL", quantity, price), at_s(0))
        return next(p.cost_basis for p in shown(record).positions if p.symbol == "AAPL")

    assert Decimal(100) == cost_after(4, 15)
    assert Decimal(75) == cost_after(-2, 99)
    assert Decimal(-60) == cost_after(-9, 20)
    assert Decimal(-40) == cost_after(1, 99)


def test_a_position_closed_since_the_cut_off_stays_with_quantity_zero() -> None:
    """Its realised day P&L is still to be shown; the roll removes it."""
    record = known("1000", {"AAPL": "4"})
    record.apply_activity(trade("AAPL", -4, 12), at_s(0))

    (closed,) = shown(record).positions
    assert (Decimal(0), Decimal(-4), Decimal(-48)) == (closed.quantity, closed.day_quantity, closed.day_cost)

    record.observe(statement(1048, {}, balance_asof="2026-11-20"), at_s(50_000), at_s(50_001))
    assert shown(record).positions == ()


def test_the_roll_begins_the_sums_anew_with_what_came_after_the_cut_off() -> None:
    """A deposit before 16:00 belongs to the day that ended, one after it to the day that began."""
    record = known()
    record.apply_activity(booking("CSD", 100, at=0), at_s(0))  # 10:00 New York
    record.apply_activity(booking("CSD", 7, at=8 * 3600), at_s(8 * 3600))  # 18:00

    rolled = statement(1107, balance_asof="2026-11-20", last_equity=1100)
    assert Decimal(107) == shown(record).external_cash_flow
    assert look(record, rolled, 12 * 3600) is Outcome.CONFIRMED

    account = shown(record)
    assert (Decimal(7), Decimal(1100)) == (account.external_cash_flow, account.last_equity)
    assert account.balance_asof == "2026-11-20"


def test_bookings_too_old_to_come_again_are_forgotten_at_the_roll() -> None:
    """Memory does not grow with the days; what may still be repeated is still known."""
    record = known()
    old, recent = booking("CSD", 1, at=0), booking("CSD", 2, at=2 * 86_400)
    record.apply_activity(old, at_s(0))
    record.apply_activity(recent, at_s(2 * 86_400))

    look(record, statement(1003, balance_asof="2026-11-22"), 3 * 86_400)

    assert [one.ref_id for one in record._booked] == [recent.ref_id]
    assert not record.apply_activity(recent, at_s(3 * 86_400 + 1))


def test_an_older_day_does_not_come_back() -> None:
    """A statement that was on its way across the roll does not undo it."""
    record = known()
    look(record, statement(1000, balance_asof="2026-11-20", last_equity=5), 100)
    look(record, statement(1000, balance_asof="2026-11-19", last_equity=4), 101)

    assert ("2026-11-20", Decimal(5)) == (shown(record).balance_asof, shown(record).last_equity)


def test_rest_behind_the_events_does_not_step_back() -> None:
    """REST may trail: an earlier state of ours is no news, however often it is stated."""
    record = known("1000", {"AAPL": "4"})
    record.apply_activity(trade("AAPL", 1, 10), at_s(0))
    record.apply_activity(booking("CSD", 5, at=1), at_s(1))

    for at, seen in (
        (2, statement(1000, {"AAPL": 4})),
        (5, statement(990, {"AAPL": 4})),
        (9, statement(990)),
    ):
        expected = Outcome.LATE if seen.holdings else Outcome.DIFFERENT
        assert look(record, seen, at) is expected

    assert (Decimal(995), {"AAPL": Decimal(5)}) == (shown(record).cash, quantities(record))


def test_rest_ahead_of_the_events_is_confirmed_when_they_arrive() -> None:
    """A statement may contain a booking whose event is still on its way: it is not counted twice."""
    record = known()
    assert look(record, statement(1500), 1) is Outcome.DIFFERENT
    assert record.look_again_ns == at_s(3.1)
    assert Decimal(1000) == shown(record).cash

    record.apply_activity(booking("CSD", 500, at=0.9), at_s(2))

    assert (Decimal(1500), None) == (shown(record).cash, record.look_again_ns)
    assert look(record, statement(1500), 10) is Outcome.CONFIRMED


def test_what_rest_states_twice_in_quiet_wins() -> None:
    """We have missed something: the record is replaced, and says so."""
    record = known("1000", {"AAPL": "4"})
    corrected = statement(900, {"AAPL": 5})

    assert look(record, corrected, 1) is Outcome.DIFFERENT
    assert look(record, corrected, 2) is Outcome.DIFFERENT
    assert look(record, corrected, 4) is Outcome.DRIFT
    assert (Decimal(900), {"AAPL": Decimal(5)}) == (shown(record).cash, quantities(record))
    assert record.look_again_ns is None


def test_an_event_in_between_starts_the_patience_anew() -> None:
    """Two equal statements around an event prove nothing."""
    record = known()
    assert look(record, statement(900), 1) is Outcome.DIFFERENT
    record.apply_activity(booking("CSD", 1, at=2), at_s(2))
    assert look(record, statement(900), 4) is Outcome.DIFFERENT
    assert Decimal(1001) == shown(record).cash


def test_an_event_that_comes_after_drift_is_counted_as_a_flow_and_not_as_cash() -> None:
    """What we missed arrives late: it is in the cash already, but the day's flow did not know it."""
    record = known()
    for at in (10, 13):
        outcome = look(record, statement(1500), at)
    assert outcome is Outcome.DRIFT  # pyright: ignore[reportPossiblyUnboundVariable]  # the loop runs twice

    record.apply_activity(booking("CSD", 500, at=1), at_s(20))
    assert (Decimal(1500), Decimal(500)) == (shown(record).cash, shown(record).external_cash_flow)

    record.apply_activity(booking("CSD", 3, at=12), at_s(21))  # around the statement: nobody can tell
    assert Decimal(1500) == shown(record).cash
    assert look(record, statement(1500), 24) is Outcome.CONFIRMED
    assert (Decimal(1500), Decimal(503)) == (shown(record).cash, shown(record).external_cash_flow)


@pytest.mark.parametrize(("is_inside", "cash"), [(True, 1000), (False, 1500)])
def test_a_booking_around_the_first_statement_waits_for_the_next(is_inside: bool, cash: int) -> None:
    """Published while the first statement was fetched, it may be inside or not: REST decides."""
    record = AccountRecord("alice")
    record.apply_activity(booking("CSD", 500, at=0.05), at_s(0.2))
    record.observe(statement(1000), at_s(0), at_s(0.1))

    assert (Decimal(1000), Decimal(0)) == (shown(record).cash, shown(record).external_cash_flow)
    assert shown(record).unvalued == ("cash",), "or else a deposit that is inside would look like a gain"
    assert record.look_again_ns == at_s(2.1)

    seen = statement(1000 if is_inside else 1500)
    assert look(record, seen, 3) is (Outcome.LATE if is_inside else Outcome.CONFIRMED), "REST may trail"
    assert look(record, seen, 6) is Outcome.CONFIRMED
    assert (Decimal(cash), Decimal(500)) == (shown(record).cash, shown(record).external_cash_flow)
    assert shown(record).unvalued == ()


def test_a_first_statement_taken_in_the_middle_of_a_trade_is_put_right() -> None:
    """The balance was read before a purchase, the positions after it: the next statement is whole."""
    record = AccountRecord("alice")
    record.observe(statement(1000, {"AAPL": 1}), at_s(0), at_s(0.1))
    record.apply_activity(trade("AAPL", 1, 10, at=0.05), at_s(0.2))

    assert look(record, statement(990, {"AAPL": 1}), 6) is Outcome.CONFIRMED
    assert (Decimal(990), {"AAPL": Decimal(1)}) == (shown(record).cash, quantities(record))
    assert shown(record).positions[0].day_quantity == 1


def test_a_correction_takes_back_what_it_corrects() -> None:
    """Reverse the earlier booking, then apply this one; a bust only reverses."""
    record = known()
    first = trade("AAPL", 10, 5)
    record.apply_activity(first, at_s(0))
    second = trade("AAPL", 10, 6, at=1, previous_id=first.ref_id)
    record.apply_activity(second, at_s(1))

    assert (Decimal(940), {"AAPL": Decimal(10)}) == (shown(record).cash, quantities(record))
    assert Decimal(60) == shown(record).positions[0].day_cost

    record.apply_activity(trade("AAPL", 10, 6, at=2, previous_id=second.ref_id, is_void=True), at_s(2))
    assert (Decimal(1000), ()) == (shown(record).cash, shown(record).positions)
    assert record.look_again_ns is not None, "REST is asked to confirm a correction"


def test_a_correction_of_something_unknown_is_left_to_rest() -> None:
    """What it takes back is not known: nothing is guessed, and no statement that may trail decides."""
    record = known()
    record.apply_activity(booking("CSD", 70, previous_id="before our time"), at_s(0))

    assert Decimal(1000) == shown(record).cash
    assert record.look_again_ns == at_s(0)
    assert look(record, statement(1020), 0.05) is Outcome.DIFFERENT
    assert record.look_again_ns == at_s(2.15), "what is asked before it can decide waits for quiet"
    assert look(record, statement(1020), 2.15) is Outcome.DIFFERENT
    assert Decimal(1000) == shown(record).cash
    assert shown(record).unconfirmed is not None
    assert look(record, statement(1020), 5.1) is Outcome.CORRECTED
    assert (Decimal(1020), Decimal(20)) == (shown(record).cash, shown(record).external_cash_flow)
    assert record.look_again_ns is not None
    assert look(record, statement(1020), 7.2) is Outcome.CONFIRMED
    assert record.look_again_ns is None
    assert (Decimal(1020), Decimal(20)) == (shown(record).cash, shown(record).external_cash_flow)


def test_a_correction_that_is_told_late_is_decided_by_two_statements_at_once() -> None:
    """It is so old that each statement shows it: the second one need not wait for quiet."""
    record = known()
    look(record, statement(1000), 9)
    correction = booking("CSD", 70, at=6, previous_id="before our time")
    record.apply_activity(correction, at_s(12))
    assert look(record, statement(1020), 12.05) is Outcome.DIFFERENT
    assert record.look_again_ns == at_s(12.15)
    assert look(record, statement(1020), 12.25) is Outcome.CORRECTED
    assert record.look_again_ns == at_s(14.35), "what was read in haste is confirmed in quiet"


def test_a_statement_older_than_a_correction_decides_nothing() -> None:
    """REST trails by three seconds, and then the positions trail the balance: no state is believed that
    never was."""
    record = known("1000", {"AAPL": "10"})
    record.apply_activity(trade("AAPL", 10, 5, previous_id="before our time", is_void=True), at_s(0))

    assert look(record, statement(1000, {"AAPL": 10}), 0) is Outcome.LATE
    assert look(record, statement(1000, {"AAPL": 10}), 2.1) is Outcome.LATE
    assert look(record, statement(1050, {"AAPL": 10}), 4.2) is Outcome.DIFFERENT
    assert look(record, statement(1050), 4.4) is Outcome.DIFFERENT
    assert {"AAPL": Decimal(10)} == quantities(record)
    assert record.look_again_ns == at_s(6.5), "nothing that was asked so far can decide"
    assert look(record, statement(1050), 6.5) is Outcome.CORRECTED
    assert (Decimal(1050), {}) == (shown(record).cash, quantities(record))


@pytest.mark.parametrize(("is_void", "cash", "held"), [(True, 1050, 0), (False, 990, 10)])
def test_what_an_unknown_trade_was_is_what_its_correction_changes(
    is_void: bool, cash: int, held: int
) -> None:
    """Bought 10 at 5 days ago; busted, or corrected to 6: the day's sums contain the change and no more."""
    record = known("1000", {"AAPL": "10"})
    record.apply_activity(trade("AAPL", 10, 6, previous_id="before our time", is_void=is_void), at_s(0))
    seen = statement(cash, {"AAPL": held} if held else {})
    assert [look(record, seen, at) for at in (0.1, 5.1)] == [Outcome.DIFFERENT, Outcome.CORRECTED]

    (position,) = shown(record).positions
    assert (position.quantity, position.day_quantity) == (Decimal(held), Decimal(held - 10))
    assert position.day_cost == Decimal(1000 - cash)
    assert position.is_day_cost_known


def test_many_corrections_do_not_ask_without_end() -> None:
    """After a look out of turn the next ones wait for quiet."""
    record = known()
    for number in range(10):
        record.apply_activity(booking("CSD", 7, previous_id=f"old-{number}"), at_s(0.1 * number))
        if record.look_again_ns == at_s(0.1 * number):
            look(record, statement(1000 + number), 0.1 * number)
    looked_again = record.look_again_ns
    assert looked_again is not None
    assert looked_again > at_s(2)


def test_an_unknown_type_is_applied_and_confirmed() -> None:
    """Cash moves by what it says, and REST is asked."""
    record = known()
    record.apply_activity(booking("NEWTYPE", "-3.33"), at_s(0))

    assert Decimal("996.67") == shown(record).cash
    assert record.look_again_ns is not None


def test_money_never_rounds() -> None:
    """More digits than the default context keeps."""
    record = known("123456789012345678.12345678901234", {"AAPL": "1"})
    record.apply_activity(booking("CSD", "0.00000000000001"), at_s(0))

    assert Decimal("123456789012345678.12345678901235") == shown(record).cash


def test_rest_that_trails_for_a_minute_is_right() -> None:
    """An earlier state of ours, unmoved for that long without events, means that we are wrong."""
    record = known()
    record.apply_activity(booking("CSD", 5), at_s(0))

    assert look(record, statement(1000), 10) is Outcome.LATE
    assert look(record, statement(1000), 60) is Outcome.LATE
    assert look(record, statement(1000), 75) is Outcome.DRIFT
    assert Decimal(1000) == shown(record).cash


@pytest.mark.parametrize(("first", "second"), [(-10, 20), (20, -10)])
def test_the_legs_of_a_split_move_the_record_together(first: int, second: int) -> None:
    """Between them nothing has changed; after both, the pieces have and their cost has not."""
    record = known(quantities={"AAPL": "10"})

    record.apply_activity(leg(first, at=10), at_s(10))
    assert quantities(record) == {"AAPL": Decimal(10)}
    record.apply_activity(leg(second, at=11), at_s(11))

    assert quantities(record) == {"AAPL": Decimal(20)}
    assert Decimal(100) == shown(record).positions[0].cost_basis


def test_a_statement_from_between_two_legs_decides_nothing() -> None:
    """REST says that the shares are gone; their successors are on the way, and a loss would be invented."""
    record = known(quantities={"AAPL": "10"})
    record.apply_activity(leg(-10, at=10), at_s(10))

    assert look(record, statement(1000), at=20) is Outcome.LATE
    assert quantities(record) == {"AAPL": Decimal(10)}

    record.apply_activity(leg(20, at=40), at_s(40))
    assert quantities(record) == {"AAPL": Decimal(20)}
    assert look(record, statement(1000, {"AAPL": 20}), at=50) is Outcome.CONFIRMED


def test_a_leg_that_stays_alone_is_decided_by_the_first_statement_after_a_minute() -> None:
    """REST still says that the shares are gone: then they are, and nothing waits any more."""
    record = known(quantities={"AAPL": "10"})

    record.apply_activity(leg(-10, at=10), at_s(10))
    assert quantities(record) == {"AAPL": Decimal(10)}
    assert record.look_again_ns is not None

    assert look(record, statement(1000), at=69) is Outcome.LATE
    assert look(record, statement(1000), at=71) is Outcome.CONFIRMED
    assert [Decimal(0)] == [position.quantity for position in shown(record).positions]
    assert record.look_again_ns is None


def test_a_leg_of_no_group_marks_the_account_until_a_statement() -> None:
    record = known(quantities={"AAPL": "10"})
    record.apply_activity(booking("MA", symbol="AAPL", quantity=Decimal(-10), at=10), at_s(10))
    assert shown(record).unconfirmed is not None

    record.apply_activity(booking("MA", 1050, at=11), at_s(11))
    assert shown(record).unconfirmed is not None
    assert record.look_again_ns is not None
    assert look(record, statement(2050), at=20) is Outcome.CONFIRMED
    assert shown(record).unconfirmed is None


def test_an_old_mark_stays_unusable_when_the_day_rolls() -> None:
    """A symbol may not trade for days after its split; the roll does not make its old price a new one."""
    record = known(quantities={"AAPL": "10"})
    for quantity, at in ((-10, 10), (20, 11)):
        record.apply_activity(leg(quantity, at=at), at_s(at))
    since_ns = shown(record).positions[0].marks_from_ns

    look(record, statement(1000, {"AAPL": 20}, balance_asof="2026-11-20"), at=40_000)

    assert shown(record).balance_asof == "2026-11-20"
    assert shown(record).positions[0].marks_from_ns == since_ns > 0


def test_securities_without_a_price_are_looked_up_soon() -> None:
    """Only REST knows what they have cost."""
    record = known()
    assert record.look_again_ns is None

    record.apply_activity(booking("ACATS", at=10, symbol="KO", quantity=Decimal(20)), at_s(10))

    assert record.look_again_ns is not None


def test_a_memo_that_is_cash_is_a_flow_and_goes_with_its_reversal() -> None:
    """Instant funding: the credit counts at once, and the final deposit replaces it."""
    record = AccountRecord("alice")
    record.observe(statement("1000", last_cash="1000"), at_s(-100), at_s(-99))

    record.apply_activity(booking("MEM", 500), at_s(0))
    look(record, statement("1500", last_cash="1000"), 10)
    assert (shown(record).cash, shown(record).external_cash_flow) == (1500, 500)

    record.apply_activity(booking("MEM", -500, at=20), at_s(20))
    record.apply_activity(booking("CSD", 500, at=20), at_s(20))
    look(record, statement("1500", last_cash="1000"), 30)
    assert (shown(record).cash, shown(record).external_cash_flow) == (1500, 500)


def test_a_memo_that_is_no_cash_is_no_flow_either() -> None:
    """REST does not count it: nor do we, and from then on no memo moves the record even for a moment."""
    record = AccountRecord("alice")
    record.observe(statement("1000", last_cash="1000"), at_s(-100), at_s(-99))
    without = statement("1000", last_cash="1000")

    record.apply_activity(booking("MEM", 500), at_s(0))
    assert record.look_again_ns is not None, "it is looked at soon"
    assert [look(record, without, at) for at in (3, 70)] == [Outcome.LATE, Outcome.DRIFT]
    assert (shown(record).cash, shown(record).external_cash_flow) == (1000, 0)

    record.apply_activity(booking("MEM", -500, at=80), at_s(80))
    record.apply_activity(booking("CSD", 500, at=80), at_s(80))
    assert (shown(record).cash, shown(record).external_cash_flow) == (1500, 500)
    assert [one.cash for one in record.bookings(1).bookings] == [500]


@pytest.mark.parametrize(("cash", "flow"), [("1500", 500), ("1000", 0)])
def test_a_memo_before_the_first_statement_is_decided_by_the_day_s_sum(cash: str, flow: int) -> None:
    """A collector that starts in the middle of the day sees the memo only in the history."""
    record = AccountRecord("alice")
    record.apply_activity(booking("MEM", 500, at=-1000), at_s(-1))

    record.observe(statement(cash, last_cash="1000"), at_s(0), at_s(0.1))

    assert (shown(record).cash, shown(record).external_cash_flow) == (Decimal(cash), flow)


def test_an_account_that_is_never_quiet_is_asked_as_soon_as_an_answer_decides() -> None:
    """A booking from just before the first statement is in an answer to what is asked 5 s after it."""
    record = AccountRecord("alice")
    record.apply_activity(booking("CSD", 500, at=9), at_s(9))
    look(record, statement(1500), 10)
    for second in (11, 12, 13, 14):
        record.apply_activity(booking("CSD", 1, at=second), at_s(second))
    assert shown(record).unconfirmed is not None
    assert record.look_again_ns == at_s(14.1)

    assert look(record, statement(1504), 14.1) is Outcome.CONFIRMED

    assert (shown(record).cash, shown(record).unconfirmed) == (1504, None)
    assert record.look_again_ns is None
