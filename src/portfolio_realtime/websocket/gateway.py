"""What all client connections of one server share: who may come in, the sweep over them, the drain."""

import asyncio
import random
from collections import Counter
from typing import Final, NoReturn, Protocol

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from portfolio_realtime.clock import NS_PER_S, Clock
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.state import State
from portfolio_realtime.telemetry import ServerMetrics
from portfolio_realtime.websocket.authentication import Authenticator, Identity, Unauthorized
from portfolio_realtime.websocket.follower import Follower
from portfolio_realtime.websocket.protocol import Disconnect

CONNECTIONS_MAX: Final = 50_000
CONNECTIONS_PER_SUBJECT_MAX: Final = 100  # but back ends, which may see every account
SWEEP_S: Final = 0.5
SWEEP_CONNECTIONS_MAX: Final = 1000  # between two turns of the event loop
DRAIN_S: Final = 1.5
DRAIN_STEPS: Final = 15

log = structlog.get_logger()

_encode_identity = msgspec.json.Encoder().encode
_decode_identity = msgspec.json.Decoder(Identity).decode


class Client(Protocol):
    """One client's connection, as the gateway knows it."""

    def check(self) -> None:
        """Do what time brings: pings, notices, deadlines."""
        ...

    def close(self, disconnect: Disconnect) -> None:
        """Say why, and close."""
        ...


class Counts:
    """Counted in the fan-out path as plain numbers, brought to the metrics by the sweep."""

    __slots__ = ("conflated", "sent", "sent_bytes")

    def __init__(self) -> None:
        self.sent = self.sent_bytes = self.conflated = 0


class Gateway:
    """The door, and everybody who is in."""

    def __init__(self, settings: Settings, state: State, clock: Clock, registry: CollectorRegistry) -> None:
        self.settings = settings
        self.state = state
        self.registry = registry
        self.metrics = ServerMetrics(registry)
        self.counts = Counts()
        self.follower = Follower(state, clock, self.metrics.fan_out_lag)
        self.authenticator = Authenticator(settings)
        self.allowed_origins = frozenset(
            origin.strip().rstrip("/") for origin in settings.allowed_origins.split(",") if origin.strip()
        )
        self.clients: set[Client] = set()
        self.is_draining = False
        self._clock = clock
        self._subjects: Counter[str] = Counter()

    def valid_for_s(self, identity: Identity) -> float | None:
        """How much longer an identity is valid; None: for ever."""
        if identity.expires_at_s is None:
            return None
        return identity.expires_at_s - self._clock.now_ns() / NS_PER_S

    def refused(self, why: Unauthorized, peer: str) -> None:
        """Count and log refused credentials: the reason, never the credentials."""
        self.metrics.auth_failures.labels(why.reason).inc()
        log.info("credentials refused", reason=why.reason, peer=peer)

    async def issue_ticket(self, identity: Identity) -> str:
        """A ticket for one WebSocket connection of this identity. Raises StateUnavailable."""
        return await self.state.tickets.issue(_encode_identity(identity))

    async def redeem_ticket(self, ticket: str) -> Identity:
        """Use a ticket up. Raises Unauthorized; without Valkey no ticket can be trusted, so then too."""
        try:
            bearer = await self.state.tickets.take(ticket)
        except StateUnavailable:
            raise Unauthorized("ticket_unverifiable") from None
        if bearer is None:
            raise Unauthorized("ticket")
        identity = _decode_identity(bearer)
        remaining_s = self.valid_for_s(identity)
        if remaining_s is not None and remaining_s <= 0:
            raise Unauthorized("expired")
        return identity

    def admit(self, identity: Identity) -> bool:
        """Count a connection of this identity, unless it has too many; `leave` gives the place back."""
        is_limited = not identity.is_for_every_account
        if is_limited and self._subjects[identity.subject] >= CONNECTIONS_PER_SUBJECT_MAX:
            return False
        self._subjects[identity.subject] += 1
        return True

    def leave(self, identity: Identity) -> None:
        """A connection of this identity has ended."""
        self._subjects[identity.subject] -= 1
        if not self._subjects[identity.subject]:
            del self._subjects[identity.subject]

    async def sweep(self) -> NoReturn:
        """Every SWEEP_S: deadlines and pings of all clients, and the counts into the metrics."""
        while True:
            for index, client in enumerate(tuple(self.clients)):
                client.check()
                if index % SWEEP_CONNECTIONS_MAX == SWEEP_CONNECTIONS_MAX - 1:
                    await asyncio.sleep(0)
            self.bring_counts()
            await asyncio.sleep(SWEEP_S)

    def bring_counts(self) -> None:
        """Bring what was counted since the last time to the metrics."""
        counts, self.counts = self.counts, Counts()
        self.metrics.sent.inc(counts.sent)
        self.metrics.sent_bytes.inc(counts.sent_bytes)
        self.metrics.conflated.inc(counts.conflated)
        self.metrics.connections.set(len(self.clients))

    async def drain(self) -> None:
        """Let nobody in, and ask everybody to reconnect, a few at a time, in a shuffled order."""
        self.is_draining = True
        clients = list(self.clients)
        random.shuffle(clients)
        for step in range(DRAIN_STEPS):
            part = clients[step::DRAIN_STEPS]
            if not part:
                break
            for client in part:
                client.close(Disconnect.SHUTDOWN)
            await asyncio.sleep(DRAIN_S / DRAIN_STEPS)
