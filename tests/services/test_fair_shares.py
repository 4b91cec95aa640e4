"""Who should own which shard: any calculators and weights end even, at rest, and by moves that each help."""

import itertools
import random
from collections.abc import Collection, Mapping

from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.portfolio_calculator.fair_shares import (
    FILL_MAX,
    GAP_MAX,
    SHARD_WEIGHT,
    fair_shares,
    weight,
)

ROUNDS_MAX = 6  # of all calculators, until everything is at rest
Held = dict[str, set[int]]


@st.composite
def situations(draw: st.DrawFn) -> tuple[Held, list[int], dict[int, int]]:
    """What each calculator holds, what is free, and the weight of each shard."""
    names = [f"calculator-{number}" for number in range(draw(st.integers(1, 6)))]
    watched = draw(st.lists(st.one_of(st.just(0), st.integers(0, 30), st.integers(0, 5000)), max_size=40))
    held: Held = {name: set() for name in names}
    free = list[int]()
    for shard in range(len(watched)):
        owner = draw(st.sampled_from([*names, None]))
        free.append(shard) if owner is None else held[owner].add(shard)
    return held, free, {shard: weight(count) for shard, count in enumerate(watched)}


def loads_of(shares: Mapping[str, Collection[int]], weights: Mapping[int, int]) -> dict[str, int]:
    """The weight that each has."""
    return {name: sum(weights[shard] for shard in shards) for name, shards in shares.items()}


def squares(shares: Mapping[str, Collection[int]], weights: Mapping[int, int]) -> int:
    """The less, the more even."""
    return sum(load * load for load in loads_of(shares, weights).values())


def assert_even(shares: Mapping[str, Collection[int]], weights: Mapping[int, int]) -> None:
    """Nobody has clearly more than another, unless each of its shards is too heavy to move."""
    loads = loads_of(shares, weights)
    average = sum(loads.values()) / len(loads)
    for name, shards in shares.items():
        gap = loads[name] - min(loads.values())
        lightest = min((weights[shard] for shard in shards), default=0)
        assert gap <= max(GAP_MAX * average, lightest / FILL_MAX)


@given(situations())
def test_every_shard_has_one_owner_and_all_have_alike(
    situation: tuple[Held, list[int], dict[int, int]],
) -> None:
    """Whatever is free, held and watched; and the result would not be changed again."""
    held, free, weights = situation
    shares = fair_shares(held, free, weights)
    assert shares.keys() == held.keys()
    assert sorted(itertools.chain(*shares.values())) == sorted(weights)
    assert_even(shares, weights)
    assert fair_shares(shares, [], weights) == shares


@given(situations())
def test_no_shard_moves_without_gain(situation: tuple[Held, list[int], dict[int, int]]) -> None:
    """What moves makes the loads more even, and nothing moves while no two differ clearly."""
    held, _, weights = situation
    shares = fair_shares(held, [], weights)
    before = loads_of(held, weights)
    if shares != held:
        assert squares(shares, weights) < squares(held, weights)
        assert max(loads_of(shares, weights).values()) <= max(before.values())
        assert max(before.values()) - min(before.values()) > GAP_MAX * sum(before.values()) / len(before)


@given(situations(), st.randoms(use_true_random=False))
def test_whoever_acts_first_all_comes_to_rest(
    situation: tuple[Held, list[int], dict[int, int]], luck: random.Random
) -> None:
    """Each acts for itself, on what it sees: acquires what is free and its own, and gives up the rest."""
    held, free, weights = situation
    missing = set(free)
    for _ in range(ROUNDS_MAX):
        names = sorted(held)
        luck.shuffle(names)
        for name in names:
            ours = fair_shares(held, missing, weights)[name]
            held[name] |= ours & missing
            missing -= ours
            missing |= held[name] - ours
            held[name] &= ours
    at_rest = {name: set(shards) for name, shards in held.items()}
    assert not missing
    assert fair_shares(at_rest, [], weights) == at_rest
    assert_even(at_rest, weights)


def test_one_that_joins_gets_its_part_by_as_few_moves_as_can_be() -> None:
    """Sixteen equal shards: the second gets 8 of them, the third 3 and 2; who had them keeps the others."""
    weights = dict.fromkeys(range(16), SHARD_WEIGHT)
    two = fair_shares({"a": set(range(16)), "b": set()}, [], weights)
    assert sorted(map(len, two.values())) == [8, 8]
    three = fair_shares({**two, "c": set()}, [], weights)
    assert sorted(map(len, three.values())) == [5, 5, 6]
    assert three["a"] < two["a"]
    assert three["b"] < two["b"]


def test_one_heavy_shard_moves_rather_than_many_light_ones() -> None:
    """It is as heavy as the ten others together."""
    weights = {0: 10 * SHARD_WEIGHT, **dict.fromkeys(range(1, 11), SHARD_WEIGHT)}
    assert fair_shares({"a": set(weights), "b": set()}, [], weights)["b"] == {0}


def test_those_who_come_and_go_move_nothing() -> None:
    """A thousand accounts are watched; a tenth of one calculator's ends, and nothing moves."""
    held = {"a": set(range(8)), "b": set(range(8, 16))}
    weights = {shard: weight(62 if shard < 8 else 56) for shard in range(16)}
    assert fair_shares(held, [], weights) == held


def test_a_shard_that_all_watch_moves_to_nobody() -> None:
    """It would only be as heavy elsewhere; the other shards go away from it."""
    weights = {shard: weight(5000 if shard == 0 else 0) for shard in range(4)}
    shares = fair_shares({"a": {0, 1}, "b": {2, 3}}, [], weights)
    assert shares == {"a": {0}, "b": {1, 2, 3}}
