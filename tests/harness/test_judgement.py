"""The judge of a run in motion: planted faults turn it red, and what is right or marked stays green."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, cast

import pytest

from portfolio_harness.clients import Clients
from portfolio_harness.demo import Proof
from portfolio_harness.fault_trials import Trial
from portfolio_harness.judgement import PROPAGATION_S, Judge, held_back_s, judging
from portfolio_harness.oracle import FormerTruth, Oracle, Truth
from portfolio_harness.system import start_simulator
from portfolio_harness.trading_week import Week, WeekDay
from portfolio_realtime.processes import end_all

FAR_APART_S = 17.3  # two looks on a busy machine
SLOW_S = 1.0  # a look takes this long
MIRRORED_S = 0.02
STILL = ("--trades-per-second", "0", "--activities-per-second", "0", "--symbols", "30")
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


def ended(ended_s: float, cash: str = "10.00") -> FormerTruth:
    """What the ledger had before."""
    before = truth(cash)
    return FormerTruth("a", ended_s, before.figures, before.quantities)


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


@pytest.mark.parametrize(("changed_s", "is_clean"), [(17.0, True), (2.0, False)])
def test_a_record_is_wrong_from_its_change_on_however_far_apart_looks_are(
    changed_s: float, is_clean: bool
) -> None:
    """Not from the last look on, at which it was still right; and not only from this look on."""
    judge, client = Judge(), Client()
    judge.look(0.0, {"a": truth()}, {}, [client])
    judge.look(FAR_APART_S, {"a": truth("7.00")}, {}, [client], [ended(changed_s)])

    assert judge.is_clean == is_clean
    assert judge.wrong_s == pytest.approx(FAR_APART_S - changed_s)
    assert judge.apart_s == FAR_APART_S


def test_a_record_that_was_true_between_two_looks_is_right_for_a_moment_after() -> None:
    """Two bookings between two looks, and the client is at the first one of them."""
    judge, client = Judge(), Client()
    judge.look(0.0, {"a": truth()}, {}, [client])
    client.cash = "8.00"
    former = [ended(2.0), ended(16.0, cash="8.00")]
    judge.look(FAR_APART_S, {"a": truth("7.00")}, {}, [client], former)

    assert judge.is_clean
    assert judge.wrong_s == pytest.approx(1.3)


def test_a_record_that_ended_while_the_ledger_was_read_is_right() -> None:
    """What clients show was noted before."""
    judge, client = Judge(), Client()
    judge.look(0.0, {"a": truth()}, {}, [client])
    judge.look(10.0, {"a": truth("7.00")}, {}, [client], [ended(10.5)])

    assert judge.wrong_s == 0

    judge.look(11.0, {"a": truth("7.00")}, {}, [client], [ended(10.5)])

    assert judge.wrong_s == 0.5


def test_a_record_from_before_a_split_is_right_until_the_second_booking() -> None:
    """However far apart the looks are."""
    judge, client = Judge(), Client()
    judge.look(0.0, {"a": truth()}, {}, [client])
    former = [ended(1.0), replace(ended(16.0), quantities={}, is_in_transit=True)]
    judge.look(FAR_APART_S, {"a": truth("10.00", "8")}, {}, [client], former)

    assert judge.wrong_s == pytest.approx(1.3)


def test_nothing_is_blamed_where_the_ledger_has_forgotten_what_was_true() -> None:
    """The look counts as one without records."""
    judge, client = Judge(), Client()
    judge.look(0.0, {"a": truth()}, {}, [client])
    judge.look(FAR_APART_S, {"a": truth("7.00")}, {}, [client], None)

    assert (judge.wrong_s, judge.forgotten) == (0, 1)


class SlowOracle(Oracle):
    """The ledger of a busy machine: reading takes long, and a deposit is booked just before the answer."""

    async def truth(self) -> dict[str, Truth]:
        """Every account's figures, late."""
        await asyncio.sleep(SLOW_S)
        for account_id in await self.account_ids():
            await self.pull("cash", account_id=account_id, activity_type="CSD", amount="1.00")
        return await super().truth()


@dataclass
class Mirror:
    """One account, as the ledger has it or had it a moment ago."""

    account_id: str
    told: Truth

    @property
    def newest(self) -> dict[str, Any]:
        """Its newest message."""
        return {**self.told.figures, "stale": [], "unpriced": []}

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Its rows, without prices."""
        return {symbol: {"quantity": str(quantity)} for symbol, quantity in self.told.quantities.items()}


@dataclass
class Mirrors:
    """In place of the clients of a server."""

    all: list[Mirror]


async def test_a_slow_ledger_makes_nobody_wrong_and_looks_not_rare() -> None:
    """A client that shows each deposit at once is right, though a look takes long."""
    simulator, url = await start_simulator((*STILL, "--accounts", "1"))
    slow, oracle, judge = SlowOracle(url), Oracle(url), Judge()
    try:
        mirrors = Mirrors([Mirror(account_id, told) for account_id, told in (await oracle.truth()).items()])
        async with judging(judge, slow, cast("Clients", mirrors)):
            while judge.looks < 3:
                for account_id, told in (await oracle.truth()).items():
                    mirrors.all[0] = Mirror(account_id, told)
                await asyncio.sleep(MIRRORED_S)
    finally:
        await slow.close()
        await oracle.close()
        await end_all([simulator])

    assert judge.wrong_s < 3 * SLOW_S
    assert SLOW_S < judge.apart_s < 4 * SLOW_S


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
