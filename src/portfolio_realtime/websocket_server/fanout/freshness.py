"""Whether publications are fresh, judged by the last sign of life of each shard, hop by hop.

Calculators publish something of each shard every second, at least a sign of life, and name the hops before
them that are silent. A server that receives nothing of a shard for SILENT_S_MAX knows that its values may be
old.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, get_args

import msgspec

from portfolio_realtime.clock import rfc3339
from portfolio_realtime.wire.frames import text_frame
from portfolio_realtime.wire.messages import VALKEY, Freshness, Hop, encode

REACHED_S_MAX: Final = 4.0  # since Valkey last answered: interest is written there, and expires
SILENT_S_MAX: Final = 3.0  # signs of life come every second; a slow calculator must not count as dead
CALCULATOR: Final[Hop] = "calculator"
SERVER: Final[Hop] = "server"
# Hops that may be silent for a shard.
HOPS: Final[tuple[str, ...]] = tuple(hop for hop in get_args(Hop) if hop != SERVER)


class Lapse(NamedTuple):
    """The hops from which nothing fresh arrives, and since when (RFC 3339)."""

    hops: tuple[str, ...]
    since: str


FRESH: Final[tuple[str, ...]] = ()


class ShardSigns:
    """The signs of life of all shards."""

    def __init__(self, shards: int, now_s: Callable[[], float], now_ns: Callable[[], int]) -> None:
        self._now_s = now_s
        self._now_ns = now_ns
        self._heard_s = [now_s()] * shards  # the start counts as a sign of life
        self._before: list[tuple[str, ...]] = [FRESH] * shards  # hops that the calculators report as silent
        self._lapses = [Lapse(FRESH, rfc3339(now_ns()))] * shards
        self._listening_since_s = now_s()
        self._reached_s = now_s()  # when Valkey last answered

    def reach(self) -> None:
        """Note that Valkey answers requests."""
        self._reached_s = self._now_s()

    def listen(self) -> None:
        """Note that publications are received from now on. Silence before that means nothing."""
        self._listening_since_s = self._now_s()

    def wake(self) -> None:
        """Note that this process was paused: publications of that time are still to be read."""
        self.listen()
        self.reach()
        for shard, lapse in enumerate(self._lapses):
            if not lapse.hops:
                self._heard_s[shard] = self._now_s()

    def hear(self, shard: int, hops: Sequence[str]) -> None:
        """Note that a calculator has published something of the shard. `hops`: those it reports as silent."""
        self._heard_s[shard], self._before[shard] = self._now_s(), tuple(hops)

    def lapse(self, shard: int) -> Lapse:
        """The present lapse of a shard."""
        return self._lapses[shard]

    @property
    def is_anything_heard(self) -> bool:
        """Whether any shard has a calculator that is heard, or it is too early to tell."""
        return any(not {CALCULATOR, VALKEY} & set(lapse.hops) for lapse in self._lapses)

    def counts(self) -> dict[str, int]:
        """Hop -> number of shards for which it is silent."""
        hops = [hop for lapse in self._lapses for hop in lapse.hops]
        return {hop: hops.count(hop) for hop in HOPS}

    def look(self, *, is_following: bool) -> set[int]:
        """Judge all shards now; return those whose silent hops have changed."""
        now_s, changed = self._now_s(), set[int]()
        for shard, before in enumerate(self._lapses):
            hops = self._hops(shard, now_s, is_following=is_following)
            if hops != before.hops:
                self._lapses[shard] = Lapse(hops, rfc3339(self._now_ns()))
                changed.add(shard)
        return changed

    def _hops(self, shard: int, now_s: float, *, is_following: bool) -> tuple[str, ...]:
        if now_s - self._reached_s > REACHED_S_MAX:
            return (VALKEY,)  # it loses our interest, even if publications still arrive
        if now_s - self._heard_s[shard] <= SILENT_S_MAX:
            return self._before[shard]
        if not is_following:
            return (VALKEY,)
        if now_s - self._listening_since_s <= SILENT_S_MAX:
            return self._lapses[shard].hops or (VALKEY,)  # too early to tell whether a calculator publishes
        return (CALCULATOR,)


def freshness_message(account_id: str, lapse: Lapse) -> bytes:
    """The freshness message as JSON."""
    return encode(Freshness(account_id, list(lapse.hops), lapse.since))  # type: ignore[arg-type]  # hops of the wire


def freshness_frame(account_id: str, lapse: Lapse) -> bytes:
    """The freshness message as a WebSocket frame."""
    return text_frame(freshness_message(account_id, lapse))


def with_stale_hops(message: bytes, lapse: Lapse) -> bytes:
    """The portfolio message with `stale_hops`, if there are any."""
    if not lapse.hops:
        return message
    return message[:-1] + b',"stale_hops":' + msgspec.json.encode(lapse.hops) + b"}"
