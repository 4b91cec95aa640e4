"""Servers and clients without sockets: the product's follower, hub and connections, and simulated readers."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from portfolio_harness.simulation.broker_truth import NS
from portfolio_harness.simulation.judge import SimulationJudge, WatcherHistory
from portfolio_realtime.clock import Clock
from portfolio_realtime.config import Settings
from portfolio_realtime.service import keep_running, together
from portfolio_realtime.state import State
from portfolio_realtime.telemetry import ServerMetrics
from portfolio_realtime.websocket_server.access.authentication import Authenticator
from portfolio_realtime.websocket_server.access.identity import Identity, Unauthorized
from portfolio_realtime.websocket_server.access.revocations import KnownRevocations
from portfolio_realtime.websocket_server.clients.connection import ClientConnection, ForbiddenRequest
from portfolio_realtime.websocket_server.fanout.hub import Hub
from portfolio_realtime.websocket_server.fanout.newest_columns import StreamPosition
from portfolio_realtime.websocket_server.fanout.publication_follower import PublicationFollower
from portfolio_realtime.websocket_server.fanout.watched_account import WatchedAccount
from portfolio_realtime.wire.frames import text_of
from portfolio_realtime.wire.messages import Disconnect, Subscribe, encode

CHECK_S: Final = 1.0  # how often a server checks its clients
RECONNECT_S: Final = 0.5
WAITING_FRAMES: Final = 3  # the frames that a socket buffers after its client has stopped reading


class SimulatedServer:
    """One WebSocket server process."""

    def __init__(
        self, state: State, settings: Settings, clock: Clock, metrics: ServerMetrics, judge: SimulationJudge
    ) -> None:
        self.follower = PublicationFollower(state, settings.shards, clock, metrics)
        self.follower.hub = Hub(self._send_all)
        self.clients: dict[int, SimulatedWatcher] = {}  # by file number
        self.judge = judge
        self._state = state
        self._clock = clock
        self._revocations = KnownRevocations(
            settings.jwt_lifetime_max,
            monotonic_s=clock.monotonic_s,
            now_s=lambda: clock.now_ns() / NS,
        )
        self._authenticator = Authenticator(settings, revoked=self._revocations)

    async def admits(self, identity: Identity) -> bool:
        """Whether this server lets a client in whose token's signature is right."""
        try:
            await self._authenticator.admitted(identity)
        except Unauthorized:
            return False
        return True

    async def _follow_revocations(self) -> None:
        while True:
            await self._revocations.read_new(self._state)

    async def run(self) -> None:
        """Run the tasks that the real server runs."""
        follower, clock = self.follower, self._clock
        await together(
            self._sweep(),
            follower.renew(),
            follower.watch_freshness(),
            follower.follow_life(),
            keep_running(follower.follow, clock, "following publications"),
            keep_running(follower.follow_closures, clock, "following closures"),
            keep_running(follower.announce, clock, "announcing interest"),
            keep_running(self._follow_revocations, clock, "following revocations"),
        )

    def _send_all(self, filenos: Sequence[int], frames: Sequence[bytes]) -> int:
        for fileno, joined in zip(filenos, frames, strict=True):
            for frame in separate(joined):
                self.clients[fileno].write(frame)
        return sum(map(len, frames))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            for client in tuple(self.clients.values()):
                client.check()


class SimulatedWatcher:
    """One client's connection: the product's `ClientConnection` with a simulated socket."""

    def __init__(self, server: SimulatedServer, history: WatcherHistory, fileno: int, valid_s: float) -> None:
        self.server = server
        self.history = history
        self._fileno = fileno
        self._loop = asyncio.get_running_loop()
        self.connection = ClientConnection(self._loop.time())
        self.is_open = True
        self._is_reading = True
        self._unread: list[bytes] = []
        self.closed: Disconnect | None = None
        server.clients[fileno] = self
        history.is_first, history.is_away, history.hops = True, False, ()
        history.since_s = self._loop.time()
        history.expires_s = self._loop.time() + valid_s
        identity = Identity(history.name, frozenset({history.account_id}), 0.0)
        self.connection.authenticated(identity, self._loop.time(), valid_s)

    def subscribe(self) -> None:
        """Subscribe to the client's own account. As the protocol asks, say which value was received last."""
        detail: Any = "positions" if self.history.with_positions else "value"
        epoch, sequence = self.history.order if self.history.newest else (None, None)
        self.ask(Subscribe(self.history.account_id, detail, epoch=epoch, sequence=sequence))

    def ask(self, request: Subscribe) -> None:
        """Send a subscribe message of the client to its server."""
        match self.connection.received(encode(request), self._loop.time()):
            case Subscribe() as permitted:
                with_positions = permitted.detail == "positions"
                account = self.server.follower.watch(
                    self, permitted.account_id, with_positions=with_positions
                )
                self.connection.subscribe(account, permitted)
            case ForbiddenRequest() | None:
                pass
            case other:
                raise AssertionError(f"unexpected result of a subscribe message: {other}")
        self._flush()

    def stop_reading(self) -> None:
        """Stop reading: the socket is full after WAITING_FRAMES frames."""
        self._is_reading = False
        self.history.is_away = True

    def read_on(self) -> None:
        """Read what waits, and go on reading. Too many waiting frames break promise P7."""
        self._is_reading = True
        self.history.is_away, self.history.since_s = False, self._loop.time()
        unread, self._unread = self._unread, []
        if len(unread) > WAITING_FRAMES + 1:
            self.server.judge.note(
                "P7", self._loop.time(), f"{len(unread)} frames wait for {self.history.name}"
            )
        for frame in unread:
            self.server.judge.take(self.history, text_of(frame), self._loop.time())
        self.connection.resume()
        self._flush()

    def write(self, frame: bytes) -> None:
        """Write a frame to the simulated socket."""
        if self._is_reading:
            self.server.judge.take(self.history, text_of(frame), self._loop.time())
            return
        self._unread.append(frame)
        if len(self._unread) >= WAITING_FRAMES:
            self.connection.leave_direct()
            self.connection.pause(self._loop.time())

    def check(self) -> None:
        """Do what the server's sweep does: answer a ping, enforce deadlines, send what is pending."""
        now_s = self._loop.time()
        if self.connection.is_ping_due(now_s) and self._is_reading:
            self.connection.pong(now_s)
        if (why := self.connection.disconnect_due(now_s)) is not None:
            self.closed = why
            self.close()
        else:
            self._flush()

    def close(self) -> None:
        """End the connection."""
        self.is_open = False
        self.history.is_away = True
        self.connection.leave_direct()
        self.server.clients.pop(self._fileno, None)
        self.server.follower.unwatch(self, tuple(self.connection.subscriptions))

    # The hub calls these

    @property
    def is_patient(self) -> bool:
        """True, as for every WebSocket client."""
        return True

    def notify(self, account: WatchedAccount) -> None:
        """Send the account's newer publication or freshness."""
        self.connection.mark_pending(account)
        self._flush()

    def refuse(self, account_id: str, why: Disconnect) -> None:
        """Note a refusal: it breaks promise P13, because all accounts exist."""
        self.server.judge.note("P13", self._loop.time(), f"{self.history.name} is refused: {why.name}")

    def position_sent(self, account_id: str) -> StreamPosition | None:
        """The stream position that the client was last sent; None without a subscription."""
        subscription = self.connection.subscriptions.get(account_id)
        return subscription.position_sent if subscription else None

    def _flush(self) -> None:
        if not self.is_open:
            return
        now_s = self._loop.time()
        while (frame := self.connection.next_frame(now_s)) is not None:
            self.write(frame)
        if self._is_reading and self.connection.may_go_direct:
            self.connection.go_direct(self._fileno)


def separate(joined: bytes) -> list[bytes]:
    """Split the bytes of one write into its unmasked frames (RFC 6455 §5.2)."""
    frames: list[bytes] = []
    while joined:
        length, head = joined[1], 2
        if length > 125:
            head = 4 if length == 126 else 10
            length = int.from_bytes(joined[2:head])
        frames.append(joined[: head + length])
        joined = joined[head + length :]
    return frames
