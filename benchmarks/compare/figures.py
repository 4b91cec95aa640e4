"""Figures of runs, and their ratios pair by pair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

CLEAR_PAIRS_MIN: Final = 3  # fewer say nothing
OTHERS_SHARE_MAX: Final = 0.1  # of the machine; a run in which something else used more is not judged


@dataclass(frozen=True)
class Run:
    """What one run showed."""

    figures: dict[str, float]
    others_share: float  # of the machine's processor time, used by nothing of the run


@dataclass(frozen=True)
class Ratio:
    """One figure: both medians, and now / before of each pair."""

    before: float
    now: float
    ratio: float  # the median of the pairs
    lowest: float
    highest: float
    is_clear: bool  # all pairs say the same: more, or less


def is_judged(run: Run) -> bool:
    """Was the machine quiet enough?"""
    return run.others_share <= OTHERS_SHARE_MAX


def ratios(pairs: Sequence[tuple[Run, Run]]) -> dict[str, Ratio]:
    """Figure -> its ratio, of pairs (before, now).

    A figure that a run does not have, or that is 0 before, is left out: it has no ratio.
    """
    names = [name for name in pairs[0][0].figures if all(_has(name, pair) for pair in pairs)] if pairs else []
    return {name: _ratio([(a.figures[name], b.figures[name]) for a, b in pairs]) for name in names}


def _has(name: str, pair: tuple[Run, Run]) -> bool:
    before, now = pair
    return before.figures.get(name, 0) > 0 and name in now.figures


def _ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    each = [now / before for before, now in pairs]
    return Ratio(
        before=median(before for before, _ in pairs),
        now=median(now for _, now in pairs),
        ratio=median(each),
        lowest=min(each),
        highest=max(each),
        is_clear=len(each) >= CLEAR_PAIRS_MIN and (min(each) > 1 or max(each) < 1),
    )


def table(found: Mapping[str, Ratio], before: str, now: str) -> str:
    """The ratios for people; `*` where all pairs agree that it is more or less."""
    width = max((len(name) for name in found), default=6)
    lines = [f"{'figure':{width}} {before[:12]:>12} {now[:12]:>12} {'ratio':>7}   of the pairs"]
    for name, one in found.items():
        mark = "*" if one.is_clear else " "
        lines.append(
            f"{name:{width}} {one.before:12.2f} {one.now:12.2f} {one.ratio:7.3f} {mark} "
            f"{one.lowest:.3f} to {one.highest:.3f}"
        )
    return "\n".join(lines)
