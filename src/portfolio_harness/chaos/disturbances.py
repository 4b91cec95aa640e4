"""The nemeses of real processes. Each begins, lasts for a time, and ends."""

import asyncio
import random
import re
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final

from portfolio_harness.chaos import cluster_disturbances
from portfolio_harness.chaos.chaos_step import ChaosStep
from portfolio_harness.chaos.place import Place, ServiceProcess
from portfolio_harness.progress import say

SKEWS_S: Final = (-3600, -5, 5, 3600)
MEMORY_SHARE: Final = 0.8  # of the memory used now: the limit while memory is full
POLICIES: Final = (
    *("allkeys-lru", "allkeys-lfu", "allkeys-random"),
    *("volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"),
)
NARROW_BYTES_PER_S: Final = 4_000.0  # about 1 % of what a busy service needs
DRIFT: Final = 0.5  # seconds for each second: in 6 s as far as 50 minutes at 1 ms a second
DRIFT_STEP_S: Final = 0.1
STARVED_S: Final = 0.1  # in which a starved process runs for STARVED_SHARE
STARVED_SHARE: Final = 0.1
_TAG: Final = re.compile(r"\{(s\d+|minutes:)[^}]*\}")  # of a shard, or of the marks of a minute
KINDS: Final = ("symbol_collector", "market_data_consumer", "portfolio_calculator")


def plan(seed: int, services: list[str], names: list[str]) -> "list[ChaosStep]":
    """Plan PLANNED or more nemeses: all of `names` once in random order, then all again, and so on.

    The same seed gives the same plan.
    """
    assert names, "a plan needs a nemesis"
    rng, policies = random.Random(seed), random.Random(f"policies of {seed}")
    steps: list[ChaosStep] = []
    while len(steps) < PLANNED:
        for name in rng.sample(names, len(names)):
            kinds = VICTIMS.get(name, ("",))
            victim = rng.choice([one for one in services if one.startswith(kinds)])
            steps.append(
                ChaosStep(name, victim, rng.uniform(*LASTS_S), rng.choice(SKEWS_S), policies.choice(POLICIES))
            )
    return steps


def names_for(*, is_cluster: bool) -> list[str]:
    """The nemeses of one server, or of a cluster."""
    return [name for name in NEMESES if name in (ON_CLUSTER if is_cluster else ON_ONE)]


async def disturb(place: Place, step: ChaosStep) -> None:
    """Run one nemesis from its beginning to its end."""
    await NEMESES[step.name](place, step, place.services[step.victim])


async def _kill(_: Place, step: ChaosStep, victim: ServiceProcess) -> None:
    await victim.kill()
    await asyncio.sleep(step.for_s / 2)
    await victim.start()


async def _kill_both(place: Place, step: ChaosStep, victim: ServiceProcess) -> None:
    both = place.of(victim.name.rpartition("-")[0])
    await asyncio.gather(*(one.kill() for one in both))
    await asyncio.sleep(step.for_s / 2)
    await asyncio.gather(*(one.start() for one in both))


async def _deploy(_: Place, __: ChaosStep, victim: ServiceProcess) -> None:
    await victim.kill(signal.SIGTERM)
    await victim.start()


async def _stop(_: Place, step: ChaosStep, victim: ServiceProcess) -> None:
    victim.is_stopped = True
    victim.send(signal.SIGSTOP)
    await asyncio.sleep(step.for_s)
    victim.send(signal.SIGCONT)
    victim.is_stopped = False


async def _hold_both_ways(_: Place, step: ChaosStep, victim: ServiceProcess) -> None:
    victim.proxy.holds_there = victim.proxy.holds_back = True
    await _healed(step, victim)


async def _hold_there(_: Place, step: ChaosStep, victim: ServiceProcess) -> None:
    victim.proxy.holds_there = True
    await _healed(step, victim)


async def _hold_back(_: Place, step: ChaosStep, victim: ServiceProcess) -> None:
    victim.proxy.holds_back = True
    await _healed(step, victim)


async def _refuse(_: Place, step: ChaosStep, victim: ServiceProcess) -> None:
    victim.proxy.refuses = True
    victim.proxy.reset()
    await _healed(step, victim)


async def _healed(step: ChaosStep, victim: ServiceProcess) -> None:
    await asyncio.sleep(step.for_s)
    victim.proxy.heal()


async def _reset(place: Place, _: ChaosStep, __: ServiceProcess) -> None:
    for service in place.services.values():
        service.proxy.reset()


async def _kill_pubsub(place: Place, _: ChaosStep, __: ServiceProcess) -> None:
    await place.valkey.do("CLIENT", "KILL", "TYPE", "pubsub")


async def _flush(place: Place, _: ChaosStep, __: ServiceProcess) -> None:
    await (place.valkey if place.cluster is None else place.cluster).flush()


async def _restart_empty(place: Place, step: ChaosStep, _: ServiceProcess) -> None:
    await place.valkey.kill()
    await asyncio.sleep(step.for_s / 2)
    await place.valkey.start()


async def _stop_valkey(place: Place, step: ChaosStep, _: ServiceProcess) -> None:
    place.valkey.pause()
    await asyncio.sleep(step.for_s)
    place.valkey.resume()


async def _demote(place: Place, step: ChaosStep, _: ServiceProcess) -> None:
    # No server listens there, so the node keeps its data and is read-only.
    await place.valkey.do("REPLICAOF", "127.0.0.1", "1")
    await asyncio.sleep(step.for_s)
    await place.valkey.do("REPLICAOF", "NO", "ONE")


async def _fill_memory(place: Place, step: ChaosStep, _: ServiceProcess) -> None:
    await _limit_memory(place, step, "noeviction")


async def _evict(place: Place, step: ChaosStep, _: ServiceProcess) -> None:
    await _limit_memory(place, step, step.policy)


async def _limit_memory(place: Place, step: ChaosStep, policy: str) -> None:
    text = await place.valkey.do("INFO", "memory")
    assert isinstance(text, dict)
    limit = int(MEMORY_SHARE * int(text["used_memory"]))
    await place.valkey.do("CONFIG", "SET", "maxmemory-policy", policy, "maxmemory", str(limit))
    await asyncio.sleep(step.for_s)
    await place.valkey.do("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")


async def _fill_disk(place: Place, step: ChaosStep, _: ServiceProcess) -> None:
    """Let snapshots fail, as on a full disk: a folder has the name of the snapshot file."""
    (place.folder / "full.rdb").mkdir(exist_ok=True)
    await place.valkey.do("CONFIG", "SET", "dbfilename", "full.rdb", "save", "1 1")
    await asyncio.sleep(step.for_s + 1)
    await place.valkey.do("CONFIG", "SET", "dbfilename", "none.rdb", "save", "")
    (place.folder / "full.rdb").rmdir()


async def _starve(_: Place, step: ChaosStep, victim: ServiceProcess) -> None:
    """Let a process run for a tenth of the time."""
    until_s = time.monotonic() + step.for_s
    while time.monotonic() < until_s:
        victim.send(signal.SIGSTOP)
        await asyncio.sleep(STARVED_S * (1 - STARVED_SHARE))
        victim.send(signal.SIGCONT)
        await asyncio.sleep(STARVED_S * STARVED_SHARE)


async def _delete_family(place: Place, step: ChaosStep, _: ServiceProcess) -> None:
    """Delete all keys of one family, as somebody does by mistake; the step's duration chooses it."""
    families: dict[str, list[bytes]] = {}
    async with place.valkey.client() as client:
        async for key in client.scan_iter():
            families.setdefault(_family(key.decode()), []).append(key)
        name = sorted(families)[int(step.for_s * 1000) % len(families)]
        say(f"  all keys of {name} are deleted: {len(families[name])}")
        await client.delete(*families[name])


def _family(key: str) -> str:
    """The name that all keys of one kind share: shards, times, processes and accounts are left out."""
    first, *rest = _TAG.sub(lambda tag: "{sNN}" if tag[1][0] == "s" else "{TIME}", key).split(":")
    return ":".join([first, *rest[:1]]) if first == "{sNN}" else first


async def _narrow(_: Place, step: ChaosStep, victim: ServiceProcess) -> None:
    victim.proxy.bytes_per_s = NARROW_BYTES_PER_S
    await _healed(step, victim)


async def _let_clock_drift(place: Place, step: ChaosStep, victim: ServiceProcess) -> None:
    """Let a clock run fast or slow by DRIFT: minutes of a bad clock in seconds; then it is set right."""
    began_s, ahead = time.monotonic(), 1 if step.skew_s > 0 else -1
    while (gone_s := time.monotonic() - began_s) < step.for_s:
        place.set_clock(victim.name, ahead * DRIFT * gone_s)
        await asyncio.sleep(DRIFT_STEP_S)
    place.set_clock(victim.name, 0)


async def _shift_clock(place: Place, step: ChaosStep, victim: ServiceProcess) -> None:
    place.set_clock(victim.name, step.skew_s)
    await asyncio.sleep(step.for_s)
    place.set_clock(victim.name, 0)


Disturbance = Callable[[Place, ChaosStep, ServiceProcess], Awaitable[None]]
NEMESES: Final[dict[str, Disturbance]] = {
    "kill -9": _kill,
    "kill -9 both": _kill_both,
    "deploy": _deploy,
    "stop and continue": _stop,
    "cut both ways": _hold_both_ways,
    "cut to Valkey": _hold_there,
    "cut from Valkey": _hold_back,
    "refuse connections": _refuse,
    "reset all connections": _reset,
    "kill subscriptions": _kill_pubsub,
    "flush": _flush,
    "Valkey killed, empty": _restart_empty,
    "Valkey stopped": _stop_valkey,
    "Valkey read-only": _demote,
    "memory full": _fill_memory,
    "keys evicted": _evict,
    "disk full": _fill_disk,
    "clock shifted": _shift_clock,
    "clock drifts": _let_clock_drift,
    "narrow link": _narrow,
    "a tenth of a core": _starve,
    "family deleted": _delete_family,
    **cluster_disturbances.NEMESES,
}
ON_CLUSTER: Final = frozenset(
    (
        *("kill -9", "kill -9 both", "deploy", "stop and continue", "flush", "clock shifted", "clock drifts"),
        *cluster_disturbances.NEMESES,
    )
)
ON_ONE: Final = frozenset(NEMESES) - frozenset(cluster_disturbances.NEMESES)
VICTIMS: Final = {"kill -9 both": KINDS}
LASTS_S: Final = (2.0, 9.0)
PLANNED: Final = 400
