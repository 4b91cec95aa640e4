"""Portfolio values over HTTP, from the same hub: one at a time, or as server-sent events."""

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Final

from starlette.responses import StreamingResponse
from starlette.types import Send

from portfolio_realtime.errors import StateError
from portfolio_realtime.websocket_server.access.client_address import ClientAddress
from portfolio_realtime.websocket_server.access.identity import (
    FORBIDDEN,
    Identity,
    Unauthorized,
    Unverifiable,
)
from portfolio_realtime.websocket_server.clients.connection import UNSENT_S_MAX, age_s_max
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.fanout.freshness import (
    SERVER,
    Lapse,
    freshness_message,
    with_stale_hops,
)
from portfolio_realtime.websocket_server.fanout.watched_account import StreamPosition, WatchedAccount
from portfolio_realtime.websocket_server.http_api.guard import Visitor, problem_of
from portfolio_realtime.websocket_server.http_api.problems import RequestRefused
from portfolio_realtime.websocket_server.http_api.responses import Ask
from portfolio_realtime.wire.http_problems import HttpProblem
from portfolio_realtime.wire.messages import Detail, Disconnect, is_account_id

FIRST_VALUE_S_MAX: Final = 2.0
KEEP_ALIVE_S: Final = 15.0
END_S_MAX: Final = 2.0  # from when a client is told the end until it is cut off
EVENT_ID: Final = re.compile(r"([0-9]{1,16})-([0-9]{1,16})")  # epoch and sequence of the value
ASKED_MAX: Final = 64  # explanations and histories under way or waiting; the next has to come again


def seen_in(last_event_id: str | None) -> StreamPosition | None:
    """Where a client was, by the id of the last event that it got, or None."""
    match = EVENT_ID.fullmatch(last_event_id or "")
    return StreamPosition(int(match[1]), int(match[2])) if match else None


class Waiter:
    """A subscriber that waits for one live publication."""

    is_patient = False  # an HTTP client may ask again

    def __init__(self, *, with_positions: bool) -> None:
        self.answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._with_positions = with_positions

    def notify(self, account: WatchedAccount) -> None:
        """Take it if a calculator keeps it up to date: else it may be from long ago."""
        has_it = account.position(with_positions=self._with_positions) is not None
        if account.is_live and has_it and not self.answer.done():
            message = account.message(None, with_positions=self._with_positions)
            self.answer.set_result(with_stale_hops(message, account.lapse))

    def refuse(self, account_id: str, why: Disconnect) -> None:
        """There is no such account, or it is never valued; the broker's word is asked for then."""
        if not self.answer.done():
            self.answer.set_result(None)

    def position_sent(self, account_id: str) -> StreamPosition | None:
        """It has got nothing yet."""
        return None


class Portfolios:
    """The newest value of an account, for clients that may see it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._asked = 0  # questions under way

    async def require(self, visitor: Visitor, account_id: str) -> Identity:
        """The identity, if it may see the account. Raises RequestRefused 401, 404, 429 or 503.

        Guessed accounts are logged, as for WebSockets.
        """
        identity, gateway = visitor.identity, self._gateway
        try:
            if not is_account_id(account_id) or not await gateway.access.may_see(identity, account_id):
                raise RequestRefused(problem_of(Unauthorized(FORBIDDEN), gateway, visitor.address))
        except Unverifiable:
            raise RequestRefused(HttpProblem.NO_VALUE) from None
        if identity in gateway.revocations:  # since it was looked at
            raise RequestRefused(problem_of(Unauthorized("revoked"), gateway, visitor.address))
        return identity.with_accounts(identity.accounts | {account_id}) if identity.is_asked else identity

    async def read(self, visitor: Visitor, account_id: str, detail: Detail) -> bytes:
        """The portfolio message. Raises RequestRefused like `require`, and 503 if there is none."""
        await self.require(visitor, account_id)
        waiter = Waiter(with_positions=detail == "positions")
        follower = self._gateway.follower
        account = follower.watch(waiter, account_id, with_positions=detail == "positions")
        try:
            if await follower.is_ready():
                waiter.notify(account)
            async with asyncio.timeout(FIRST_VALUE_S_MAX):
                message = await waiter.answer
        except TimeoutError:
            raise RequestRefused(await self._why_no_value(account_id, HttpProblem.NO_VALUE)) from None
        finally:
            follower.unwatch(waiter, [account_id])
        if message is None:
            raise RequestRefused(await self._why_no_value(account_id, HttpProblem.NO_SUCH_ACCOUNT))
        return message

    async def _why_no_value(self, account_id: str, otherwise: HttpProblem) -> HttpProblem:
        """What is said of an account without a record; `otherwise` where nothing is."""
        return (await self._pending([account_id])).get(account_id, otherwise)

    async def read_each(self, account_ids: Sequence[str], detail: Detail) -> dict[str, bytes | HttpProblem]:
        """The portfolio messages of accounts that the caller may see, or why there is none."""
        with_positions, follower = detail == "positions", self._gateway.follower
        waiters = {account_id: Waiter(with_positions=with_positions) for account_id in account_ids}
        watched = {
            account_id: follower.watch(waiter, account_id, with_positions=with_positions)
            for account_id, waiter in waiters.items()
        }
        try:
            if await follower.is_ready():
                for account_id, waiter in waiters.items():
                    waiter.notify(watched[account_id])
            if waiters:
                await asyncio.wait([waiter.answer for waiter in waiters.values()], timeout=FIRST_VALUE_S_MAX)
        finally:
            for account_id, waiter in waiters.items():
                follower.unwatch(waiter, [account_id])
        found: dict[str, bytes | HttpProblem] = {}
        for account_id, waiter in waiters.items():
            message = waiter.answer.result() if waiter.answer.done() else HttpProblem.NO_VALUE
            found[account_id] = HttpProblem.NO_SUCH_ACCOUNT if message is None else message
        return found | await self._pending(
            [name for name, one in found.items() if not isinstance(one, bytes)]
        )

    async def _pending(self, account_ids: Sequence[str]) -> dict[str, HttpProblem]:
        """Of accounts without a value, those of which the broker has told why."""
        if not account_ids:
            return {}
        try:
            pending = await self._gateway.state.accounts.read_pending(list(account_ids))
        except StateError:
            return {}
        return {
            name: HttpProblem.NOT_IN_DOLLARS if one.is_final else HttpProblem.NOT_YET
            for name, one in pending.items()
        }

    async def ask(self, visitor: Visitor, account_id: str, answer: Ask) -> bytes:
        """What `answer` says about the account. Raises RequestRefused like `read`, 503 also when too busy."""
        await self.require(visitor, account_id)
        if self._asked >= ASKED_MAX:
            raise RequestRefused(HttpProblem.TOO_BUSY)
        accounts = self._gateway.state.accounts
        self._asked += 1
        try:
            message = await answer(account_id)
            is_unknown = message is None and bool(await accounts.unknown([account_id]))
        except StateError:
            raise RequestRefused(HttpProblem.NO_VALUE) from None
        finally:
            self._asked -= 1
        if message is None:
            otherwise = HttpProblem.NO_SUCH_ACCOUNT if is_unknown else HttpProblem.NO_VALUE
            raise RequestRefused(await self._why_no_value(account_id, otherwise))
        return message


class EventStream:
    """A subscriber and client of the gateway whose socket is an HTTP response: newest value only, as ever."""

    is_patient = True
    due_s = 0.0  # at every sweep

    def __init__(
        self,
        gateway: Gateway,
        identity: Identity,
        address: ClientAddress,
        account_id: str,
        *,
        with_positions: bool,
        seen: StreamPosition | None,
        cut: Callable[[], None],
    ) -> None:
        """`seen`: by the client before, nothing older is sent. `cut` ends its connection at once."""
        self._seen = seen
        self._began = gateway.now_text
        self._gateway = gateway
        self._identity = identity
        self._address = address
        self._account_id = account_id
        self._with_positions = with_positions
        self._cut = cut
        self._loop = asyncio.get_running_loop()
        longest_s = gateway.settings.max_connection_age_seconds
        self._ends_s = self._loop.time() + age_s_max(longest_s, random.random())
        self._sent: StreamPosition | None = None
        self._told_hops: tuple[str, ...] = ()
        self._sending_s: float | None = None  # since when an event waits until the socket takes it
        self._end: Disconnect | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()

    def notify(self, account: WatchedAccount) -> None:
        """The account has a newer publication."""
        self._wake.set()

    def refuse(self, account_id: str, why: Disconnect) -> None:
        """There is no such account, or it is never valued."""
        self.close(why)

    def position_sent(self, account_id: str) -> StreamPosition | None:
        """Where this client is in the account's stream."""
        return self._sent

    @property
    def identity(self) -> Identity:
        """Who it is."""
        return self._identity

    @property
    def address(self) -> ClientAddress:
        """Where it comes from."""
        return self._address

    @property
    def account_ids(self) -> Iterable[str]:
        """The account that it is sent."""
        return (self._account_id,)

    def regard(self, identity: Identity) -> None:
        """Its identity may see other accounts than before."""
        self._identity = identity
        if not identity.may_see(self._account_id):
            self.close(Disconnect.FORBIDDEN)

    def enforce_deadlines(self) -> None:
        """End when the token has expired, the client does not read, or it has been here for long enough."""
        now_s = self._loop.time()
        valid_for_s = self._gateway.valid_for_s(self._identity)
        if valid_for_s is not None and valid_for_s <= 0:
            self.close(Disconnect.TOKEN_EXPIRED)
        elif self._sending_s is not None and now_s - self._sending_s > UNSENT_S_MAX:
            self.close(Disconnect.SLOW_CONSUMER)
        elif now_s > self._ends_s:
            self.close(Disconnect.LIFETIME)

    def close(self, disconnect: Disconnect) -> None:
        """Say why, and end; a client that does not take it in time is cut off."""
        if self._end is None:
            self._end = disconnect
            if disconnect is Disconnect.FORBIDDEN:
                self._gateway.count_refused_credentials(Unauthorized(FORBIDDEN), self._address)
            self._wake.set()
            self._end_timer = self._loop.call_later(END_S_MAX, self._cut)

    async def events(self) -> AsyncGenerator[bytes]:
        """Server-sent events until the client goes; `close` carries the code that a WebSocket would.

        Whoever asks for them must close them: that gives the client's place back.
        """
        gateway = self._gateway
        if not (gateway.enter(self, is_limited=True) and gateway.admit(self, self._identity)):
            gateway.leave(self, None)
            gateway.metrics.disconnects.labels(str(Disconnect.CONNECTION_LIMIT.code)).inc()
            yield _ending(Disconnect.CONNECTION_LIMIT)
            return
        account = gateway.follower.watch(self, self._account_id, with_positions=self._with_positions)
        gateway.counts.accepted += 1
        if self._identity in gateway.revocations:  # since it was looked at; from now on we are told
            self.close(Disconnect.UNAUTHORIZED)
        try:
            while (event := await self._next(account)) is not None:
                self._sending_s = self._loop.time()
                yield event
                self._sending_s = None
            assert self._end is not None
            yield _ending(self._end)
        finally:
            self._leave()

    async def _next(self, account: WatchedAccount) -> bytes | None:
        """The next event, as soon as there is one; None: it ends."""
        while self._end is None:
            newest = account.position(with_positions=self._with_positions)
            is_behind = newest is not None and self._seen is not None and newest < self._seen
            lapse = Lapse((*account.lapse.hops, SERVER), self._began) if is_behind else account.lapse
            if self._told_hops != lapse.hops:
                self._told_hops = lapse.hops
                message = freshness_message(self._account_id, lapse)
                return b"event: freshness\ndata: " + message + b"\n\n"
            if newest is not None and not is_behind and (self._sent is None or newest > self._sent):
                message = account.message(self._sent, with_positions=self._with_positions)
                self._sent, self._seen = newest, None
                return b"event: portfolio\nid: %d-%d\ndata: %b\n\n" % (*newest, message)
            if not await self._woken():
                return b": still here\n\n"
        return None

    def _leave(self) -> None:
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._gateway.leave(self, str(self._end.code) if self._end else "1006")

    async def _woken(self) -> bool:
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True


class EventResponse(StreamingResponse):
    """Sends events, and closes them when it ends, however it ends: the collector would come too late."""

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._events = events

    async def stream_response(self, send: Send) -> None:
        """Until there are no more, or until it is cancelled because the client has gone."""
        async with contextlib.aclosing(self._events):
            await super().stream_response(send)


def _ending(disconnect: Disconnect) -> bytes:
    return b'event: close\ndata: {"code":%d,"reason":"%s"}\n\n' % (
        disconnect.code,
        disconnect.reason.encode(),
    )
