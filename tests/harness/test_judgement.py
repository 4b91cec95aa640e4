"""The judge of a run in motion: planted faults turn it red, and what is right or marked stays green."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest

from portfolio_harness.demo import Proof
from portfolio_harness.fault_trials import Trial
from portfolio_harness.judgement import PROPAGATION_S, Judge, held_back_s
from portfolio_harness.oracle import Truth
from portfolio_harness.trading_week import Week, WeekDay

MARKED = {"unconfirmed": {"since": "2026-11-20T15:04:05Z", "reason": "another amount", "by": {}}}


@dataclass
class Client:
    """One account with one position, as a client shows it."""

    account_id: str = "a"
    cash: str = "10.00"
    quantity: str = "2"
    mark: str = "100"
    marks: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def newest(self) -> dict[str, Any]:
        """Its newest message."""
        figures = {"cash": self.cash, "last_equity": "200.00", "external_cash_flow": "0.00"}
        return {**figures, "stale": [], "unpriced": [], **self.marks}

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Its rows."""
        return {"AAPL": {"symbol": "AAPL", "quantity": self.quantity, "mark": self.mark}}


def truth(cash: str = "10.00", quantity: str = "2", in_transit: tuple[str, ...] = ()) -> Truth:
    """The ledger's word."""
    figures = {"cash": cash, "last_equity": "200.00", "external_cash_flow": "0.00"}
    return Truth(figures, {}, {"AAPL": Decimal(quantity)}, in_transit)


def judged(
    see: Callable[[float, Client], Truth], *, marks: Callable[[float], list[list[str]]] | None = None
) -> Judge:
    """Ten minutes in which `see` moves the client and tells the truth, second by second."""
    judge, client = Judge(), Client()
    for second in range(600):
        told = see(float(second), client)
        newest = marks(float(second)) if marks else [["1", client.mark]]
        judge.look(float(second), {"a": told}, {"AAPL": newest}, [client])
    return judge


def test_a_right_value_that_moves_a_moment_after_the_ledger_is_right() -> None:
    """Each booking reaches the client a second later, while the next is made already."""

    def see(now_s: float, client: Client) -> Truth:
        client.cash = f"{max(0, int(now_s) - 1)}.00"
        return truth(f"{int(now_s)}.00")

    judge = judged(see)

    assert judge.is_clean
    assert judge.wrong_s == 1
    assert judge.looks == 600


@pytest.mark.parametrize("what", ["cash", "quantity"])
def test_a_record_that_stays_wrong_without_a_mark_is_blamed_once(what: str) -> None:
    """Whatever of it is wrong."""

    def see(now_s: float, client: Client) -> Truth:
        setattr(client, what, "7.00" if now_s >= 60 else {"cash": "10.00", "quantity": "2"}[what])
        return truth()

    judge = judged(see)

    assert not judge.is_clean
    assert (judge.wrong, judge.overmarked) == (1, 0)
    assert judge.wrong_s > PROPAGATION_S
    assert "wrong without a mark" in judge.complaints[0]


def test_a_record_that_is_wrong_and_marked_is_not_blamed() -> None:
    """Until the mark goes: from then on the time counts."""

    def see(now_s: float, client: Client) -> Truth:
        client.cash = "7.00" if now_s >= 60 else "10.00"
        client.marks = MARKED if 60 <= now_s < 120 else {}
        return truth("7.00") if now_s >= 123 else truth()

    judge = judged(see)

    assert judge.is_clean
    assert judge.wrong_s == 3


def test_a_right_record_that_stays_marked_is_blamed() -> None:
    """Longer than a statement takes."""

    def see(now_s: float, client: Client) -> Truth:
        client.marks = MARKED if now_s >= 60 else {}
        return truth()

    judge = judged(see)

    assert not judge.is_clean
    assert (judge.wrong, judge.overmarked) == (0, 1)
    assert "right and marked" in judge.complaints[0]


def test_a_price_that_stays_behind_the_market_without_a_mark_is_blamed() -> None:
    """A price is right as long as the market had it a moment ago, and excused while it is stale by name."""

    def see(now_s: float, client: Client) -> Truth:
        client.mark = str(100 + min(int(now_s), stops_at))
        client.marks = {"stale": stale}
        return truth()

    def market(now_s: float) -> list[list[str]]:
        return [[str(second), str(100 + second)] for second in range(max(0, int(now_s) - 3), int(now_s) + 1)]

    stops_at, stale = 600, []
    assert judged(see, marks=market).is_clean
    stops_at = 60
    blamed = judged(see, marks=market)
    assert blamed.wrong == 1
    assert blamed.price_wrong_s > PROPAGATION_S
    stale = ["AAPL"]
    assert judged(see, marks=market).is_clean


def test_a_price_between_two_looks_is_none_that_nobody_saw() -> None:
    """Each mark since the last look was right; where the market moved faster than that, nothing is blamed."""

    def see(now_s: float, client: Client) -> Truth:
        client.mark = str(int(now_s) * 10 - 5)  # never the present one
        return truth()

    between = judged(see, marks=lambda now_s: [[str(at), str(at)] for at in _tens(now_s, 20)])
    too_fast = judged(see, marks=lambda now_s: [[str(at), str(at)] for at in _tens(now_s, 1)])

    assert between.is_clean
    assert not between.unknown
    assert too_fast.is_clean
    assert too_fast.unknown == 599


def _tens(now_s: float, last: int) -> range:
    newest = int(now_s) * 10
    return range(newest - last + 1, newest + 1)


def test_between_the_bookings_of_a_split_the_account_as_it_was_is_right() -> None:
    """The group moves the account together."""

    def see(now_s: float, client: Client) -> Truth:
        client.quantity = "8" if now_s >= 120 else "2"
        if now_s < 60:
            return truth()
        return truth("10.00", "8") if now_s >= 120 else Truth(truth().figures, {}, {}, ("AAPL",))

    assert judged(see).is_clean


def test_what_a_plan_holds_back_is_allowed_for() -> None:
    """Late events and a broker that does not answer; a bust in the ledger is told at once."""
    plan = {
        "faults": [
            {"kind": "events.reorder", "for_s": 2.0, "level": 4.0},
            {"kind": "rest.lag", "for_s": 1.5, "level": 30.0},
            {"kind": "ledger.bust", "for_s": 0.0, "level": 7.0},
        ]
    }

    assert held_back_s(plan) == 7.5


@pytest.mark.parametrize("what", ["wrong", "overmarked"])
def test_what_the_judge_blames_turns_every_proof_red(what: str) -> None:
    """Demo, fault trial and week; and so does a judge that never looked."""
    proof = Proof(
        *(1, 1, 0, 0), wrong=0, overmarked=0, wrong_s=0.0, price_wrong_s=0.0, right_marked_s=0.0, looks=9,
        regressions=0, gaps=0, leaks=0, unpriced=0, messages=9, trades=9, duration_s=1.0, converged_s=0.1,
        seed=7, differing={},
    )  # fmt: skip
    trial = Trial(1, (), 0.1, 0, 0, 0, 0, 0, 1.0, 1, looks=9)
    week = Week("2026-11-23", 7, [WeekDay("2026-11-23", "full", "2026-11-23")], looks=9)

    for held in (proof, trial, week):
        assert held.is_clean
        assert not replace(held, **{what: 1}).is_clean
        assert not replace(held, looks=0).is_clean
