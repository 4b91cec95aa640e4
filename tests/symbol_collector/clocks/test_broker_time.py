"""The broker's clock: what its answers say of it, and records whose collector has a wrong clock."""

import asyncio

import pytest
from prometheus_client import Gauge
from structlog.testing import capture_logs

from portfolio_realtime.clock import NS_PER_S, SystemClock
from portfolio_realtime.symbol_collector import broker_time
from portfolio_realtime.symbol_collector.broker_time import BrokerTime, Moment, Span
from portfolio_realtime.symbol_collector.records.account_record import AccountRecord, Outcome
from tests.conftest import Until
from tests.symbol_collector.bookings import NOW_NS, at_s, booking, statement

WRONG_S = (-3600.0, -5.0, 5.0, 3600.0)


class Asker:
    """Makes statements at true times, which the broker's clock shows, for a record with a wrong clock."""

    def __init__(self, record: AccountRecord, ahead_s: float) -> None:
        self.record = record
        self._ahead_s = ahead_s
        self._broker_time = BrokerTime()

    def own_ns(self, true_s: float) -> int:
        """What the wrong clock shows."""
        return at_s(true_s + self._ahead_s)

    def observe(self, cash: int, true_s: float) -> Outcome:
        """A statement, requested at `true_s` and complete 0.1 s later."""
        began = Moment(self.own_ns(true_s), true_s)
        ended = Moment(self.own_ns(true_s + 0.1), true_s + 0.1)
        self._broker_time.learn(at_s(true_s) // NS_PER_S, began.monotonic_s, ended.monotonic_s)
        asked = self._broker_time.span(began, ended)
        return self.record.observe(statement(cash, {"AAPL": 4}), began.at_ns, ended.at_ns, asked)


@pytest.mark.parametrize("ahead_s", [0.0, *WRONG_S])
def test_a_booking_that_a_first_statement_lacks_is_found(ahead_s: float) -> None:
    """REST lags at a takeover. The booking is not taken for a part of the first statement."""
    record = AccountRecord("alice")
    asker = Asker(record, ahead_s)
    record.apply_activity(booking("CSD", 50, at=99.5), asker.own_ns(100))
    asker.observe(1000, 100.0)
    first = record.account(1, 0)
    assert first.cash == 1000
    assert first.unconfirmed is not None  # it is marked while nobody knows

    asker.observe(1050, 110.0)
    asker.observe(1050, 113.0)

    after = record.account(2, 0)
    assert (after.cash, after.unexplained, after.external_cash_flow) == (1050, {}, 50)


@pytest.mark.parametrize("ahead_s", [0.0, *WRONG_S])
def test_a_booking_that_a_first_statement_contains_counts_once(ahead_s: float) -> None:
    """Its event comes after the statement, in which it already is."""
    record = AccountRecord("alice")
    asker = Asker(record, ahead_s)
    asker.observe(1050, 100.0)
    record.apply_activity(booking("CSD", 50, at=99.5), asker.own_ns(100.5))

    assert record.account(1, 0).cash == 1050


def test_a_clock_that_agrees_is_taken_as_it_is() -> None:
    """Also before the first answer, and at both ends of what a `Date` of whole seconds permits."""
    for since_date_s in (0.0, 0.99):
        times = BrokerTime()
        moment = Moment(at_s(since_date_s), 7.0)
        span = Span(moment.at_ns, moment.at_ns, moment.at_ns)
        assert times.span(moment, moment) == span
        times.learn(NOW_NS / NS_PER_S, 7.0, 7.0)
        assert times.span(moment, moment) == span


def test_many_answers_tell_more_than_one() -> None:
    """A clock that is 0.6 s ahead agrees with one `Date`, and not with both of two."""
    times, moment = BrokerTime(), Moment(at_s(0.7), 7.0)  # the broker's clock: 0.1
    times.learn(NOW_NS / NS_PER_S, 7.0, 7.0)
    assert times.latest_ns(moment) == moment.at_ns == times.span(moment, moment).from_ns
    times.learn(NOW_NS / NS_PER_S, 7.8, 7.8)
    assert times.span(moment, moment).from_ns == at_s(0.0)
    assert times.latest_ns(moment) == moment.at_ns


def test_a_broker_whose_clock_was_set_is_measured_anew() -> None:
    """The newest answer counts, and our own clock is not believed alone."""
    times, moment = BrokerTime(), Moment(at_s(0.5), 7.0)
    times.learn(NOW_NS / NS_PER_S, 7.0, 7.0)
    times.learn(NOW_NS / NS_PER_S + 30, 7.0, 7.0)
    assert times.span(moment, moment) == Span(moment.at_ns, moment.at_ns, at_s(31))
    times.learn(NOW_NS / NS_PER_S, 7.0, 7.0)
    assert times.span(moment, moment) == Span(moment.at_ns, moment.at_ns, moment.at_ns)


def test_times_before_an_answer_are_known_by_it() -> None:
    """A wall clock that was set during the request is noticed: the monotonic clock is not."""
    times = BrokerTime()
    began, ended = Moment(at_s(5.0), 7.0), Moment(at_s(0.2), 7.2)
    times.learn(NOW_NS / NS_PER_S, 7.0, 7.2)
    assert times.span(began, ended).from_ns < at_s(0.5)


@pytest.mark.parametrize(("own_s", "ahead_s"), [(0.0, 0.0), (1.0, 0.0), (3.0, 2.0), (-3600.0, -3600.0)])
def test_our_clock_differs_by_what_lies_outside_the_bounds(own_s: float, ahead_s: float) -> None:
    """A `Date` of whole seconds allows for one second."""
    times = BrokerTime()
    assert times.difference_s(Moment(at_s(own_s), 7.0)) == 0, "nothing is known yet"
    times.learn(NOW_NS / NS_PER_S, 7.0, 7.0)
    assert times.difference_s(Moment(at_s(own_s), 7.0)) == pytest.approx(ahead_s)


async def test_a_difference_is_logged_once_and_its_end_once(
    monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """The gauge follows; a smaller difference than at the beginning ends it."""
    monkeypatch.setattr(broker_time, "LOOK_S", 0.0)
    gauge, looks = Gauge("difference", "", registry=None), 0
    differences_s = [0.0, 0.4, 0.6, 9.0, 0.4, 0.2, 0.4, -0.6, 0.0]

    class Times(BrokerTime):
        def difference_s(self, moment: Moment) -> float:
            nonlocal looks
            looks += 1
            return differences_s[min(looks, len(differences_s)) - 1]

    with capture_logs() as logs:
        telling = asyncio.create_task(broker_time.tell_difference(Times(), SystemClock(), gauge))
        await until(lambda: looks > len(differences_s), "all differences were looked at")
        telling.cancel()
    assert [line.get("ahead_s") for line in logs] == [0.6, None, -0.6, None]
