"""The nemeses of a trial: a random plan of faults, each with its victim, its beginning and its end."""

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from portfolio_harness.simulation.stories import TrialStory
from portfolio_harness.simulation.watchers import RECONNECT_S
from portfolio_harness.simulation.world import Running, World
from portfolio_realtime.state import keys
from portfolio_realtime.state.error_answers import PassingError

LONGER_S: Final = {
    "mute feed": 4.0,
    "stop reading": 2.0,
}  # added: a feed's silence is noticed after 5 s; a socket fills
LOSS_RATIO: Final = 0.3
REPLICA_LAG_S_MAX: Final = 0.4
# By service. The simulated collector and consumer lack what ends the work of one whose clock is far off.
SKEWS_S: Final = {
    "calculator": (-3600.0, -5.0, 5.0, 3600.0),
    "consumer": (-5.0, 5.0, 3600.0),
    "collector": (-5.0, 5.0),
}
VALKEY_SKEWS_S: Final = (-5.0, 5.0)
PASSING: Final = ("OOM", "MISCONF", "LOADING", "BUSY", "READONLY")


@dataclass(frozen=True)
class PlannedFault:
    """One fault of a plan. `number` (0 to 1) makes the choices that are particular to its kind."""

    name: str
    at_s: float
    for_s: float
    victim: str = ""
    number: float = 0.0

    def __str__(self) -> str:
        return f"{self.at_s:.2f} s: {self.name} {self.victim} for {self.for_s:.2f} s".replace("  ", " ")


def drawn(rng: random.Random, services: list[str], story: TrialStory) -> list[PlannedFault]:
    """Draw a plan of 1 to `story.faults_max` faults, in order of time."""
    plan: list[PlannedFault] = []
    least_s, most_s = story.fault_s
    for _ in range(rng.randrange(1, story.faults_max + 1)):
        name = rng.choice(list(NEMESES))
        fault = PlannedFault(
            name,
            at_s=story.warm_s + rng.uniform(0, story.faults_s),
            for_s=least_s + (most_s - least_s) * rng.random() ** story.brevity + LONGER_S.get(name, 0.0),
            victim=rng.choice([one for one in services if one.startswith(VICTIMS.get(name, ""))]),
            number=rng.random(),
        )
        plan.append(fault)
    return sorted(plan, key=lambda fault: fault.at_s)


async def suffer(world: World, fault: PlannedFault) -> None:
    """Run one fault at its time, from its beginning to its end."""
    await asyncio.sleep(fault.at_s)
    await NEMESES[fault.name](world, fault, world.services[fault.victim])


async def _kill(world: World, fault: PlannedFault, victim: Running) -> None:
    if victim.process.is_dead:
        return
    victim.process.kill()
    world.network.break_subscriptions(victim.link)
    world.close_clients(victim.name)
    await asyncio.sleep(fault.for_s)
    world.restart(victim)
    await asyncio.sleep(RECONNECT_S)
    if victim.name.startswith("server"):
        world.come_again(victim.name)


async def _freeze(world: World, fault: PlannedFault, victim: Running) -> None:
    process = victim.process
    process.freeze()
    world.be_away(victim.name, is_away=True)
    await asyncio.sleep(fault.for_s)
    process.thaw()
    world.be_away(victim.name, is_away=False)


async def _cut(world: World, fault: PlannedFault, victim: Running) -> None:
    victim.link.is_cut = True
    world.network.break_subscriptions(victim.link)
    await asyncio.sleep(fault.for_s)
    victim.link.is_cut = False


async def _silence(world: World, fault: PlannedFault, victim: Running) -> None:
    victim.link.is_silent = True
    await asyncio.sleep(fault.for_s)
    victim.link.is_silent = False
    # What was published meanwhile is lost, so the connections of subscriptions break.
    world.network.break_subscriptions(victim.link)


async def _deafen(world: World, fault: PlannedFault, victim: Running) -> None:
    victim.link.is_deaf = True
    await asyncio.sleep(fault.for_s)
    world.network.end_deafness(victim.link)


async def _lose(_: World, fault: PlannedFault, victim: Running) -> None:
    victim.link.loss_ratio = LOSS_RATIO
    await asyncio.sleep(fault.for_s)
    victim.link.loss_ratio = 0.0


async def _break_subscriptions(world: World, fault: PlannedFault, _: Running) -> None:
    """Break all subscriptions twice. What is missed at the second break is not followed by newer data."""
    world.network.break_subscriptions()
    await asyncio.sleep(fault.for_s + RECONNECT_S / 2)
    world.network.break_subscriptions()


async def _flush(world: World, _: PlannedFault, __: Running) -> None:
    world.valkey.do("FLUSHALL")
    world.judge.forget_epochs()


async def _restart_empty(world: World, fault: PlannedFault, _: Running) -> None:
    world.cut_all(is_cut=True)
    world.valkey.restart_empty()
    world.judge.forget_epochs()
    await asyncio.sleep(fault.for_s)
    world.cut_all(is_cut=False)


async def _replace_servers(world: World, fault: PlannedFault, victim: Running) -> None:
    """Empty Valkey, and restart all servers a little later: nobody may know what was revoked."""
    await _flush(world, fault, victim)
    await asyncio.sleep(fault.number * fault.for_s)
    servers = [one for one in world.services.values() if one.name.startswith("server")]
    rest = dataclasses.replace(fault, for_s=fault.for_s * (1 - fault.number))
    await asyncio.gather(*(_kill(world, rest, server) for server in servers))


async def _fail_over(world: World, fault: PlannedFault, _: Running) -> None:
    """Let a replica that is behind become the primary: the last acknowledged writes are lost."""
    replica = world.valkey.copy()
    await asyncio.sleep(fault.number * REPLICA_LAG_S_MAX)
    world.cut_all(is_cut=True)
    await asyncio.sleep(fault.for_s / 5)
    world.valkey.become(replica)
    world.judge.forget_epochs()
    world.cut_all(is_cut=False)


async def _refuse(world: World, fault: PlannedFault, _: Running) -> None:
    word = PASSING[int(fault.number * len(PASSING))]
    error = PassingError(f"{word} says the simulation")
    error.status_code = word
    reads = (
        "GET",
        "HGET",
        "HMGET",
        "HVALS",
        "HKEYS",
        "HLEN",
        "MGET",
        "TIME",
        "ZRANGE",
        "PUBLISH",
        "PING",
        "XREAD",
    )
    is_all = word in ("LOADING", "BUSY")
    world.network.answer = lambda command: error if is_all or command[0] not in reads else None
    await asyncio.sleep(fault.for_s)
    world.network.answer = lambda _: None


async def _skew(world: World, fault: PlannedFault, victim: Running) -> None:
    world.judge.is_time_right = False
    skews_s = SKEWS_S[victim.name.partition("-")[0]]
    victim.process.skew_s = skews_s[int(fault.number * len(skews_s))]
    await asyncio.sleep(fault.for_s)
    victim.process.skew_s = 0.0


async def _skew_valkey(world: World, fault: PlannedFault, _: Running) -> None:
    world.valkey_skew_s = VALKEY_SKEWS_S[int(fault.number * len(VALKEY_SKEWS_S))]
    await asyncio.sleep(fault.for_s)
    world.valkey_skew_s = 0.0


async def _mute_feed(world: World, fault: PlannedFault, _: Running) -> None:
    world.is_feed_there = False
    world.each("consumer", lambda consumer: consumer.disconnect())
    await asyncio.sleep(fault.for_s)
    world.is_feed_there = True
    world.each("consumer", lambda consumer: consumer.connect())


async def _mute_broker(world: World, fault: PlannedFault, _: Running) -> None:
    world.is_broker_there = False
    world.each("collector", lambda collector: collector.lose_broker())
    await asyncio.sleep(fault.for_s)
    world.is_broker_there = True
    world.each("collector", lambda collector: collector.find_broker())


async def _poison(world: World, fault: PlannedFault, _: Running) -> None:
    """Write data that cannot be decoded: one record, one mark, and one message on each channel."""
    do = world.valkey.do
    for shard in range(world.shard_count):
        do("HSET", keys.accounts(shard), "odd", b'{"account_id": 7')
        for key in (keys.accounts(shard), keys.interest(shard), keys.valuations(shard)):
            do("PUBLISH", key, b"\xff{")
    do("HSET", keys.marks(), "ODD", b"no mark")
    do("PUBLISH", keys.marks(), b"no marks")
    await asyncio.sleep(fault.for_s)


async def _stop_reading(world: World, fault: PlannedFault, _: Running) -> None:
    names = sorted(world.watchers)
    watcher = world.watchers[names[int(fault.number * len(names))]]
    if watcher.is_open:
        watcher.stop_reading()
        await asyncio.sleep(fault.for_s)
        if watcher.is_open:
            watcher.read_on()


async def _deploy(world: World, fault: PlannedFault, victim: Running) -> None:
    """End a process with SIGTERM, so that it releases its leases, and start it again."""
    if victim.process.is_dead or victim.process.is_frozen:
        return
    await victim.process.end()
    await asyncio.sleep(fault.for_s)
    if victim.process.is_dead:
        world.restart(victim)


Nemesis = Callable[[World, PlannedFault, Running], Awaitable[None]]
NEMESES: Final[dict[str, Nemesis]] = {
    "kill": _kill,
    "freeze": _freeze,
    "cut": _cut,
    "silence": _silence,
    "deafen": _deafen,
    "lose commands": _lose,
    "break subscriptions": _break_subscriptions,
    "flush": _flush,
    "restart empty": _restart_empty,
    "empty, new servers": _replace_servers,
    "fail over": _fail_over,
    "refuse": _refuse,
    "skew": _skew,
    "skew Valkey": _skew_valkey,
    "mute feed": _mute_feed,
    "mute broker": _mute_broker,
    "poison": _poison,
    "stop reading": _stop_reading,
    "deploy": _deploy,
}
VICTIMS: Final = {"deploy": "calculator", "skew": "c"}  # the beginning of the victim's name
