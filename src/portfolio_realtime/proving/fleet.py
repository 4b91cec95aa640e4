"""A fleet of clients that believes nothing: every frame is checked for account, order and completeness."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from portfolio_realtime.clock import parse_rfc3339
from portfolio_realtime.errors import PortfolioRealtimeError
from portfolio_realtime.proving.oracle import Truth

CONNECTING_MAX: Final = 100  # handshakes under way at once
RECONNECT_S: Final = 0.3
FIRST_VALUE_S_MAX: Final = 60.0
LAG_SAMPLES_MAX: Final = 2_000_000

TokenFor = Callable[[str], str]
_decode = msgspec.json.decode


class FleetFailed(PortfolioRealtimeError):
    """The clients cannot be served."""


@dataclass
class Client:
    """What one client has seen of one account."""

    account_id: str
    newest: dict[str, Any] | None = None
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    order: tuple[int, int] = (0, 0)
    published_ns: int = 0

    def mismatches(self, truth: Truth) -> list[str]:
        """Names of the figures that differ from the truth."""
        if self.newest is None:
            return ["no value"]
        wrong = [name for name, figure in truth.figures.items() if self.newest.get(name) != figure]
        if self.rows:
            shown = {
                symbol: row["market_value"] for symbol, row in self.rows.items() if row["quantity"] != "0"
            }
            wrong += ["positions"] if shown != truth.market_values else []
        return wrong


class Fleet:
    """Clients of one server, one per entry of `account_ids`."""

    def __init__(
        self, url: str, account_ids: Sequence[str], token_for: TokenFor, *, interval_s: float, detail: bool
    ) -> None:
        self._url = url.rstrip("/").replace("http", "ws", 1)
        self._token_for = token_for
        self._interval_ns = int(interval_s * 1e9)
        self._detail = detail
        self._connecting = asyncio.Semaphore(CONNECTING_MAX)
        self._connected = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.clients = [Client(account_id) for account_id in account_ids]
        self.counts: Counter[str] = Counter()  # messages, regressions, gaps, leaks, reconnects
        self.close_codes: Counter[int | None] = Counter()
        self.lags_ms: list[float] = []
        self.connects_per_s = 0.0

    async def start(self) -> None:
        """Connect all clients; return when each has its first value. Raises FleetFailed."""
        started_s = time.monotonic()
        self._tasks = [asyncio.create_task(self._live(client)) for client in self.clients]
        try:
            async with asyncio.timeout(FIRST_VALUE_S_MAX):
                while self._connected < len(self.clients):
                    await asyncio.sleep(0.005)
                self.connects_per_s = self._connected / (time.monotonic() - started_s)
                while any(client.newest is None for client in self.clients):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            waiting = sum(client.newest is None for client in self.clients)
            codes = dict(self.close_codes)
            raise FleetFailed(
                f"{waiting} of {len(self.clients)} clients have no value after {FIRST_VALUE_S_MAX:.0f} s; "
                f"connections closed by code: {codes}"
            ) from None

    def begin_measuring(self) -> None:
        """Forget what was counted so far; errors stay counted."""
        self.counts["messages"] = 0
        self.lags_ms.clear()

    async def stop(self) -> None:
        """Close all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def mismatches(self, truths: dict[str, Truth]) -> dict[str, list[str]]:
        """Account -> names of the figures that differ from the truth, for every client that differs."""
        differing = (
            (client.account_id, client.mismatches(truths[client.account_id])) for client in self.clients
        )
        return {account_id: wrong for account_id, wrong in differing if wrong}

    async def _live(self, client: Client) -> None:
        detail = "?detail=positions" if self._detail else ""
        url = f"{self._url}/ws/portfolio/{client.account_id}{detail}"
        is_first = True
        while True:
            with contextlib.suppress(OSError, TimeoutError, WebSocketException):
                async with self._connecting:
                    connection = await connect(url, compression=None, ping_interval=None, open_timeout=30)
                    await connection.send(
                        msgspec.json.encode(
                            {"type": "auth", "token": self._token_for(client.account_id)}
                        ).decode()
                    )
                self._connected += is_first
                is_first = False
                async with connection:
                    await self._read(connection, client)
            self.counts["reconnects"] += 1
            await asyncio.sleep(RECONNECT_S)

    async def _read(self, connection: ClientConnection, client: Client) -> None:
        is_snapshot = True
        try:
            async for raw in connection:
                message = _decode(raw)
                if message["type"] == "portfolio":
                    self._check(client, message, is_snapshot=is_snapshot)
                    is_snapshot = False
                elif message["type"] == "error":
                    self.counts["errors"] += 1
        except ConnectionClosed:
            pass
        self.close_codes[connection.close_code] += 1

    def _check(self, client: Client, message: dict[str, Any], *, is_snapshot: bool) -> None:
        received_ns = time.time_ns()
        self.counts["messages"] += 1
        if message["account_id"] != client.account_id:
            self.counts["leaks"] += 1
            return
        order = (message["epoch"], message["sequence"])
        is_again = is_snapshot and order == client.order  # a reconnect may repeat the newest value
        if order <= client.order and not is_again:
            self.counts["regressions"] += 1
        elif order[0] == client.order[0] and order[1] > client.order[1] + 1 and not is_snapshot:
            self.counts["gaps"] += 1
        if not is_snapshot and len(self.lags_ms) < LAG_SAMPLES_MAX:
            allowed_ns = max(parse_rfc3339(message["as_of"]), client.published_ns + self._interval_ns)
            self.lags_ms.append((received_ns - allowed_ns) / 1e6)
        client.order, client.newest = order, message
        client.published_ns = parse_rfc3339(message["timestamp"])
        if is_snapshot:
            client.rows.clear()
        client.rows.update({row["symbol"]: row for row in message.get("positions", ())})


def percentile(samples: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the samples lie; 0 when there are none."""
    ordered = sorted(samples)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else 0.0
