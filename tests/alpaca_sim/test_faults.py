"""Fault plans as data: bounds, YAML, seeds, time. What each fault does is in the tests beside this one."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpaca_sim.control import fault_actions
from alpaca_sim.core import faults
from alpaca_sim.core.faults import KINDS, Fault, Faults, Plan, PlanError


def one(kind: str, **fields: Any) -> Faults:
    """A plan of one fault, just begun."""
    live = Faults()
    live.install(Plan((Fault(kind, **fields),)))
    live.step(0)
    return live


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), duration_s=st.floats(5, 600))
def test_the_same_seed_gives_the_same_plan_and_every_plan_can_be_written_and_read(
    seed: int, duration_s: float
) -> None:
    """Byte for byte; all faults are within their bounds and over in time."""
    made = faults.plan(seed, duration_s)
    assert faults.dump(made) == faults.dump(faults.plan(seed, duration_s))
    assert faults.load(faults.dump(made)) == made
    assert made.faults
    assert made.duration_s <= duration_s + 0.001
    assert [fault.at_s for fault in made.faults] == sorted(fault.at_s for fault in made.faults)


def test_seeds_differ_and_reach_every_kind() -> None:
    """A hundred plans have all kinds of faults in them."""
    plans = [faults.plan(seed, 60) for seed in range(100)]
    assert len({faults.dump(made) for made in plans}) == 100
    seeded = {name for name, kind in KINDS.items() if kind.is_seeded}
    assert {fault.kind for made in plans for fault in made.faults} == seeded
    assert set(KINDS) - seeded == {"odd.euro"}  # another currency is for good


def test_a_plan_can_have_a_given_number_of_faults() -> None:
    """From a seed; the number is part of what decides them."""
    made = faults.parse({"seed": 3, "duration_s": 60, "count": 4})
    assert len(made.faults) == 4 and made == faults.plan(3, 60, count=4)
    with pytest.raises(PlanError, match="count is -1: it must be from 1"):
        faults.plan(3, 60, count=-1)


def test_a_plan_can_be_kept_to_some_kinds() -> None:
    """From a seed, with the kinds named."""
    made = faults.parse({"seed": 3, "duration_s": 60, "kinds": ["market.cut", "rest.slow"]})
    assert {fault.kind for fault in made.faults} == {"market.cut", "rest.slow"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("faults: [{kind: market.mutee}]", "unknown fault kind 'market.mutee': choose from market.mute"),
        (
            "faults: [{kind: market.mute, for_s: -1}]",
            "for_s of market.mute is -1: it must be from 0.1 to 600",
        ),
        ("faults: [{kind: market.mute, for_s: 1000000}]", "must be from 0.1 to 600"),
        ("faults: [{kind: market.mute}]", "for_s of market.mute is 0"),
        ("faults: [{kind: market.cut, for_s: 3}]", "must be left out or 0"),
        (
            "faults: [{kind: rest.5xx, for_s: 3, level: 2}]",
            "level of rest.5xx is 2: it must be from 0.01 to 1",
        ),
        (
            "faults: [{kind: market.cut, target: broker}]",
            "cannot hit 'broker': choose its target from *, sip",
        ),
        ("faults: [{kind: market.cut, target: /v1/accounts}]", "cannot hit '/v1/accounts'"),
        ("faults: [{kind: market.cut, when: 3}]", "a fault has no when: write kind, at_s"),
        ("faults: [{kind: market.cut, at_s: soon}]", "at_s is 'soon': write a number"),
        ("faults: [market.cut]", "a fault is an object with a kind"),
        ("faults: {}", "a plan needs `faults`, a list"),
        ("- 3", "a plan is an object"),
        ("{seed: 1, fault: []}", "a plan has no fault"),
        ("{seed: a, faults: []}", "seed is 'a': write a whole number"),
        ("{seed: 1, duration_s: 0}", "duration_s is 0: it must be from 1"),
        ("{seed: 1, duration_s: 60, kinds: [x]}", "unknown fault kind 'x'"),
        ("[", "the plan is not YAML"),
    ],
)
def test_a_plan_that_cannot_be_used_says_what_to_write(body: str, words: str) -> None:
    """Each mistake in words."""
    with pytest.raises(PlanError) as refused:
        faults.load(body)
    assert words in str(refused.value)


def test_too_many_faults_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one plan, and waiting in all."""
    monkeypatch.setattr(faults, "PLAN_FAULTS_MAX", 2)
    row = {"kind": "market.cut", "at_s": 5}
    with pytest.raises(PlanError, match="at most 2 faults"):
        faults.parse({"faults": [row] * 3})
    live = Faults()
    live.install(faults.parse({"faults": [row] * 2}))
    with pytest.raises(PlanError, match="more than 2 faults would wait"):
        live.install(faults.parse({"faults": [row]}))


def test_faults_begin_and_end_in_time() -> None:
    """Nothing before its moment, nothing after its end, each change told once."""
    live = Faults()
    live.install(
        Plan((Fault("market.mute", 1, 2), Fault("market.cut", 2), Fault("market.mute", 2, 3, "sip")))
    )
    told = [(change.fault.at_s, change.begins) for change in _step_through(live, 6)]
    assert told == [(1, True), (2, True), (2, True), (1, False), (2, False)]
    assert live.done_count == 3 and not live.active and not live.waiting and live.remaining_s == 0


def _step_through(live: Faults, seconds: int) -> Iterator[faults.Change]:
    for _ in range(seconds * 4):
        yield from live.step(0.25)


def test_one_long_step_is_as_good_as_many_short_ones() -> None:
    """The same changes in the same order."""
    plan = faults.plan(3, 300)
    told: list[list[faults.Change]] = []
    for steps in (1, 2_400):
        live = Faults()
        live.install(plan)
        told.append([change for _ in range(steps) for change in live.step(300 / steps)])
        assert live.done_count == len(plan.faults)
    assert told[0] == told[1]


def test_a_fault_hits_its_target_alone_and_the_strongest_counts() -> None:
    """By name, by path, or everybody; two of a kind end one by one."""
    live = one("rest.slow", for_s=5, target="/v1/accounts", level=2)
    assert live.level("rest.slow", "broker", "/v1/accounts/positions") == 2
    assert live.level("rest.slow", "broker", "/v1/assets") is None
    live.install(Plan((Fault("rest.slow", 0, 1, "broker", 3),)))
    live.step(0)
    assert live.level("rest.slow", "broker", "/v1/accounts") == 3
    live.step(1)
    assert live.level("rest.slow", "broker", "/v1/accounts") == 2
    assert one("clock.skew", for_s=1, level=-9).level("clock.skew") == -9


def test_shares_are_thrown_with_the_plans_dice() -> None:
    """The same seed hits the same requests; about the share of them."""
    plan = Plan((Fault("rest.5xx", 0, 5, level=0.3),), seed=11)
    runs: list[list[bool]] = []
    for _ in range(2):
        live = Faults()
        live.install(plan)
        live.step(0)
        runs.append([live.strikes("rest.5xx", "broker", "/v1/clock") for _ in range(400)])
    assert runs[0] == runs[1]
    assert 80 < sum(runs[0]) < 160


def test_faults_of_the_market_wait_while_it_stands_still() -> None:
    """A pause means that nothing moves by itself; the fault comes after it, for its full time."""
    live = Faults()
    live.install(Plan((Fault("market.halt", 1, 2, level=1), Fault("market.mute", 1, 5))))
    assert [change.fault.kind for change in live.step(4, market_stands_still=True)] == ["market.mute"]
    assert [change.fault.kind for change in live.step(0) if change.begins] == ["market.halt"]
    assert live.remaining_s == 2


def test_clearing_ends_what_is_active_and_forgets_what_waits() -> None:
    """And says what ended."""
    live = Faults()
    live.install(Plan((Fault("events.mute", 0, 9), Fault("market.cut", 5))))
    live.step(0)
    assert [(change.fault.kind, change.begins) for change in live.clear()] == [("events.mute", False)]
    assert not live.active and not live.waiting


def test_every_kind_says_what_it_does_and_what_acts_is_a_kind() -> None:
    """The table and the actions know the same names."""
    assert set(fault_actions.BEGIN) | set(fault_actions.END) <= set(KINDS)
    assert all(kind.about and (kind.level_means or not any(kind.level)) for kind in KINDS.values())
