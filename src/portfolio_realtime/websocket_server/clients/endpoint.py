"""One WebSocket on uvicorn's transport: bytes in and out, everything else is asked of `Connection`.

Written on the sans-I/O protocol of the package `websockets`, which deals with control frames and
whatever a hostile client sends. Publications go out as prebuilt frames straight to the transport. uvicorn
makes one object for each upgrade request: `uvicorn.Config(ws=partial(Endpoint, gateway))`.
"""

import asyncio
import contextlib
import logging
import random
import re
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import parse_qsl

import msgspec
from uvicorn import Config
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side
from websockets.server import ServerProtocol

from portfolio_realtime.websocket_server.access.client_address import Whence, joined
from portfolio_realtime.websocket_server.access.identity import (
    FORBIDDEN,
    Identity,
    Unauthorized,
    Unverifiable,
)
from portfolio_realtime.websocket_server.clients import handshake
from portfolio_realtime.websocket_server.clients.connection import Connection, Refused
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.fanout.watched_account import StreamPosition, WatchedAccount
from portfolio_realtime.wire.messages import (
    MESSAGE_BYTES_MAX,
    Auth,
    ClientMessage,
    Disconnect,
    Heartbeat,
    Subscribe,
    Unsubscribe,
)

PATH: Final = re.compile(r"/ws(?:/portfolio/([^/]+))?/?")
WRITE_BUFFER_BYTES_MAX: Final = 32 * 1024  # of ours
CLOSE_S_MAX: Final = 2.0
QUERY_FIELDS_MAX: Final = 8
REFUSAL_HEADERS: Final = {
    HTTPStatus.METHOD_NOT_ALLOWED: {"Allow": "GET"},
    HTTPStatus.UPGRADE_REQUIRED: {"Upgrade": "websocket", "Sec-WebSocket-Version": handshake.VERSION},
}
HELD_MESSAGES_MAX: Final = 64  # while something about the client is being verified

_QUIET: Final = logging.getLogger("portfolio_realtime.wire.messages")
_QUIET.disabled = True  # it would log what clients send


_refusing: Final = ServerProtocol(logger=_QUIET)  # of all clients


class Endpoint(asyncio.Protocol):
    """A client's WebSocket, from the upgrade request to the last byte."""

    __slots__ = (
        "_close_timer",
        "_connection",
        "_disconnect",
        "_fileno",
        "_fragments",
        "_gateway",
        "_held",
        "_is_ending",
        "_loop",
        "_peer",
        "_protocol",
        "_query",
        "_rate_timer",
        "_server_state",
        "_transport",
        "_verifications",
        "_wanted",
        "_whence",
    )

    def __init__(
        self, gateway: Gateway, config: Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._gateway = gateway
        self._server_state = server_state
        self._loop = asyncio.get_running_loop()
        self._protocol = Protocol(Side.SERVER, max_size=MESSAGE_BYTES_MAX, logger=_QUIET)
        self._connection = Connection(
            self._loop.time(), random.random(), gateway.settings.max_connection_age_seconds
        )
        self._transport: asyncio.Transport | None = None
        self._fileno: int | None = None  # of its socket, while it may be sent to past the transport
        self._peer = ""
        self._whence = Whence("", None)  # the client's, behind trusted proxies
        self._query: dict[str, str] = {}
        self._wanted: Subscribe | None = None  # what the path asks for
        self._fragments: list[bytes] = []
        self._rate_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._disconnect: Disconnect | None = None  # why we close, when it is we
        self._is_ending = False  # nothing more is sent or heard
        self._verifications = 0  # while there are any, messages wait
        self._held: list[bytes] = []

    # asyncio and uvicorn call these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """uvicorn hands over the transport of an upgrade request."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if peer else ""
        self._server_state.connections.add(cast("Any", self))

    def data_received(self, data: bytes) -> None:
        """Bytes of the client: frames."""
        self._protocol.receive_data(data)
        if self._protocol.state is OPEN:  # a pong goes before the answer to what came after its ping
            self._send_protocol()
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and not self._is_ending:
                self._frame(event)
        self._send_protocol()

    def eof_received(self) -> None:
        """The client sends no more: the transport closes."""

    def pause_writing(self) -> None:
        """The buffers are full: keep only the newest until they drain, and hear no more until then."""
        self._connection.pause(self._loop.time())
        if self._transport is not None and not self._is_ending:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The buffers have drained."""
        self._connection.resume()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        for timer in (self._rate_timer, self._close_timer):
            if timer is not None:
                timer.cancel()
        self._end()
        self._server_state.connections.discard(cast("Any", self))
        if self in self._gateway.clients:
            self._gateway.clients.discard(self)
            self._gateway.follower.unwatch(self, self._connection.subscriptions)
            if self._whence.place is not None:
                self._gateway.limits.connections_of_address.leave(self._whence.place)
            if self._connection.identity is not None:
                self._gateway.leave(self._connection.identity)
            self._gateway.metrics.disconnects.labels(self._end_label()).inc()

    def _end_label(self) -> str:
        if self._disconnect is not None:
            return str(self._disconnect.code)
        sent = self._protocol.close_sent
        if sent is None:
            return "1006"
        return str(sent.code) if sent.code < 3000 else "other"  # a client may send any from 3000 on

    def shutdown(self) -> None:
        """uvicorn ends: what the drain has not closed yet goes now."""
        self.close(Disconnect.SHUTDOWN)

    # Handshake

    def requested(self, target: str, raw: list[tuple[str, str]], method: str, http_version: str) -> None:
        """The request for a WebSocket: its target, its headers, and its kind."""
        headers = joined(raw)
        self._whence = self._gateway.places.whence(self._peer, headers)
        path, _, query = target.partition("?")
        refusal = self._refusal(path, query, headers, handshake.refusal(method, http_version, headers))
        if refusal is not None:
            self._gateway.turned_away(refusal, self._whence.address)
            return self._reject(refusal)
        assert self._transport is not None
        self._transport.write(handshake.acceptance(headers))
        self._gateway.clients.add(self)
        if self._whence.place is not None:
            self._gateway.limits.connections_of_address.enter(self._whence.place, is_limited=False)
        is_immediate = self._gateway.authenticator.is_immediate and "ticket" not in self._query
        return self._verify(self._identify(headers), is_immediate=is_immediate)

    def _reject(self, refusal: HTTPStatus) -> None:
        assert self._transport is not None
        response = _refusing.reject(refusal, f"{refusal.phrase}\n")
        response.headers.update(REFUSAL_HEADERS.get(refusal, {}))
        self._end()
        self._transport.write(response.serialize())
        self._transport.close()
        self._close_timer = self._loop.call_later(CLOSE_S_MAX, self._transport.abort)

    def _refusal(
        self, path: str, query: str, headers: dict[str, str], of_handshake: HTTPStatus | None
    ) -> HTTPStatus | None:
        match = PATH.fullmatch(path)
        if match is None:
            return HTTPStatus.NOT_FOUND
        if of_handshake is not None:
            return of_handshake
        places = self._gateway.places
        if places.is_refused_as_plain(self._peer, headers) or not places.is_origin_allowed(
            self._peer, headers
        ):
            return HTTPStatus.FORBIDDEN
        if (refusal := self._gateway.refusal(self._whence.place)) is not None:
            return refusal
        try:
            self._query = dict(parse_qsl(query, max_num_fields=QUERY_FIELDS_MAX)) if query else {}
            if match[1] is not None:
                wanted = {"type": "subscribe", **self._query, "account_id": match[1]}
                self._wanted = msgspec.convert(wanted, Subscribe, strict=False)
        except (ValueError, msgspec.ValidationError):
            return HTTPStatus.BAD_REQUEST
        return None

    # What must be asked elsewhere: who it is, what it may see

    def _verify(self, work: Coroutine[Any, Any, None], *, is_immediate: bool = False) -> None:
        """Messages that come meanwhile wait, so that their order holds; work that never waits is done now."""
        self._verifications += 1
        verified = self._verified(work)
        if is_immediate:  # no task is made for it
            return _run(verified)
        task = self._loop.create_task(verified)
        self._server_state.tasks.add(task)
        return task.add_done_callback(self._server_state.tasks.discard)

    async def _verified(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Unauthorized as why:
            self._refuse_credentials(why)
        self._verifications -= 1  # the work may have begun another
        while self._held and not self._verifications and not self._is_ending:
            self._received(self._held.pop(0))

    async def _identify(self, headers: dict[str, str]) -> None:
        identity: Identity | None
        if ticket := self._query.get("ticket"):
            identity = await self._gateway.redeem_ticket(ticket)
        else:
            url_token = self._query.get("token")
            identity = await self._gateway.authenticator.by_handshake(self._peer, headers, url_token)
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
        identity = self._connection.identity  # it may have been renewed meanwhile
        self.regard(identity.with_accounts(identity.accounts | {account_id}))
        return self._subscribe(request)

    def _refuse_credentials(self, why: Unauthorized) -> None:
        self._gateway.refused(why, self._whence)
        if self._connection.identity is None:
            self._gateway.metrics.connects.labels("unauthorized").inc()
        is_temporary = isinstance(why, Unverifiable)
        self.close(Disconnect.UNVERIFIABLE if is_temporary else Disconnect.UNAUTHORIZED)

    def _authenticated(self, identity: Identity) -> None:
        if self._is_ending or self not in self._gateway.clients:
            return None
        if identity in self._gateway.revoked:  # since it was looked at: what it may see was asked meanwhile
            return self._refuse_credentials(Unauthorized("revoked"))
        is_first = self._connection.identity is None
        if is_first and not self._gateway.admit(identity):
            return self.close(Disconnect.CONNECTION_LIMIT)
        valid_for_s = self._gateway.valid_for_s(identity)
        refusal = self._connection.authenticated(identity, self._loop.time(), valid_for_s)
        if refusal is not None:
            return self.close(refusal)
        if is_first:
            self._gateway.counts.accepted += 1
            if self._wanted is not None:
                self._subscribe_wanted(self._wanted)
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
        if frame.data:  # empty fragments may come without end, and must not be kept
            self._fragments.append(bytes(frame.data))
        if not frame.fin:
            return None
        text = b"".join(self._fragments)
        self._fragments.clear()
        return self._received(text) if _is_utf8(text) else self._fail(CloseCode.INVALID_DATA)

    def _fail(self, code: CloseCode) -> None:
        """The client breaks the WebSocket protocol itself (RFC 6455 §7.1.7)."""
        self._end()
        self._protocol.fail(code)
        self._send_protocol()

    def _received(self, text: bytes) -> None:
        if self._verifications:
            self._held.append(text)
            return self.close(Disconnect.BAD_MESSAGE) if len(self._held) > HELD_MESSAGES_MAX else None
        now_s = self._loop.time()
        may_send = self._gateway.may_send(self._connection.identity, now_s)
        request = self._connection.received(text, now_s) if may_send else self._connection.too_many_messages()
        is_message = isinstance(request, ClientMessage)
        kind = type(request).__name__.lower() if is_message else "refused"
        self._gateway.metrics.received.labels(kind).inc()
        match request:
            case Disconnect():
                return self.close(request)
            case Auth(token):
                if not (self._gateway.authenticator.is_off and self._connection.identity is not None):
                    self._verify(self._authenticate(token))
            case Subscribe():
                if self._connection.must_ask(request.account_id):
                    self._verify(self._ask(request))
                else:
                    self._subscribe(request)
            case Unsubscribe(account_id):
                self._connection.unsubscribe(account_id)
                self._gateway.follower.unwatch(self, [account_id])
            case Refused():
                self._forbidden()
            case Heartbeat() | None:
                pass
        return self._flush()

    def _subscribe(self, request: Subscribe) -> None:
        account = self._gateway.follower.watch(
            self, request.account_id, with_positions=request.detail == "positions"
        )
        self._connection.subscribe(account, request)
        self._flush()

    # The hub and the gateway call these

    @property
    def is_patient(self) -> bool:
        """A refusal is for good, so it waits for records that are on their way."""
        return True

    def offer(self, account: WatchedAccount) -> None:
        """The account has a newer publication: send it, or remember to."""
        if self._is_ending:
            return None
        if self._connection.offer(account):
            self._gateway.counts.conflated += 1
        return self._flush()

    def refuse(self, account_id: str) -> None:
        """There is no such account."""
        self._connection.unsubscribe(account_id)
        if self._wanted is not None and self._wanted.account_id == account_id:
            return self.close(Disconnect.FORBIDDEN)
        self._forbidden()
        self._connection.refuse(account_id)
        return self._flush()

    def position_sent(self, account_id: str) -> StreamPosition | None:
        """Where this client is in the account's stream."""
        subscription = self._connection.subscriptions.get(account_id)
        return subscription.position_sent if subscription else None

    @property
    def identity(self) -> Identity | None:
        """Who it is, as far as it has said."""
        return self._connection.identity

    def regard(self, identity: Identity) -> None:
        """Its identity may see other accounts: a client that is shown one it may not is closed."""
        refusal = self._connection.regarded(identity)
        if refusal is not None:
            self.close(refusal)

    def check(self) -> None:
        """Do what time brings."""
        if self._is_ending:
            return None
        now_s = self._loop.time()
        if now_s < self._connection.due_s:
            return None
        disconnect = self._connection.check(now_s)
        if disconnect is not None:
            return self.close(disconnect)
        if self._connection.is_ping_due(now_s):
            self._protocol.send_ping(b"")
            self._send_protocol()
        return self._flush()

    def close(self, disconnect: Disconnect) -> None:
        """Say why and close; a client that does not answer in time is cut off."""
        if self._is_ending:
            return
        self._disconnect = disconnect
        self._end()
        if disconnect is Disconnect.FORBIDDEN:
            self._forbidden()
        with contextlib.suppress(InvalidState):  # the client was first
            self._protocol.send_close(disconnect.code, disconnect.reason)
        self._send_protocol()

    def _forbidden(self) -> None:
        self._gateway.refused(Unauthorized(FORBIDDEN), self._whence)

    # The transport

    def _end(self) -> None:
        self._is_ending = True
        self._connection.leave_direct()
        if self._fileno is not None:
            self._gateway.follower.outlets.close(self._fileno)
            self._fileno = None

    def _unsent(self, rest: bytes) -> None:
        """What the socket did not take; the transport writes it, or finds out what is wrong."""
        self._connection.leave_direct()
        assert self._transport is not None
        self._transport.write(rest)

    def _go_direct(self) -> None:
        """Not while the transport still has something to write: it would be overtaken."""
        assert self._transport is not None
        if self._transport.get_write_buffer_size() or self._transport.is_closing():
            return
        fileno = self._fileno
        if fileno is None:
            fileno = self._fileno = int(self._transport.get_extra_info("socket").fileno())
            self._gateway.follower.outlets.open(fileno, self._unsent)
        self._connection.go_direct(fileno)

    def _flush(self) -> None:
        if self._is_ending:
            return
        counts = self._gateway.counts
        now_s = self._loop.time()
        assert self._transport is not None
        while (frame := self._connection.take(now_s)) is not None:
            self._transport.write(frame)
            counts.sent += 1
            counts.sent_bytes += len(frame)
        if self._connection.may_go_direct:
            self._go_direct()
        if self._rate_timer is None and (due_in_s := self._connection.due_in_s(now_s)) is not None:
            self._rate_timer = self._loop.call_later(due_in_s, self._rate_due)

    def _rate_due(self) -> None:
        self._rate_timer = None
        self._flush()

    def _send_protocol(self) -> None:
        """Write what the protocol itself has to say: ping, pong, close; end when it is done."""
        transport = self._transport
        assert transport is not None
        if transport.is_closing():
            return
        for data in self._protocol.data_to_send():
            if data:
                transport.write(data)
            else:  # its last word
                self._end()
                transport.close()
        if transport.get_write_buffer_size():
            self._connection.leave_direct()
        if self._is_ending and self._close_timer is None:
            self._close_timer = self._loop.call_later(CLOSE_S_MAX, transport.abort)


def _run(never_waiting: Coroutine[Any, Any, None]) -> None:
    try:
        never_waiting.send(None)
    except StopIteration:
        return
    raise AssertionError("it was not to wait for anything")


def _is_utf8(text: bytes) -> bool:
    """RFC 6455 §8.1: else the connection must fail."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
