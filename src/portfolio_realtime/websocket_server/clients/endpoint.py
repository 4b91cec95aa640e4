"""One WebSocket on uvicorn's transport: moves bytes, and leaves all decisions to `ClientConnection`.

It uses the sans-I/O protocol of the package `websockets`, which handles control frames and hostile input.
Publications go to the transport as prebuilt frames. uvicorn makes one object for each upgrade request:
`uvicorn.Config(ws=partial(Endpoint, gateway))`.
"""

import asyncio
import contextlib
import random
from collections.abc import Coroutine, Iterable
from typing import Any, Final, cast

from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import OPEN, Protocol

from portfolio_realtime.websocket_server.access.client_address import ClientAddress, joined, plain_address
from portfolio_realtime.websocket_server.access.identity import (
    FORBIDDEN,
    Identity,
    Unauthorized,
    Unverifiable,
)
from portfolio_realtime.websocket_server.clients import handshake
from portfolio_realtime.websocket_server.clients.connection import ClientConnection, ForbiddenRequest
from portfolio_realtime.websocket_server.clients.direct_socket import DirectSocket
from portfolio_realtime.websocket_server.clients.end_label import end_label
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.clients.never_waiting import run_at_once
from portfolio_realtime.websocket_server.clients.quiet_clients import EMPTY_PING, is_empty_pong, new_protocol
from portfolio_realtime.websocket_server.clients.requested import requested
from portfolio_realtime.websocket_server.clients.text_messages import TextMessages
from portfolio_realtime.websocket_server.fanout.watched_account import StreamPosition, WatchedAccount
from portfolio_realtime.wire.http_problems import HttpProblem
from portfolio_realtime.wire.messages import (
    Auth,
    ClientMessage,
    Disconnect,
    Heartbeat,
    Subscribe,
    SubscribeMany,
    Unsubscribe,
)

WRITE_BUFFER_BYTES_MAX: Final = 32 * 1024  # of our transport
CLOSE_S_MAX: Final = 2.0
HELD_MESSAGES_MAX: Final = 64  # while the client is being verified


class Endpoint(asyncio.Protocol):
    """A client's WebSocket, from the upgrade request to the last byte."""

    __slots__ = (
        "_acceptance",
        "_address",
        "_close_timer",
        "_connection",
        "_disconnect",
        "_early",
        "_gateway",
        "_held",
        "_is_ending",
        "_loop",
        "_made",
        "_peer",
        "_query",
        "_rate_timer",
        "_server_state",
        "_socket",
        "_texts",
        "_transport",
        "_verifications",
        "_wanted",
    )

    def __init__(
        self, gateway: Gateway, config: Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._gateway = gateway
        self._server_state = server_state
        self._loop = asyncio.get_running_loop()
        self._made: Protocol | None = None  # `_protocol`, if it was needed
        self._connection = ClientConnection(
            self._loop.time(), random.random(), gateway.settings.max_connection_age_seconds
        )
        self._transport: asyncio.Transport | None = None
        self._socket: DirectSocket | None = None
        self._peer = ""
        self._address = ClientAddress("", None)  # the client's, behind trusted proxies
        self._query: dict[str, str] = {}
        self._wanted: Subscribe | None = None  # requested by the path
        self._acceptance: bytes | None = None  # the handshake's answer, until it is sent
        self._early: list[bytes] = []  # data received before that
        self._texts = TextMessages()
        self._rate_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._disconnect: Disconnect | None = None  # the reason, if we close
        self._is_ending = False  # nothing more is sent or received
        self._verifications = 0  # while there are any, messages are held
        self._held: list[bytes] = []

    # asyncio and uvicorn call these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport of an upgrade request from uvicorn."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        direct_writes = self._gateway.follower.direct_writes
        self._socket = DirectSocket(self._transport, self._connection, direct_writes)
        peer = transport.get_extra_info("peername")
        self._peer = plain_address(peer[0]) if peer else ""
        self._server_state.connections.add(cast("Any", self))

    def data_received(self, data: bytes) -> None:
        """Process frames of the client."""
        if self._acceptance is not None:
            self._early.append(data)
            return
        if self._made is None and is_empty_pong(data):
            self._connection.pong(self._loop.time())
            return
        protocol = self._protocol
        protocol.receive_data(data)
        if protocol.state is OPEN:  # send pongs before answers to later messages
            self._send_protocol()
        for event in protocol.events_received():
            if isinstance(event, Frame) and not self._is_ending:
                self._frame(event)
        self._send_protocol()

    def eof_received(self) -> None:
        """The client sends no more. The transport closes by itself."""

    def pause_writing(self) -> None:
        """The buffers are full: stop reading, and keep only the newest publications until they drain."""
        self._connection.pause(self._loop.time())
        if self._socket is not None:
            self._socket.choose()
        if self._transport is not None and not self._is_ending:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The buffers have drained."""
        self._connection.resume()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._send_pending()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        for timer in (self._rate_timer, self._close_timer):
            if timer is not None:
                timer.cancel()
        self._end()
        self._server_state.connections.discard(cast("Any", self))
        self._gateway.leave(
            self, None if self._acceptance is not None else end_label(self._disconnect, self._made)
        )

    def shutdown(self) -> None:
        """uvicorn ends: close what the drain has not closed yet."""
        self.close(Disconnect.SHUTDOWN)

    # Handshake

    def requested(self, target: str, raw: list[tuple[str, str]], method: str, http_version: str) -> None:
        """Answer the request for a WebSocket."""
        headers = joined(raw)
        gateway = self._gateway
        self._address = gateway.network.client_address(self._peer, headers)
        of_handshake = handshake.refusal(method, http_version, headers)
        found = requested(gateway, self._peer, self._address.limit_key, target, headers, of_handshake)
        if isinstance(found, HttpProblem):
            gateway.count_refused_handshake(found, self._address)
            return self._reject(found)
        self._query, self._wanted = found
        gateway.enter(self)
        assert self._transport is not None
        is_immediate = gateway.authenticator.is_immediate and "ticket" not in self._query
        if "ticket" in self._query or "token" in self._query:
            self._acceptance = handshake.acceptance(headers)
            self._transport.pause_reading()
            if not is_immediate:
                return self._verify(handshake.in_time(self._identify(headers)))
        else:
            self._transport.write(handshake.acceptance(headers))
        return self._verify(self._identify(headers), is_immediate=is_immediate)

    def _accept(self) -> None:
        """Open the WebSocket, if it is not open yet. Credentials in the URL are checked before."""
        if self._acceptance is None:
            return
        assert self._transport is not None
        self._transport.write(self._acceptance)
        self._transport.resume_reading()
        self._acceptance = None
        self._gateway.counts.accepted += 1
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)

    def _reject(self, problem: HttpProblem) -> None:
        assert self._transport is not None
        self._end()
        self._transport.write(handshake.rejection(problem))
        self._transport.close()
        self._close_timer = self._loop.call_later(CLOSE_S_MAX, self._transport.abort)

    # Checks that may need another service: identity and accounts

    def _verify(self, work: Coroutine[Any, Any, None], *, is_immediate: bool = False) -> None:
        """Run a check; messages wait for it, so that their order holds. An immediate one never waits."""
        self._verifications += 1
        verified = self._verified(work)
        if is_immediate:  # without a task
            return run_at_once(verified)
        task = self._loop.create_task(verified)
        self._server_state.tasks.add(task)
        return task.add_done_callback(self._server_state.tasks.discard)

    async def _verified(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Unauthorized as why:
            self._refuse_credentials(why)
        self._verifications -= 1  # the work may have started another check
        while self._held and not self._verifications and not self._is_ending:
            self._received(self._held.pop(0))

    async def _identify(self, headers: dict[str, str]) -> None:
        identity = await self._gateway.identify(self._peer, headers, self._query)
        if identity is not None:
            self._authenticated(identity)

    async def _authenticate(self, token: str) -> None:
        self._authenticated(await self._gateway.authenticator.by_token(token))

    async def _ask(self, request: Subscribe) -> None:
        account_id = request.account_id
        assert self._connection.identity is not None
        if not await self._gateway.access.may_see(self._connection.identity, account_id):
            return self.refuse(account_id)
        if self._is_ending or self not in self._gateway.clients:
            return None
        identity = self._connection.identity  # it may have changed meanwhile
        self.regard(identity.with_accounts(identity.accounts | {account_id}))
        return self._subscribe(request)

    def _refuse_credentials(self, why: Unauthorized) -> None:
        self._gateway.count_refused_credentials(why, self._address)
        if self._connection.identity is None and self._acceptance is None:
            self._gateway.metrics.connects.labels("unauthorized").inc()
        is_temporary = isinstance(why, Unverifiable)
        self.close(Disconnect.UNVERIFIABLE if is_temporary else Disconnect.UNAUTHORIZED)

    def _authenticated(self, identity: Identity) -> None:
        if self._is_ending or self not in self._gateway.clients:
            return None
        if identity in self._gateway.revocations:  # revoked during the check
            return self._refuse_credentials(Unauthorized("revoked"))
        is_first = self._connection.identity is None
        if is_first and not self._gateway.admit(self, identity):
            return self.close(Disconnect.CONNECTION_LIMIT)
        valid_for_s = self._gateway.valid_for_s(identity)
        refusal = self._connection.authenticated(identity, self._loop.time(), valid_for_s)
        if refusal is not None:
            return self.close(refusal)
        if is_first:
            self._gateway.counts.accepted += self._acceptance is None
            if self._wanted is not None:
                self._subscribe_wanted(self._wanted)
            else:
                self._accept()
        return None

    def _subscribe_wanted(self, wanted: Subscribe) -> None:
        if self._connection.must_ask(wanted.account_id):
            return self._verify(self._ask(wanted))
        if not self._connection.may_see(wanted.account_id):
            return self.close(Disconnect.FORBIDDEN)
        return self._subscribe(wanted)

    # Messages

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            return self._connection.pong(self._loop.time())
        if frame.opcode is Opcode.BINARY:
            return self.close(Disconnect.BAD_MESSAGE)
        if frame.opcode not in (Opcode.TEXT, Opcode.CONT):
            return None
        try:
            text = self._texts.add(frame)
        except ValueError:
            return self._fail(CloseCode.INVALID_DATA)
        return None if text is None else self._received(text)

    def _fail(self, code: CloseCode) -> None:
        """Close because the client violates the WebSocket protocol itself (RFC 6455 §7.1.7)."""
        self._end()
        self._protocol.fail(code)
        self._send_protocol()

    def _received(self, text: bytes) -> None:
        if self._verifications:
            self._held.append(text)
            return self.close(Disconnect.BAD_MESSAGE) if len(self._held) > HELD_MESSAGES_MAX else None
        now_s = self._loop.time()
        user_may_send = self._gateway.may_send(self._connection.identity, now_s)
        request = self._connection.received(text, now_s, user_may_send=user_may_send)
        is_message = isinstance(request, ClientMessage)
        kind = type(request).__name__.lower() if is_message else "refused"
        self._gateway.metrics.received.labels(kind).inc()
        match request:
            case Disconnect():
                return self.close(request)
            case Auth(token):
                if not (self._gateway.authenticator.is_off and self._connection.identity is not None):
                    self._verify(self._authenticate(token))
            case Subscribe() | SubscribeMany() | Unsubscribe():
                self._change(request)
            case ForbiddenRequest():
                self._forbidden()
            case Heartbeat() | None:
                pass
        return self._send_pending()

    def _subscribe(self, request: Subscribe) -> None:
        self._accept()
        self._watch(request)
        if self._connection.has_pending:
            self._send_pending()

    def _change(self, request: Subscribe | SubscribeMany | Unsubscribe) -> None:
        match request:
            case Subscribe(account_id):
                is_asked = self._connection.must_ask(account_id)
                self._verify(self._ask(request)) if is_asked else self._subscribe(request)
            case SubscribeMany(account_ids, detail, have):
                for account_id, known in zip(account_ids, have, strict=True):
                    self._watch(Subscribe(account_id, detail, None, *(known or ())), is_many=True)
            case Unsubscribe(account_id):
                self._connection.unsubscribe(account_id)
                self._gateway.follower.unwatch(self, [account_id])

    def _watch(self, request: Subscribe, *, is_many: bool = False) -> None:
        with_positions = request.detail == "positions"
        account = self._gateway.follower.watch(self, request.account_id, with_positions=with_positions)
        began = "" if request.epoch is None else self._gateway.now_text  # only then can we be behind
        self._connection.subscribe(account, request, began, is_many=is_many)

    # The hub and the gateway call these

    @property
    def is_patient(self) -> bool:
        """Always True: a refusal is final, so it waits for records that may still arrive."""
        return True

    def notify(self, account: WatchedAccount) -> None:
        """Send the account's newer publication, or mark it as pending."""
        if self._is_ending:
            return None
        if self._connection.mark_pending(account):
            self._gateway.counts.conflated += 1
        return self._send_pending()

    def refuse(self, account_id: str, why: Disconnect = Disconnect.FORBIDDEN) -> None:
        """Tell the client that the account does not exist or is never valued."""
        if self._wanted is not None and self._wanted.account_id == account_id:
            return self.close(why)
        self._forbidden(why)
        self._connection.refuse(account_id, why)
        self._connection.unsubscribe(account_id)
        return self._send_pending()

    def position_sent(self, account_id: str) -> StreamPosition | None:
        """The client's position in the account's stream, or None."""
        subscription = self._connection.subscriptions.get(account_id)
        return subscription.position_sent if subscription else None

    @property
    def identity(self) -> Identity | None:
        """The client's identity, or None before authentication."""
        return self._connection.identity

    @property
    def address(self) -> ClientAddress:
        """The client's address."""
        return self._address

    @property
    def account_ids(self) -> Iterable[str]:
        """The accounts to which the client subscribes."""
        return self._connection.subscriptions

    def regard(self, identity: Identity) -> None:
        """Change the accounts that the client may see; close if it is subscribed to any other."""
        refusal = self._connection.regarded(identity)
        if refusal is not None:
            self.close(refusal)

    @property
    def due_s(self) -> float:
        """When `enforce_deadlines` next has something to do."""
        return self._connection.due_s

    def enforce_deadlines(self) -> None:
        """Close a client that is late; send pings and notices that are due."""
        if self._is_ending:
            return None
        now_s = self._loop.time()
        if now_s < self._connection.due_s:
            return None
        disconnect = self._connection.disconnect_due(now_s)
        if disconnect is not None:
            return self.close(disconnect)
        if self._connection.is_ping_due(now_s):
            self._ping()
        return self._send_pending() if self._connection.has_pending else None

    def close(self, disconnect: Disconnect) -> None:
        """Send the reason and close. A client that does not answer in time is cut off."""
        if self._is_ending:
            return None
        self._disconnect = disconnect
        self._end()
        self._forbidden(disconnect)
        if self._acceptance is not None:
            problem = handshake.BEFORE_UPGRADE.get(disconnect, HttpProblem.NO_ROOM)
            self._gateway.metrics.connects.labels(str(problem.status.value)).inc()
            return self._reject(problem)
        with contextlib.suppress(InvalidState):  # the client has closed first
            self._protocol.send_close(disconnect.code, disconnect.reason)
        return self._send_protocol()

    def _forbidden(self, why: Disconnect = Disconnect.FORBIDDEN) -> None:
        if why is Disconnect.FORBIDDEN:
            self._gateway.count_refused_credentials(Unauthorized(FORBIDDEN), self._address)

    # The transport

    @property
    def _protocol(self) -> Protocol:
        """The package's part, which a client needs as soon as it sends or gets a frame of its own."""
        if self._made is None:
            self._made = new_protocol()
        return self._made

    def _ping(self) -> None:
        if self._made is not None:
            self._made.send_ping(b"")
            return self._send_protocol()
        assert self._socket is not None
        return self._socket.write(EMPTY_PING)

    def _end(self) -> None:
        self._is_ending = True
        if self._socket is not None:
            self._socket.end()

    def _send_pending(self) -> None:
        """Write through the transport what is pending: first values, and what a full socket left."""
        if self._is_ending or self._acceptance is not None:
            return
        counts = self._gateway.counts
        now_s = self._loop.time()
        assert self._transport is not None and self._socket is not None
        while (frame := self._connection.next_frame(now_s)) is not None:
            self._transport.write(frame)
            counts.sent += 1
            counts.sent_bytes += len(frame)
        self._socket.choose_soon()
        if self._rate_timer is None and (due_in_s := self._connection.due_in_s(now_s)) is not None:
            self._rate_timer = self._loop.call_later(due_in_s, self._rate_due)

    def _rate_due(self) -> None:
        self._rate_timer = None
        self._send_pending()

    def _send_protocol(self) -> None:
        """Write the protocol's own frames (ping, pong, close), and close the transport after the last."""
        transport = self._transport
        assert transport is not None and self._socket is not None
        if transport.is_closing():
            return
        for data in self._protocol.data_to_send():
            if data:
                transport.write(data)
            else:  # nothing follows
                self._end()
                transport.close()
        self._socket.choose()
        if self._is_ending and self._close_timer is None:
            self._close_timer = self._loop.call_later(CLOSE_S_MAX, transport.abort)
