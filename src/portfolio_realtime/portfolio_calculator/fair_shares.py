"""Which calculator should own which shard: equal weights, by few moves, and no move for a small difference.

Pure. Every calculator reads the same state and works out the same shares, so nobody has to be asked or told:
each gives up what is another's, and acquires what is free and its own.
"""

from collections.abc import Collection, Mapping
from typing import Final

SHARD_WEIGHT: Final = 10  # what a shard costs if nobody watches it, in watched accounts
GAP_MAX: Final = 0.2  # of the average load: while no two loads differ by more, nothing moves
GAP_AIM: Final = 0.05  # of the average load: once something moves, it goes on down to this difference
FILL_MAX: Final = 0.75  # of a gap: a heavier shard would only turn the gap round


def weight(watched: int) -> int:
    """The weight of a shard with so many watched accounts."""
    return SHARD_WEIGHT + watched


def fair_shares(
    held: Mapping[str, Collection[int]], free: Collection[int], weights: Mapping[int, int]
) -> dict[str, set[int]]:
    """Calculator -> the shards that it should own.

    `held`: calculator -> its shards now, also if it has none. `free`: shards without an owner. `weights`:
    positive, of all these shards.

    Free shards go to whoever has least. If loads then differ by more than GAP_MAX, shards move one by one to
    whoever has least: from the heaviest that can give one, and the one nearest to half of the difference.
    Each move lowers the sum of the squares of the loads, so this ends, and the result stays as it is.
    """
    shares = {name: set(held[name]) for name in sorted(held)}
    loads = {name: sum(weights[shard] for shard in shares[name]) for name in shares}
    for shard in sorted(free, key=lambda shard: (-weights[shard], shard)):
        lightest = min(loads, key=loads.__getitem__)
        shares[lightest].add(shard)
        loads[lightest] += weights[shard]
    gap_min = GAP_MAX
    while (move := _move(shares, loads, weights, gap_min)) is not None:
        shard, giver, lightest = move
        shares[giver].remove(shard)
        shares[lightest].add(shard)
        loads[giver] -= weights[shard]
        loads[lightest] += weights[shard]
        gap_min = GAP_AIM
    return shares


def _move(
    shares: Mapping[str, Collection[int]],
    loads: Mapping[str, int],
    weights: Mapping[int, int],
    gap_min: float,
) -> tuple[int, str, str] | None:
    """The next shard to move, from whom, and to whom; None if no gap above `gap_min` can be made smaller."""
    lightest = min(loads, key=loads.__getitem__)
    average = sum(loads.values()) / len(loads)
    for giver in sorted(loads, key=loads.__getitem__, reverse=True):
        gap = loads[giver] - loads[lightest]
        if gap <= gap_min * average:
            return None
        fitting = [shard for shard in shares[giver] if weights[shard] <= FILL_MAX * gap]
        if fitting:
            return min(fitting, key=lambda shard: (abs(gap - 2 * weights[shard]), shard)), giver, lightest
    return None
