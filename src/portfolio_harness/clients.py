"""Many clients of one server that check the account, the order and the completeness of every frame.

One process holds thousands of them: each is one lean `Wire`, without a task or a timer of its own.
`client_processes.py` runs several such processes.
"""

import asyncio
import socket
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from portfolio_harness.comparison import differences
from portfolio_harness.lags import Lags
from portfolio_harness.oracle import Truth
from portfolio_harness.websocket_client import STALLED_RECEIVE_BYTES, Wire, request, text_frame
from portfolio_realtime.backoff import Backoff
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import NS_PER_S, parse_rfc3339
from portfolio_realtime.errors import PortfolioRealtimeError

CONNECTING_MAX: Final = 1000  # connections at once without a first value; the kernel's backlog is 4096
CONNECT_S_MAX: Final = 15.0  # of one connection, until its first value
RECONNECT_S: Final = 0.3  # the first pause; it doubles with each failure and has jitter
RECONNECT_S_MAX: Final = 2.0
FIRST_VALUE_S_MAX: Final = 90.0
POLL_S: Final = 0.05
SECONDS_KEPT_MAX: Final = 4096
STALLED_S: Final = 30.0  # a stalled client reconnects then: it does not see that the server closed its socket
WAITING_BYTES_MAX: Final = 32 * 1024  # the server's WRITE_BUFFER_BYTES_MAX, which would be costly to import
BEHIND_BYTES_MIN: Final = WAITING_BYTES_MAX * 9 // 10  # of payloads; the server's buffer counts whole frames
REGULAR_S_MAX: Final = 2.5  # a client whose longest silence is no longer gets values regularly

TokenFor = Callable[[str], str]


class ClientsFailed(PortfolioRealtimeError):
    """The clients did not get their first values, or a client process failed."""


class _LeanFrame(msgspec.Struct):
    """The fields that are checked in each message. The others are decoded only when they are needed."""

    type: str
    account_id: str = ""
    epoch: int = 0
    sequence: int = 0
    as_of: str = ""
    timestamp: str = ""
    stale_hops: tuple[str, ...] = ()


class _Frame(_LeanFrame):
    """The checked fields of a message with positions."""

    positions: list[dict[str, Any]] | None = None


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_lean_frame = msgspec.json.Decoder(_LeanFrame).decode


@lru_cache(maxsize=SECONDS_KEPT_MAX)
def _second_ns(text: str) -> int:
    return parse_rfc3339(f"{text}Z")


def wire_ns(text: str) -> int:
    """Nanoseconds since the epoch of a time on our wire, such as `2026-11-20T15:04:05.123456Z`."""
    if len(text) != 27 or text[19] != "." or text[26] != "Z":
        return parse_rfc3339(text)
    return _second_ns(text[:19]) + int(text[20:26]) * 1000


class CheckedClient:
    """What one client has received of one account, over all its connections."""

    __slots__ = (
        "_clients",
        "_newest",
        "_raw",
        "account_id",
        "asked_ns",
        "backoff",
        "behind_bytes",
        "heard_ns",
        "is_coming",
        "is_regular",
        "is_snapshot",
        "is_stalled",
        "lost_s",
        "order",
        "published_ns",
        "rows",
        "settled",
        "silence_ns",
        "stale_hops",
        "was_cut",
        "wire",
    )

    def __init__(self, clients: "Clients", account_id: str, *, is_stalled: bool) -> None:
        self._clients = clients
        self._raw: bytes | None = None
        self._newest: dict[str, Any] | None = None
        self.account_id = account_id
        self.is_stalled = is_stalled  # it stops reading after its first value
        self.rows: dict[str, dict[str, Any]] = {}
        self.order: tuple[int, int] = (0, 0)
        self.published_ns = 0
        self.stale_hops: tuple[str, ...] = ()  # of the newest freshness message: hops without fresh data
        self.is_snapshot = True  # the next value is the first of its connection
        self.backoff = Backoff(RECONNECT_S, RECONNECT_S_MAX)
        self.is_coming = False  # it waits for its turn to connect
        self.lost_s: float | None = None  # since when it has no connection with a value
        self.was_cut = False  # whether it lost a connection since measuring began
        self.asked_ns = 0  # when its newest connection requested the account
        self.behind_bytes = 0  # size of the newest uninterrupted run of late messages
        self.heard_ns = 0  # when its newest value arrived
        self.silence_ns = 0  # the longest time between two values since measuring began
        self.is_regular = False  # whether it got values regularly before measuring began
        self.wire: Wire | None = None
        self.settled: asyncio.Future[bool] | None = None  # whether the connection in progress got a value

    @property
    def newest(self) -> dict[str, Any] | None:
        """The newest portfolio message, decoded; None before the first."""
        if self._newest is None and self._raw is not None:
            self._newest = msgspec.json.decode(self._raw)
        return self._newest

    @property
    def has_value(self) -> bool:
        """Whether it has ever received a value."""
        return self._raw is not None

    def receive_value(self, raw: bytes) -> None:
        """Keep the newest message; it is decoded when `newest` is read."""
        self._raw, self._newest = raw, None

    def heard(self, received_ns: int) -> None:
        """Note when a newer value arrived."""
        if self.heard_ns:
            self.silence_ns = max(self.silence_ns, received_ns - self.heard_ns)
        self.heard_ns = received_ns

    def silence_until_ns(self, now_ns: int) -> int:
        """The longest time without a newer value since measuring began, including the present one."""
        return max(self.silence_ns, now_ns - self.heard_ns)

    def begin_measuring(self, now_ns: int) -> None:
        """Note whether it gets values regularly, and reset its silence and `was_cut`."""
        self.is_regular = self.has_value and self.silence_until_ns(now_ns) <= REGULAR_S_MAX * NS_PER_S
        self.silence_ns, self.heard_ns, self.was_cut = 0, now_ns, False

    def mismatches(self, truth: Truth) -> list[str]:
        """Names of the figures that differ from the truth."""
        if (newest := self.newest) is None:
            return ["no value"]
        return differences(newest, self.rows if self._clients.has_detail else None, truth)

    # The wire calls these

    def opened(self) -> None:
        """The handshake is done and the first message is sent."""
        self.is_snapshot, self.behind_bytes, self.stale_hops = True, 0, ()
        self.asked_ns = time.time_ns()
        self._clients.handshakes += 1

    def text(self, payload: bytes) -> None:
        """A text message arrived."""
        self._clients.check_message(self, payload)

    def ended(self, code: int) -> None:
        """The connection ended."""
        self._clients.ended(self, code)


class Clients:
    """Clients of one server, one per entry of `account_ids`.

    The first `stalled` of them stop reading after their first value. `interval_s` is the server's
    MIN_UPDATE_INTERVAL, `detail` requests positions, and connections open over `ramp_s` seconds.
    """

    def __init__(
        self,
        url: str,
        account_ids: Sequence[str],
        token_for: TokenFor,
        *,
        interval_s: float,
        detail: bool,
        stalled: int = 0,
        ramp_s: float = 0.0,
    ) -> None:
        self._parts = urlsplit(url)
        self._token_for = token_for
        self._interval_ns = int(interval_s * NS_PER_S)
        self.has_detail = detail  # whether the clients request positions
        self._ramp_s = ramp_s
        self._waiting: deque[CheckedClient] = deque()  # for a connection
        self._wake = asyncio.Event()
        self._timers: set[asyncio.TimerHandle] = set()
        self._connectors: list[asyncio.Task[None]] = []
        self._is_stopping = False
        self._address: tuple[socket.AddressFamily, Any] | None = None  # resolved once
        self._started = 0  # the number of clients that were told to connect
        self.handshakes = 0
        self._connecting_s = 0.0
        self.all = [
            CheckedClient(self, account_id, is_stalled=index < stalled)
            for index, account_id in enumerate(account_ids)
        ]
        self.counts: Counter[str] = Counter()  # messages, regressions, gaps, leaks, reconnects, …
        self.close_codes: Counter[int] = Counter()
        self.lags = Lags()  # from the trade, or from the time at which the account could be published again
        self.deliveries = Lags()  # from the publication's timestamp
        self.first_values = Lags()  # from the request of the account to the first value, once per client
        self.outages_s: list[
            float
        ] = []  # of reading clients: from each loss of a connection to the next value
        self.connects_per_s = 0.0

    @property
    def without_value(self) -> int:
        """The number of started, reading clients that have no connection with a value now."""
        return sum(client.lost_s is not None for client in self._readers)

    @property
    def cut_off(self) -> int:
        """The number of started, reading clients that lost a connection since measuring began."""
        return sum(client.was_cut for client in self._readers)

    @property
    def regular(self) -> int:
        """The number of started, reading clients that got values regularly before measuring began."""
        return sum(client.is_regular for client in self._readers)

    @property
    def silence_s(self) -> float:
        """The longest time that a regular client was without a newer value since measuring began."""
        now_ns = time.time_ns()
        silences = [client.silence_until_ns(now_ns) for client in self._readers if client.is_regular]
        return max(silences, default=0) / NS_PER_S

    @property
    def _readers(self) -> list[CheckedClient]:
        return [client for client in self.all[: self._started] if not client.is_stalled]

    async def start(self, count: int | None = None) -> None:
        """Connect the first `count` clients (all); return when each has a value. Raises ClientsFailed."""
        new = self.all[self._started : count]
        started_s, handshakes, connecting_s = time.monotonic(), self.handshakes, 0.0
        for client in new:
            client.lost_s = started_s
        self._started += len(new)
        if not self._connectors:
            self._connectors = [asyncio.create_task(self._connect()) for _ in range(CONNECTING_MAX)]
        spacing_s = self._ramp_s / max(1, len(self.all))
        for index, client in enumerate(new):
            self._later(index * spacing_s, client)
        try:
            async with asyncio.timeout(FIRST_VALUE_S_MAX + spacing_s * len(new)):
                while any(not client.has_value for client in new):
                    if self.handshakes - handshakes < len(new):
                        connecting_s = time.monotonic() - started_s
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            waiting = sum(not client.has_value for client in new)
            codes = dict(self.close_codes)
            raise ClientsFailed(
                f"{waiting} of {len(new)} clients have no value after {FIRST_VALUE_S_MAX:.0f} s; "
                f"connections ended by code: {codes}"
            ) from None
        self.outages_s.clear()
        self._connecting_s += connecting_s + POLL_S  # the last handshake may be up to POLL_S later
        self.connects_per_s = self._started / self._connecting_s

    def begin_measuring(self) -> None:
        """Reset the counts of messages, lags and outages; errors stay counted."""
        self.counts["messages"] = self.counts["payload_bytes"] = 0
        self.lags, self.deliveries = Lags(), Lags()
        self.outages_s.clear()
        now_ns = time.time_ns()
        for client in self.all:
            client.begin_measuring(now_ns)

    def cut(self) -> None:
        """Abort all connections at once, without a close frame."""
        for client in self.all:
            if client.wire is not None:
                client.wire.abort()

    async def stop(self) -> None:
        """Abort all connections and do not reconnect."""
        self._is_stopping = True
        for timer in self._timers:
            timer.cancel()
        await cancel_until_ended(self._connectors)
        self.cut()
        await asyncio.sleep(0)

    async def mismatches(self, truths: dict[str, Truth]) -> dict[str, list[str]]:
        """Account id -> names of the figures that differ from the truth, for each client that differs.

        Stalled clients are left out: they do not read.
        """
        differing = (
            (client.account_id, client.mismatches(truths[client.account_id])) for client in self._readers
        )
        return {account_id: wrong for account_id, wrong in differing if wrong}

    # Connections

    def _later(self, pause_s: float, client: CheckedClient) -> None:
        if pause_s <= 0:
            self._queue(client)
        else:
            self._call_later(pause_s, lambda: self._queue(client))

    def _call_later(self, pause_s: float, act: Callable[[], None]) -> None:
        def due() -> None:
            self._timers.discard(timer)
            act()

        timer = asyncio.get_running_loop().call_later(pause_s, due)
        self._timers.add(timer)

    def _queue(self, client: CheckedClient) -> None:
        self._waiting.append(client)
        self._wake.set()

    async def _connect(self) -> None:
        """Connect the waiting clients, one after the other. CONNECTING_MAX of these tasks run."""
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            client = self._waiting.popleft()
            client.is_coming = False
            client.settled = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(CONNECT_S_MAX):
                    client.wire = await self._open(client)
                    await client.settled
            except TimeoutError:
                self.counts["timeouts"] += 1
                if client.wire is not None:
                    client.wire.abort()  # this calls `ended`
                else:
                    self._again(client)
            except OSError:
                self._again(client)

    async def _open(self, client: CheckedClient) -> Wire:
        parts = self._parts
        is_secure = parts.scheme == "https"
        path = f"{parts.path.rstrip('/')}/ws/portfolio/{client.account_id}"
        asked = request(parts.netloc, f"{path}?detail=positions" if self.has_detail else path)
        hello = msgspec.json.encode({"type": "auth", "token": self._token_for(client.account_id)})
        host = parts.hostname or ""
        if self._address is None:
            self._address = await _resolved(host, parts.port or (443 if is_secure else 80))
        _, wire = await asyncio.get_running_loop().create_connection(
            lambda: Wire(client, asked, text_frame(hello)),
            ssl=ssl.create_default_context() if is_secure else None,
            server_hostname=host if is_secure else None,
            sock=await _connected(*self._address, is_stalled=client.is_stalled),
        )
        return wire

    def ended(self, client: CheckedClient, code: int) -> None:
        """Note the end of a client's connection, and reconnect after a back-off."""
        client.wire, client.was_cut = None, True
        if not client.is_stalled:  # a stalled client does not read the close code
            self.close_codes[code] += 1
        if client.lost_s is None:
            client.lost_s = time.monotonic()
        if client.settled is not None and not client.settled.done():
            client.settled.set_result(False)
        self._again(client)

    def _again(self, client: CheckedClient) -> None:
        if self._is_stopping or client.is_coming:
            return
        client.is_coming = True
        self.counts["reconnects_stalled" if client.is_stalled else "reconnects"] += 1
        self._later(client.backoff.next_s(), client)

    # Messages

    def check_message(self, client: CheckedClient, raw: bytes) -> None:
        """Check and count one message of one client."""
        received_ns = time.time_ns()
        try:
            frame = _decode_frame(raw) if self.has_detail else _decode_lean_frame(raw)
        except msgspec.DecodeError:
            self.counts["unreadable"] += 1
            return
        if frame.type != "portfolio":
            self.counts["errors"] += frame.type == "error"
            client.stale_hops = frame.stale_hops if frame.type == "freshness" else client.stale_hops
            return
        self.counts["messages"] += 1
        self.counts["payload_bytes"] += len(raw)
        if frame.account_id != client.account_id:
            self.counts["leaks"] += 1
            return
        order, published_ns = (frame.epoch, frame.sequence), wire_ns(frame.timestamp)
        self._check_order(client, order)
        if not client.is_snapshot:
            self._measure(client, frame.as_of, published_ns, received_ns, len(raw))
        if not client.has_value:
            self.first_values.add(received_ns, received_ns - client.asked_ns)
        if order > client.order:
            client.heard(received_ns)
        client.order, client.published_ns = order, published_ns
        client.receive_value(raw)
        if isinstance(frame, _Frame):
            if client.is_snapshot:
                client.rows.clear()
            client.rows.update({row["symbol"]: row for row in frame.positions or ()})
        if client.is_snapshot:
            self._settled(client)

    def _check_order(self, client: CheckedClient, order: tuple[int, int]) -> None:
        is_again = client.is_snapshot and order == client.order  # a reconnect may repeat the newest value
        if order <= client.order and not is_again:
            self.counts["regressions"] += 1
        elif order[0] == client.order[0] and not client.is_snapshot:
            self._missed(client, order[1] - client.order[1] - 1)

    def _missed(self, client: CheckedClient, numbers: int) -> None:
        """Count the sequences that a client did not receive; conflation explains those of `gaps_behind`.

        The server conflates for a client only while WAITING_BYTES_MAX wait for its socket. Then nearly that
        many bytes arrive late, just before the gap.
        """
        if client.is_stalled:
            self.counts["gaps_stalled"] += numbers
            return
        self.counts["gaps"] += numbers
        if client.behind_bytes >= BEHIND_BYTES_MIN:
            self.counts["gaps_behind"] += numbers

    def _measure(
        self, client: CheckedClient, as_of: str, published_ns: int, received_ns: int, length: int
    ) -> None:
        """Add the lag of one value to the samples."""
        allowed_ns = max(wire_ns(as_of), client.published_ns + self._interval_ns)
        self.lags.add(received_ns, received_ns - allowed_ns)
        self.deliveries.add(received_ns, received_ns - published_ns)
        is_late = received_ns - published_ns >= self._interval_ns / 2
        client.behind_bytes = client.behind_bytes + length if is_late else 0

    def _settled(self, client: CheckedClient) -> None:
        """Note that a connection has its first value; a stalled client stops reading."""
        client.is_snapshot = False
        client.backoff.reset()
        if client.lost_s is not None:
            if not client.is_stalled:
                self.outages_s.append(time.monotonic() - client.lost_s)
            client.lost_s = None
        if client.settled is not None and not client.settled.done():
            client.settled.set_result(True)
        if client.is_stalled and client.wire is not None:
            client.wire.stall()
            self._call_later(STALLED_S, client.wire.abort)


async def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """The first address of a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return found[0][0], found[0][4]


async def _connected(family: socket.AddressFamily, address: Any, *, is_stalled: bool) -> socket.socket:
    """A connected socket. A client that will stall has a small receive buffer from the start."""
    connected = socket.socket(family, socket.SOCK_STREAM)
    connected.setblocking(False)
    if is_stalled:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STALLED_RECEIVE_BYTES)
    try:
        await asyncio.get_running_loop().sock_connect(connected, address)
    except BaseException:
        connected.close()
        raise
    return connected
