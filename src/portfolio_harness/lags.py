"""Lag samples in a form that many processes can count and one can add up."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from portfolio_realtime.clock import NS_PER_S

BUCKET_MS: Final = 0.5


class Lags:
    """Lag samples as histograms: second since the epoch -> lag in steps of BUCKET_MS -> samples."""

    def __init__(self, counts: dict[int, dict[int, int]] | None = None) -> None:
        self.counts: dict[int, dict[int, int]] = {} if counts is None else counts

    def add(self, at_ns: int, lag_ns: int) -> None:
        """Add one sample, taken at `at_ns` since the epoch."""
        second, bucket = at_ns // NS_PER_S, round(lag_ns / (BUCKET_MS * 1_000_000))
        counts = self.counts.get(second)
        if counts is None:
            counts = self.counts[second] = {}
        counts[bucket] = counts.get(bucket, 0) + 1

    def merge(self, others: Iterable["Lags"]) -> "Lags":
        """All samples of this and the others, as a new object."""
        merged: dict[int, Counter[int]] = {}
        for lags in (self, *others):
            for second, counts in lags.counts.items():
                merged.setdefault(second, Counter()).update(counts)
        return Lags({second: dict(counts) for second, counts in merged.items()})

    def between(self, first_share: float, last_share: float) -> "Lags":
        """The samples between two shares (0 to 1) of the seconds that have samples."""
        seconds = sorted(self.counts)
        chosen = seconds[int(first_share * len(seconds)) : int(last_share * len(seconds))]
        return Lags({second: self.counts[second] for second in chosen})

    def percentile_ms(self, share: float) -> float:
        """The percentile `share` (0 to 1) of all samples in milliseconds; 0 without samples."""
        total: Counter[int] = Counter()
        for counts in self.counts.values():
            total.update(counts)
        left = share * total.total()
        for bucket in sorted(total):
            left -= total[bucket]
            if left < 0:
                return round(bucket * BUCKET_MS, 1)
        return 0.0


def percentile_s(ordered: Sequence[float], share: float) -> float:
    """The percentile `share` (0 to 1) of sorted times in seconds; 0 without times."""
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else 0.0
