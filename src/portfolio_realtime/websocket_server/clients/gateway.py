"""What all client connections of one server share: admission, deadlines, and the drain."""

import asyncio
import contextlib
import random
from collections.abc import Iterable, Mapping
from typing import Final, NoReturn, Protocol

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from portfolio_realtime.clock import NS_PER_S, Clock, rfc3339
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import StateError
from portfolio_realtime.state import State
from portfolio_realtime.telemetry import ServerMetrics
from portfolio_realtime.tracing import Tracing
from portfolio_realtime.websocket_server.access.authentication import Authenticator
from portfolio_realtime.websocket_server.access.authorization import UNCONFIRMED_S_MAX, open_access
from portfolio_realtime.websocket_server.access.client_address import ClientAddress, NetworkRules
from portfolio_realtime.websocket_server.access.identity import (
    Confirmed,
    Identity,
    Unauthorized,
    Unverifiable,
)
from portfolio_realtime.websocket_server.access.limits import ADDRESS, USER, Limits
from portfolio_realtime.websocket_server.access.refusal_log import RefusalLog
from portfolio_realtime.websocket_server.access.revocations import KnownRevocations
from portfolio_realtime.websocket_server.access.shared_counts import Excess, SharedCounts
from portfolio_realtime.websocket_server.fanout.publication_follower import PublicationFollower
from portfolio_realtime.websocket_server.fanout.watched_account import Subscriber
from portfolio_realtime.wire.http_problems import HttpProblem
from portfolio_realtime.wire.messages import Disconnect

CONNECTIONS_MAX: Final = 50_000
SWEEP_S: Final = 1.0
SWEEP_CONNECTIONS_MAX: Final = 1000  # before other tasks may run
DRAIN_STEP_S: Final = 0.1
DRAIN_CLIENTS_PER_S_MIN: Final = 100

log = structlog.get_logger()

_encode_identity = msgspec.json.Encoder().encode
_decode_identity = msgspec.json.Decoder(Identity).decode


class Client(Subscriber, Protocol):
    """One client's connection, as the gateway uses it."""

    @property
    def identity(self) -> Identity | None:
        """The client's identity, or None before authentication."""
        ...

    @property
    def address(self) -> ClientAddress:
        """The client's address."""
        ...

    @property
    def account_ids(self) -> Iterable[str]:
        """The accounts to which the client subscribes."""
        ...

    def regard(self, identity: Identity) -> None:
        """Change the accounts that the client may see."""
        ...

    @property
    def due_s(self) -> float:
        """When `enforce_deadlines` next has something to do, in seconds of the event loop."""
        ...

    def enforce_deadlines(self) -> None:
        """Close if late; send pings and notices that are due."""
        ...

    def close(self, disconnect: Disconnect) -> None:
        """Send the reason, and close."""
        ...


class MessageCounts:
    """Frequent events as plain numbers, which the sweep adds to the metrics."""

    __slots__ = ("accepted", "conflated", "sent", "sent_bytes")

    def __init__(self) -> None:
        self.accepted = self.sent = self.sent_bytes = self.conflated = 0


class Gateway:
    """Admits and removes clients, and knows all connected ones."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        clock: Clock,
        registry: CollectorRegistry,
        shared: SharedCounts | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.settings = settings
        self.state = state
        self.registry = registry
        self.metrics = ServerMetrics(registry)
        self.counts = MessageCounts()
        self.follower = PublicationFollower(state, settings.shards, clock, self.metrics, tracing)
        self.network = NetworkRules(settings)
        self.limits = Limits(settings, shared)
        if shared is not None:
            shared.on_excess = self.close_excess
        self.revocations = KnownRevocations(
            settings.jwt_lifetime_max,
            is_complete=settings.redis_is_embedded,
            lets_undated_in=settings.alpaca_sandbox,
        )
        self.access = open_access(settings, state)
        self.authenticator = Authenticator(settings, self.access, self.revocations)
        self.clients: dict[Client, str | None] = {}  # client -> the user for whom it is counted
        self.connections_max = CONNECTIONS_MAX  # lower if the system allows fewer open files
        self.is_draining = False  # the load balancer should send no new clients
        self.is_closed = False  # no client is admitted any more
        self._clock = clock
        self._refusal_log = RefusalLog()
        self._confirmed_s: dict[str, float] = {}  # subject -> when its accounts were last certain

    def valid_for_s(self, identity: Identity) -> float | None:
        """How many more seconds an identity is valid; None: without a limit."""
        if identity.expires_at_s is None:
            return None
        return identity.expires_at_s - self._clock.now_ns() / NS_PER_S

    @property
    def now_text(self) -> str:
        """The present time, RFC 3339."""
        return rfc3339(self._clock.now_ns())

    # Coming and going

    def refusal(self, limit_key: str | None) -> HttpProblem | None:
        """Why no client may connect from this address now, or None. Each call counts as an attempt."""
        if limit_key is not None and not self.limits.may_connect(limit_key, self._now_s()):
            return HttpProblem.TOO_MANY
        if self.is_closed or len(self.clients) >= self.connections_max:
            return HttpProblem.NO_ROOM
        return None

    def enter(self, client: Client, *, is_limited: bool = False) -> bool:
        """Count a client and its address; False if the address has too many. `leave` undoes it."""
        limit_key = client.address.limit_key
        if limit_key is not None:
            connections = self.limits.connections_of_address
            if not connections.enter(limit_key, is_limited=is_limited):
                return False
        self.clients[client] = None
        return True

    def admit(self, client: Client, identity: Identity) -> bool:
        """Count the user of an entered client; False if the user has too many or connects too often."""
        if identity.is_for_every_account:
            return True
        if not self.limits.enter(identity.subject, self._now_s()):
            return False
        self.clients[client] = identity.subject
        return True

    def leave(self, client: Client, end: str | None) -> None:
        """Undo `enter` and `admit`, once.

        `end`: the metric label of the close code; None: the connection was never open.
        """
        if client not in self.clients:
            return
        subject = self.clients.pop(client)
        self.follower.unwatch(client, client.account_ids)
        if client.address.limit_key is not None:
            self.limits.connections_of_address.leave(client.address.limit_key)
        if subject is not None:
            self.limits.connections_of_user.leave(subject)
        if end is not None:
            self.metrics.disconnects.labels(end).inc()

    def close_excess(self, excess: Excess) -> None:
        """Close the newest connections of users and addresses that have too many at all servers together."""
        left = dict(excess)
        for client in reversed(tuple(self.clients)):
            for kind, key, why in (
                (USER, self.clients[client], Disconnect.CONNECTION_LIMIT),
                (ADDRESS, client.address.limit_key, Disconnect.UNVERIFIABLE),  # it may come again later
            ):
                if key is not None and left.get((kind, key), 0) > 0:
                    left[kind, key] -= 1
                    client.close(why)

    def count_refused_credentials(self, why: Unauthorized, address: ClientAddress) -> bool:
        """Count and log refused credentials: the reason, never the credentials.

        Returns False if the address was refused too often within a minute. Then they are counted and not
        logged.
        """
        self.metrics.auth_failures.labels(why.reason).inc()
        now_s = self._now_s()
        key = address.limit_key
        if key is not None and not self.limits.refusals_of_address.try_acquire(key, now_s):
            return False
        self._refusal_log.add("credentials refused", why.reason, address.ip, now_s)
        return True

    def count_refused_handshake(self, problem: HttpProblem, address: ClientAddress) -> None:
        """Count and log a handshake that ends with an HTTP status."""
        self.metrics.connects.labels(str(problem.status.value)).inc()
        reason = f"{problem.status.value} {problem.code}"
        self._refusal_log.add("handshake refused", reason, address.ip, self._now_s())

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    # Identity and accounts

    async def identify(
        self, peer: str, headers: Mapping[str, str], query: Mapping[str, str]
    ) -> Identity | None:
        """The identity of a client that opens a WebSocket; None: it is in the first message.

        Raises Unauthorized, Unverifiable.
        """
        if ticket := query.get("ticket"):
            return await self.redeem_ticket(ticket)
        return await self.authenticator.by_handshake(peer, headers, query.get("token"))

    async def issue_ticket(self, identity: Identity) -> str:
        """A ticket for one WebSocket connection of this identity. Raises StateUnavailable."""
        return await self.state.tickets.issue(_encode_identity(identity))

    async def redeem_ticket(self, ticket: str) -> Identity:
        """Use a ticket. Raises Unauthorized.

        Raises Unverifiable without Valkey, because a ticket cannot be checked then.
        """
        try:
            bearer = await self.state.tickets.redeem(ticket)
        except StateError:
            raise Unverifiable("ticket_unverifiable") from None
        if bearer is None:
            raise Unauthorized("ticket")
        identity = _decode_identity(bearer)
        remaining_s = self.valid_for_s(identity)
        if remaining_s is not None and remaining_s <= 0:
            raise Unauthorized("expired")
        return await self.authenticator.admitted(identity)

    def may_send(self, identity: Identity | None, now_s: float) -> bool:
        """Whether this user may send one more message.

        Before authentication, only the limit of the connection counts.
        """
        if identity is None or identity.is_for_every_account:
            return True
        return self.limits.messages_of_user.try_acquire(identity.subject, now_s)

    async def is_ready(self) -> bool:
        """Whether clients can be admitted and publications arrive."""
        return self.revocations.is_current and await self.follower.is_ready()

    async def follow_revocations(self) -> NoReturn:
        """Close clients whose token is revoked, at once and without end. Raises StateUnavailable."""
        while True:
            if await self.revocations.read_new(self.state):
                for client in tuple(self.clients):
                    if client.identity is not None and client.identity in self.revocations:
                        client.close(Disconnect.UNAUTHORIZED)

    async def confirm_access(self) -> NoReturn:
        """Check again every AUTHZ_INTERVAL which accounts the connected users may see, without end."""
        while True:
            await asyncio.sleep(self.settings.authz_interval)
            if self.settings.account_access != "claim":
                await self._confirm_once()

    async def _confirm_once(self) -> None:
        held: dict[str, frozenset[str]] = {}
        for identity in self._users():
            held[identity.subject] = held.get(identity.subject, frozenset()) | identity.accounts
        now_s = self._now_s()
        self._confirmed_s = {subject: self._confirmed_s.get(subject, now_s) for subject in held}
        confirmed: dict[str, Confirmed] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UNCONFIRMED_S_MAX):
                confirmed = await self.access.confirm(held)
        now_s = self._now_s()
        self._confirmed_s.update((subject, now_s) for subject, found in confirmed.items() if found.is_certain)
        for client in tuple(self.clients):
            identity = client.identity
            if identity is None or identity.subject not in held or not identity.is_by_token:
                continue
            if now_s - self._confirmed_s[identity.subject] > UNCONFIRMED_S_MAX:
                client.close(Disconnect.UNVERIFIABLE)
            elif found := confirmed.get(identity.subject):
                newer = identity.accounts - held[identity.subject]
                client.regard(identity.with_accounts(found.accounts | newer))

    def _users(self) -> list[Identity]:
        return [
            client.identity
            for client in self.clients
            if client.identity is not None and client.identity.is_by_token
        ]

    async def close(self) -> None:
        """Close the connections to the services that check identities and accounts."""
        await self.authenticator.close()
        await self.access.close()

    async def sweep(self) -> NoReturn:
        """Every SWEEP_S, enforce the deadlines of all clients and update the metrics."""
        while True:
            now_s = self._now_s()
            for index, client in enumerate(tuple(self.clients)):
                if client.due_s <= now_s:
                    client.enforce_deadlines()
                if index % SWEEP_CONNECTIONS_MAX == SWEEP_CONNECTIONS_MAX - 1:
                    await asyncio.sleep(0)
            self.bring_counts()
            self._refusal_log.end_minute(self._now_s())
            await asyncio.sleep(SWEEP_S)

    def bring_counts(self) -> None:
        """Add what was counted since the last call to the metrics."""
        counts, self.counts = self.counts, MessageCounts()
        hub = self.follower.hub
        counts.sent, hub.sent = counts.sent + hub.sent, 0
        counts.sent_bytes, hub.sent_bytes = counts.sent_bytes + hub.sent_bytes, 0
        counts.conflated, hub.conflated = counts.conflated + hub.conflated, 0
        self.metrics.connects.labels("accepted").inc(counts.accepted)
        self.metrics.sent.inc(counts.sent)
        self.metrics.sent_bytes.inc(counts.sent_bytes)
        self.metrics.conflated.inc(counts.conflated)
        self.metrics.connections.set(len(self.clients))

    async def drain(self) -> None:
        """Leave service: let the load balancer notice, then ask all clients to reconnect, a few at a time.

        Until its turn comes, a client gets its values as usual.
        """
        self.is_draining = True
        log.info("draining", clients=len(self.clients))
        await asyncio.sleep(self.settings.drain_grace_seconds)
        self.is_closed = True
        clients = list(self.clients)
        random.shuffle(clients)
        duration_s = min(self.settings.drain_seconds, len(clients) / DRAIN_CLIENTS_PER_S_MIN)
        steps = max(1, int(duration_s / DRAIN_STEP_S))
        for step in range(steps):
            self.close_all(clients[step::steps])
            await asyncio.sleep(duration_s / steps)

    def close_all(self, clients: Iterable[Client]) -> None:
        """Ask clients to reconnect."""
        for client in clients:
            client.close(Disconnect.SHUTDOWN)
