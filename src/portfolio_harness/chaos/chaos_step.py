"""One nemesis of a plan."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChaosStep:
    """One nemesis of a plan: its victim, its duration, and the shift of a clock in seconds."""

    name: str
    victim: str
    for_s: float
    skew_s: int
    policy: str = "allkeys-lru"  # by which Valkey evicts

    def __str__(self) -> str:
        what = f"{self.name}, {self.policy}" if self.name == "keys evicted" else self.name
        return f"{what} ({self.victim}, {self.for_s:.1f} s)"
