"""Everybody around a portfolio calculator, and calculators as processes."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from portfolio_realtime import config
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.model import US_EQUITY, Account, Mark, Position, Unmarked
from portfolio_realtime.portfolio_calculator import calculator
from portfolio_realtime.service import Context
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.connection import Subscribed
from portfolio_realtime.state.feeds import ACCOUNTS
from portfolio_realtime.state.valuations import decode_batch, is_stored
from portfolio_realtime.telemetry import PREFIX
from portfolio_realtime.wire.frames import text_of
from tests.conftest import LEASE_MS, SHARDS, running_service

MIN_UPDATE_S = 0.4
HEARD_S = 0.4
CLOCK = SystemClock()
NAMES = [f"account-{index}" for index in range(12)]  # of every shard


@dataclass(frozen=True)
class Seen:
    """One publication as a server received it."""

    at_s: float
    epoch: int
    sequence: int
    message: dict[str, Any]

    @property
    def stream_position(self) -> tuple[int, int]:
        """Only ever grows for a client."""
        return self.epoch, self.sequence


@contextlib.asynccontextmanager
async def calculating(url: str, **changed: Any) -> AsyncGenerator[None]:
    """A calculator in this process, with these settings."""
    settings: dict[str, Any] = {"_env_file": None, "shards": SHARDS, "lease_ms": LEASE_MS, **changed}
    state = open_state(url, holder="calculator", shards=SHARDS, lease_ms=LEASE_MS)
    context = Context(config.load(**settings), state, CLOCK, CollectorRegistry(), "calculator")
    try:
        async with running_service(calculator.run(context)):
            yield
    finally:
        await state.close()


class World:
    """Everybody but the calculator."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.seen: dict[str, list[Seen]] = {}
        self.subscribed = 0
        self._version = 0
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._keep_heard())]

    async def _keep_heard(self) -> None:
        """The broker answers."""
        while True:
            with contextlib.suppress(StateUnavailable):
                await self.state.feeds.keep(ACCOUNTS)
            await asyncio.sleep(HEARD_S)

    async def _follow(self) -> None:
        async with contextlib.aclosing(self.state.valuations.batches()) as messages:  # type: ignore[type-var]  # a generator
            async for message in messages:
                if isinstance(message, Subscribed):
                    self.subscribed += 1
                    continue
                if is_stored(message.payload):
                    self._see(msgspec.json.decode(message.payload))
                    continue
                batch = decode_batch(message.payload)
                for sequence, frame in zip(batch.sequences, batch.frames, strict=True):
                    value = msgspec.json.decode(text_of(frame))
                    assert (value["epoch"], value["sequence"]) == (batch.epoch, sequence)
                    self._see(value)

    def _see(self, value: dict[str, Any]) -> None:
        seen = Seen(CLOCK.monotonic_s(), value["epoch"], value["sequence"], value)
        self.seen.setdefault(value["account_id"], []).append(seen)

    async def write(self, *account_ids: str, quantity: int = 10, symbol: str = "A") -> None:
        """Write records with 1000.00 in cash and one position."""
        self._version += 1
        held = Position(symbol, US_EQUITY, Decimal(quantity), Decimal(1), Decimal(900))
        records = [
            Account(
                account_id=account_id,
                version=self._version,
                status="ACTIVE",
                currency="USD",
                cash=Decimal(1000),
                last_equity=Decimal(1900),
                balance_asof="2026-11-19",
                external_cash_flow=Decimal(0),
                positions=(held,),
                as_of_ns=CLOCK.now_ns(),
            )
            for account_id in account_ids
        ]
        await self.state.accounts.write(await self._lease("collector"), records)

    async def remove(self, account_id: str) -> None:
        """The broker has closed the account."""
        await self.state.accounts.remove(await self._lease("collector"), [account_id])

    async def mark(self, price: float, symbol: str = "A") -> None:
        """A trade at this price, now."""
        now_ns = CLOCK.now_ns()
        await self.state.marks.write(await self._lease("feed"), [Mark(symbol, price, now_ns, now_ns, "iex")])

    async def write_unmarked(self, symbol: str) -> None:
        """Somebody has looked for a price in vain."""
        unmarked = Unmarked(symbol, "iex", CLOCK.now_ns())
        await self.state.marks.write_unmarked(await self._lease("feed"), [unmarked])

    async def watch(self, *account_ids: str) -> None:
        """Clients begin to watch."""
        await self.state.interest.begin(account_ids)

    def last(self, account_id: str) -> Seen | None:
        """The newest publication of an account."""
        return self.seen.get(account_id, [None])[-1]

    def shows(self, equity: str, *account_ids: str) -> Callable[[], bool]:
        """A predicate: the newest publication of each shows this equity."""

        def is_shown() -> bool:
            newest = [self.last(account_id) for account_id in account_ids]
            return all(one is not None and one.message["equity"] == equity for one in newest)

        return is_shown

    def assert_monotonic(self) -> None:
        """No account has gone back; within an epoch no sequence is missing."""
        for history in self.seen.values():
            for earlier, later in itertools.pairwise(history):
                assert later.stream_position > earlier.stream_position
                if later.epoch == earlier.epoch:
                    assert later.sequence == earlier.sequence + 1

    async def holders(self) -> list[str]:
        """Who holds each of the shards that are held."""
        leases = [keys.lease(keys.shard_lease(shard)) for shard in range(SHARDS)]
        held = cast("list[bytes | None]", await self.state.connection.commands.mget(leases))
        return sorted(holder.decode().split(" ")[0] for holder in held if holder)

    async def metric(self, name: str) -> float | None:
        """What the calculator says of itself, or None before it has."""
        for _, _, text in await self.state.metrics.read_all():
            for family in text_string_to_metric_families(text):
                if family.name == f"{PREFIX}_{name}":
                    return family.samples[0].value
        return None

    async def close(self) -> None:
        """End following, and the broker."""
        await cancel_until_ended(self._tasks)

    async def _lease(self, name: str) -> Any:
        lease = await self.state.leases.acquire(name)
        assert lease is not None
        return lease
