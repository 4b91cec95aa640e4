"""Plays the calculators: publishes every account once per interval through Valkey, under real leases.

All accounts are due at once and go out as a calculator's flush does: valued first, then the batches of all
shards together. So the servers under test all have the same pattern: everything at once, then nothing.

`python -m benchmarks.fanout.publisher VALKEY_URL ACCOUNTS INTERVAL_S`; prints `ready` when each account has
its record and its first value. SIGUSR2 switches publishing on and off; signs of life go on, as a calculator
gives them, or else every client would be told at its connect that the values may be old.
"""

import asyncio
import sys
from collections import Counter
from decimal import Decimal

from benchmarks.fanout.python_server import tick
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.config import load
from portfolio_realtime.model import Account, Publication, Publications
from portfolio_realtime.portfolio_calculator.publisher import SIGN_S
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.interest import UNREAD, Servers, only_server
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.valuations import KnownInterest

LEASE_MS = 600_000
FIRST_SEQUENCE = 1_000_000  # so that all messages are of one length
AS_OF = "2026-11-20T15:04:05.123456Z"


def account_id(index: int) -> str:
    """Of one of the benchmark's accounts."""
    return f"{index:08d}-0000-4000-8000-000000000000"


def message(account: str, epoch: int, sequence: int) -> bytes:
    """A portfolio message of the shortest kind that a calculator makes."""
    return (
        f'{{"type":"portfolio","account_id":"{account}","epoch":{epoch},"sequence":{sequence},'
        f'"equity":"104211.37","cash":"10211.37","day_pnl":"1209.27","as_of":"{AS_OF}","timestamp":"{AS_OF}"}}'
    ).encode()


async def write_records(state: State, accounts: list[str]) -> None:
    """A record for each account, as the symbol collector writes it."""
    lease = await _lease(state, "symbol_collector")
    zero = Decimal(0)
    await state.accounts.write(
        lease, [Account(name, 1, "ACTIVE", "USD", zero, zero, "2026-11-20", zero, (), 0) for name in accounts]
    )


async def _lease(state: State, name: str) -> Lease:
    lease = await state.leases.acquire(name)
    assert lease is not None
    return lease


async def main(url: str, count: int, interval_s: float) -> None:
    """Publish until killed."""
    shards = load(_env_file=None).shards
    state = open_state(url, holder="fanout", shards=shards, lease_ms=LEASE_MS)
    by_shard: dict[int, list[str]] = {}
    for name in map(account_id, range(count)):
        by_shard.setdefault(keys.shard_of(name, shards), []).append(name)
    await write_records(state, [name for names in by_shard.values() for name in names])
    leases = {shard: await _lease(state, keys.shard_lease(shard)) for shard in by_shard}
    servers: dict[int, dict[str, Servers]] = {shard: {} for shard in by_shard}
    accounts_of = {shard: Counter[str]() for shard in by_shard}
    until = dict.fromkeys(by_shard, UNREAD)
    sequence = FIRST_SEQUENCE

    async def learn(shard: int) -> KnownInterest:
        """Who watches, as a calculator knows it: else the script tells each account to its server alone."""
        changes = await state.interest.read_changes(shard, until[shard])
        changes.apply_to(servers[shard], accounts_of[shard])
        until[shard] = changes.until
        return KnownInterest(servers[shard], changes.until, only_server(accounts_of[shard]))

    async def publish() -> None:
        nonlocal sequence
        sequence += 1
        flush: dict[int, list[Publication]] = {}
        for shard, names in by_shard.items():
            epoch = leases[shard].fencing_token
            flush[shard] = [Publication(name, sequence, message(name, epoch, sequence)) for name in names]
        interest = dict(zip(by_shard, await asyncio.gather(*map(learn, by_shard)), strict=True))
        batches = [(shard, leases[shard], Publications.of(batch)) for shard, batch in flush.items()]
        assert not any(await state.valuations.publish_all(batches, interest=interest))

    async def give_signs() -> None:
        while True:
            await asyncio.gather(
                *(state.valuations.publish(lease, shard, []) for shard, lease in leases.items())
            )
            await asyncio.sleep(SIGN_S)

    await publish()
    signs = asyncio.create_task(give_signs())
    print("ready", flush=True)
    try:
        await tick(publish, interval_s)
    finally:
        await cancel_until_ended([signs])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
