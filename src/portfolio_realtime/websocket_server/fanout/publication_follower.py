"""Connects Valkey and the hub: announces watched accounts, reads first values, follows publications.

While Valkey is away nothing here ends and clients keep what they have. When it is back, everything watched is
announced and read again. Start-up and recovery are one code path.
"""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Iterable
from typing import Final, NoReturn

import msgspec
import structlog

from portfolio_realtime.clock import NS_PER_S, Clock, parse_rfc3339
from portfolio_realtime.errors import StateError, StateUnavailable
from portfolio_realtime.model import PublicationBatch
from portfolio_realtime.pace import Pace
from portfolio_realtime.service import tell_away
from portfolio_realtime.state import State, keys
from portfolio_realtime.state.accounts import decode_changes
from portfolio_realtime.state.connection import Message, Subscribed
from portfolio_realtime.state.interest import RENEW_S, PartlyBegun
from portfolio_realtime.state.valuations import decode_batch, is_stored
from portfolio_realtime.telemetry import ServerMetrics
from portfolio_realtime.tracing import Tracing
from portfolio_realtime.websocket_server.fanout.delivery_traces import DeliveryTraces
from portfolio_realtime.websocket_server.fanout.direct_writes import DirectWrites
from portfolio_realtime.websocket_server.fanout.freshness import Lapse, ShardSigns
from portfolio_realtime.websocket_server.fanout.hub import Gathered, Hub
from portfolio_realtime.websocket_server.fanout.watched_account import Subscriber, WatchedAccount
from portfolio_realtime.wire.frames import text_of
from portfolio_realtime.wire.messages import Disconnect

BEGIN_ACCOUNTS_MAX: Final = 500  # accounts per round trip
BURST_MAX: Final = 4000  # publications handed on before other tasks may run
PUBLISH_S_MIN: Final = 0.002  # publications within this time of the last turn are handed on together
PUBLISH_S_MAX: Final = 0.03  # and at the latest this long after it
GATHER_S: Final = 0.01  # accounts newly watched within this are announced together
CROWD: Final = 8  # if there are more than this by then, waiting for further ones is cheaper
GATHER_CROWD_S: Final = 0.04  # the additional wait
AGAIN_S: Final = 0.5  # until accounts are announced again that Valkey, or a part of a cluster, did not take
INSIST_S: Final = 1.0  # between two reactions to too low an epoch of one shard
LIFE_S: Final = 1.0  # between two checks whether the state was lost
LIFE_AGAIN_S: Final = 0.25  # until the second look at interest that seems to be lost
LOOKED_AT_MAX: Final = 128  # watched accounts whose shards are looked at: of 16 shards, practically all
LOOK_S: Final = 0.5  # between two checks of the freshness of all shards
READY_S_MAX: Final = 1.0
UNKNOWN_S_MAX: Final = 5.0  # how long to wait for the record of an account

log = structlog.get_logger()


class _Published(msgspec.Struct):
    timestamp: str | None = None


_decode_published = msgspec.json.Decoder(_Published).decode


class PublicationFollower:
    """Feeds the hub of one server with publications."""

    def __init__(
        self,
        state: State,
        shards: int,
        clock: Clock,
        metrics: ServerMetrics,
        tracing: Tracing | None = None,
    ) -> None:
        self.direct_writes = DirectWrites()
        self.hub = Hub(self.direct_writes.send_all)
        self.is_following = False
        self._state = state
        self._shards = shards
        self._clock = clock
        self._metrics = metrics
        self._signs = ShardSigns(shards, clock.monotonic_s, clock.now_ns)
        self._shard_of_channel = state.valuations.channels()
        self._epochs = [0] * shards  # the newest epoch of each shard
        self._insisted_s: dict[int, float] = {}
        self._insisting: set[asyncio.Task[None]] = set()
        self._traces = None if tracing is None else DeliveryTraces(tracing, clock)
        self._was_gone = False  # our interest, at the last look
        self._begun: dict[str, None] = {}  # newly watched accounts, oldest first
        self._wake = asyncio.Event()
        self._gathered = Gathered()
        self._publishing: asyncio.TimerHandle | None = None  # hands on what is gathered
        self._pace = Pace(PUBLISH_S_MIN, PUBLISH_S_MAX)

    def watch(self, subscriber: Subscriber, account_id: str, *, with_positions: bool) -> WatchedAccount:
        """Subscribe to an account. What is not known yet follows by `notify`."""
        account, begins = self.hub.subscribe(subscriber, account_id, with_positions=with_positions)
        account.lapse = self._signs.lapse(self._shard(account_id))
        if begins:
            self._begin([account_id])
        return account

    def unwatch(self, subscriber: Subscriber, account_ids: Iterable[str]) -> None:
        """End subscriptions. Interest in accounts that are not watched any more expires by itself."""
        for account_id in account_ids:
            self.hub.unsubscribe(subscriber, account_id)

    def _begin(self, account_ids: Iterable[str]) -> None:
        self._begun.update(dict.fromkeys(account_ids))
        self._wake.set()

    async def follow(self) -> NoReturn:
        """Receive publications without end. Raises StateUnavailable."""
        try:
            async for event in self._state.valuations.batches():
                if isinstance(event, Subscribed):
                    self.is_following = True
                    self._signs.listen()
                    self._begin(self.hub.accounts)
                elif is_stored(event.payload):
                    self._take_stored(event.payload, is_kept=True)
                elif (batch := self._decoded(event)) is not None:
                    await self._gather(batch)
        finally:
            self.is_following = False
            self._publish()
        raise AssertionError("following never ends by itself")

    def _decoded(self, message: Message) -> PublicationBatch | None:
        try:
            batch = decode_batch(message.payload)
            shard = self._shard_of_channel[message.channel]
            self._signs.hear(shard, batch.stale_hops)
            if batch.epoch < self._epochs[shard] and batch.account_ids:
                self._insist(shard)
            self._epochs[shard] = max(self._epochs[shard], batch.epoch)
            if self._traces is not None:
                self._traces.hear(batch)
            return batch
        except msgspec.MsgspecError as error:
            self._malformed(message.channel, error)
            return None

    def _take_stored(self, message: bytes, *, is_kept: bool, account_id: str | None = None) -> None:
        try:
            self.hub.publish_stored(message, is_kept=is_kept, account_id=account_id)
        except msgspec.MsgspecError as error:
            self._malformed(account_id or "a server's channel", error)

    def _insist(self, shard: int) -> None:
        """React to a shard that is published with a lower epoch than clients have seen: they would drop it.

        This happens when a state and its clock were lost at once. The calculator learns of it because its
        next write is refused.
        """
        now_s = self._clock.monotonic_s()
        if now_s - self._insisted_s.get(shard, -INSIST_S) < INSIST_S:
            return
        self._insisted_s[shard] = now_s
        log.warning("a shard is published with too low an epoch", shard=shard)
        task = asyncio.ensure_future(self._raise_fence(shard, self._epochs[shard]))
        self._insisting.add(task)
        task.add_done_callback(self._insisting.discard)

    async def _raise_fence(self, shard: int, epoch: int) -> None:
        with contextlib.suppress(StateError):
            await self._state.valuations.insist(shard, epoch)

    def _malformed(self, where: str, error: Exception) -> None:
        """Count and log an error of another process, which must not end this service."""
        self._metrics.malformed.inc()
        log.warning("a publication could not be decoded", where=where, reason=str(error))

    async def _gather(self, batch: PublicationBatch) -> None:
        """Hand publications on: at once after quiet, together while busy, at most BURST_MAX at a time."""
        for first in range(0, len(batch.frames), BURST_MAX):
            self._gathered.add(batch, first, first + BURST_MAX)
            if len(self._gathered) >= BURST_MAX:
                self._publish()
                await asyncio.sleep(0)
        if len(self._gathered) and self._publishing is None:
            wait_s = self._pace.wait_s(self._clock.monotonic_s())
            self._publishing = asyncio.get_running_loop().call_later(wait_s, self._publish)

    def _publish(self) -> None:
        if self._publishing is not None:
            self._publishing.cancel()
            self._publishing = None
        gathered, self._gathered = self._gathered, Gathered()
        began_s = self._clock.monotonic_s()
        if self._traces is not None:
            self._traces.begin()
        if len(gathered) and self.hub.publish(gathered):
            self._measure(gathered)
        if self._traces is not None:
            self._traces.end(self.hub.accounts)
        self._pace.took(began_s, self._clock.monotonic_s())

    def _measure(self, gathered: Gathered) -> None:
        """Observe the lag of the first publication, which has waited longest."""
        try:
            published = _decode_published(text_of(gathered.frames[0])).timestamp
            if published is not None:
                lag_ns = self._clock.now_ns() - parse_rfc3339(published)
                self._metrics.fan_out_lag.observe(lag_ns / NS_PER_S)
        except (msgspec.MsgspecError, ValueError) as error:
            self._malformed(gathered.account_ids[0], error)

    async def announce(self) -> NoReturn:
        """Announce and read newly watched accounts, without end; again every AGAIN_S while Valkey is away.

        The pauses do not grow: until it is announced, a watched account gets no values, and nothing marks it.
        """
        while True:
            await self._gather_begun()
            begun = list(itertools.islice(self._begun, BEGIN_ACCOUNTS_MAX))
            for account_id in begun:
                del self._begun[account_id]
            try:
                await self._announce([account_id for account_id in begun if account_id in self.hub.accounts])
            except StateUnavailable as error:
                tell_away(error)
                self._begin(begun)
                await asyncio.sleep(AGAIN_S)

    async def _gather_begun(self) -> None:
        """Wait for a newly watched account, and a little longer for others that follow."""
        while not self._begun:
            self._wake.clear()
            await self._wake.wait()
        if len(self._begun) < BEGIN_ACCOUNTS_MAX:
            await asyncio.sleep(GATHER_S)
        if CROWD < len(self._begun) < BEGIN_ACCOUNTS_MAX:
            await asyncio.sleep(GATHER_CROWD_S)

    async def _announce(self, account_ids: list[str]) -> None:
        accounts = self.hub.accounts
        with_positions = [
            account_id for account_id in account_ids if accounts[account_id].has_positions_watched
        ]
        try:
            found = await self._state.interest.begin(account_ids, with_positions)
        except PartlyBegun as error:
            found = error.stored
            missed = set(error.missed)
            account_ids = [account_id for account_id in account_ids if account_id not in missed]
            asyncio.get_running_loop().call_later(AGAIN_S, self._begin, error.missed)
        for account_id, stored in found.items():
            self._take_stored(stored.message, is_kept=stored.is_kept, account_id=account_id)
        without_value = [
            account_id
            for account_id in account_ids
            if (account := accounts.get(account_id)) is not None and account.at is None
        ]
        unknown = await self._state.accounts.unknown(without_value) if without_value else {}
        for account_id, pending in unknown.items():
            if (account := accounts.get(account_id)) is None:
                continue
            if pending is None:
                self._refuse(account)
            else:
                self._refuse_all(account, Disconnect.NOT_IN_DOLLARS)

    def _refuse(self, account: WatchedAccount) -> None:
        """Refuse an account without a record: to impatient subscribers at once, to others later.

        The others are refused after UNKNOWN_S_MAX. Records are written one by one when the symbol collector
        starts, those of watched accounts first. A refusal is final, so it must not reach a client that only
        came too early.
        """
        loop = asyncio.get_running_loop()
        if account.unknown_since_s is None:
            account.unknown_since_s = loop.time()
            loop.call_later(UNKNOWN_S_MAX, self._begin, [account.account_id])
        is_certain = loop.time() - account.unknown_since_s >= UNKNOWN_S_MAX
        self._refuse_all(account, Disconnect.FORBIDDEN, but_patient=not is_certain)

    def _refuse_all(self, account: WatchedAccount, why: Disconnect, *, but_patient: bool = False) -> None:
        for subscriber in tuple(account.subscribers):
            if not (but_patient and subscriber.is_patient):
                subscriber.refuse(account.account_id, why)
                self.hub.unsubscribe(subscriber, account.account_id)

    async def follow_closures(self) -> NoReturn:
        """Refuse watched accounts whose record is removed, without end. Raises StateUnavailable.

        Only announcements count: a missing record may also mean that Valkey was emptied.
        """
        async for event in self._state.accounts.changes(list(range(self._shards))):
            if isinstance(event, Subscribed):
                continue
            try:
                changes = decode_changes(event.payload)
            except msgspec.MsgspecError as error:
                self._malformed(event.channel, error)
                continue
            for change in changes:
                account = self.hub.accounts.get(change.account_id)
                if change.version == 0 and account is not None:
                    self._refuse_all(account, Disconnect.FORBIDDEN)
        raise AssertionError("following never ends by itself")

    async def follow_life(self) -> NoReturn:
        """Notice without end when Valkey has lost its state, or our interest alone (evicted, deleted)."""
        ours, known = secrets.token_hex(8), ""
        while True:
            with contextlib.suppress(StateUnavailable):
                await self._reach()
                life = await self._state.interest.life(ours)
                self._signs.reach()
                is_other_life, known = bool(known) and life != known, life
                some = list(itertools.islice(self.hub.accounts.values(), LOOKED_AT_MAX))
                if is_other_life or await self._is_interest_gone(some):
                    log.warning("Valkey has lost its state: all watched accounts are announced again")
                    self._begin(self.hub.accounts)
                ours = secrets.token_hex(8) if life == ours else ours  # for the next life
            await asyncio.sleep(LIFE_AGAIN_S if self._was_gone else LIFE_S)

    async def _is_interest_gone(self, accounts: list[WatchedAccount]) -> bool:
        """Whether their interest is gone, also when they are looked at again: it may be on its way."""
        gone = bool(accounts) and await self._state.interest.is_gone(*_watched(accounts))
        is_again, self._was_gone = gone and self._was_gone, gone and not self._was_gone
        return is_again

    async def _reach(self) -> None:
        """On a cluster, any node that answers is enough: a lost primary silences only its own shards."""
        if self._state.connection.is_cluster:
            await self._state.connection.ping()
            self._signs.reach()

    async def renew(self) -> NoReturn:
        """Renew the interest in all watched accounts, without end."""
        while True:
            await asyncio.sleep(RENEW_S)
            await self._renew_once()

    async def _renew_once(self) -> None:
        watched = list(self.hub.accounts.values())
        self._begin(account.account_id for account in watched if account.is_incomplete)
        for at in range(0, len(watched), BEGIN_ACCOUNTS_MAX):
            part = watched[at : at + BEGIN_ACCOUNTS_MAX]
            try:
                ended = await self._state.interest.renew(*_watched(part))
                self._begin(ended)
            except StateUnavailable:  # the next round, or SUBSCRIBED, repeats it
                if not self._state.connection.is_cluster:
                    return

    async def watch_freshness(self) -> NoReturn:
        """Notice without end which shards are not published any more, and notify their subscribers."""
        is_anything_heard, now_s = True, self._clock.monotonic_s
        while True:
            due_s = now_s() + LOOK_S
            await asyncio.sleep(LOOK_S)
            if now_s() - due_s > LOOK_S:  # this process was paused
                self._signs.wake()
            if changed := self._signs.look(is_following=self.is_following):
                self._tell_changed(changed)
            for hop, count in self._signs.counts().items():
                self._metrics.stale_shards.labels(hop).set(count)
            if self._signs.is_anything_heard != is_anything_heard:
                is_anything_heard = not is_anything_heard
                if is_anything_heard:
                    log.info("values are published again")
                else:
                    log.warning("no values are published: is a portfolio calculator running?")

    def _tell_changed(self, shards: set[int]) -> None:
        def lapse_of(account_id: str) -> Lapse | None:
            shard = self._shard(account_id)
            return self._signs.lapse(shard) if shard in shards else None

        self.hub.mark(lapse_of)

    def _shard(self, account_id: str) -> int:
        return keys.shard_of(account_id, self._shards)

    @property
    def is_hearing(self) -> bool:
        """Whether publications are followed, and any shard is published."""
        return self.is_following and self._signs.is_anything_heard

    async def is_ready(self) -> bool:
        """Whether Valkey answers, publications are followed, and any shard is published."""
        if not self.is_hearing:
            return False
        try:
            async with asyncio.timeout(READY_S_MAX):
                await self._state.connection.ping()
        except (StateError, TimeoutError):
            return False
        return True


def _watched(accounts: Iterable[WatchedAccount]) -> tuple[list[str], list[str]]:
    """The ids of these accounts, and of those that are watched with positions."""
    ids = [(account.account_id, account.has_positions_watched) for account in accounts]
    return [name for name, _ in ids], [name for name, with_positions in ids if with_positions]
