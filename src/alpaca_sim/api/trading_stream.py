"""The Trading API's stream, `/stream`: authenticate, listen to `trade_updates`, receive the account's fills.

Frames are binary and contain JSON, as Alpaca's do. Fills from before the connection are not sent.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from alpaca_sim.api.trading_keys import TradingKeys
from alpaca_sim.core.clock import rfc3339
from alpaca_sim.core.decimals import ZERO, text
from alpaca_sim.core.ledger import Activity
from alpaca_sim.simulator import Simulator
from alpaca_sim.streams.activities_json import fill_json

STREAM = "trade_updates"
CONNECTIONS_MAX = 1  # per account
UNSENT_MAX = 1_000  # unsent messages at which a connection is aborted
TRADE = "TRD"


@dataclass(slots=True, eq=False)
class Listener:
    """One connection: its account (empty before authentication), and the messages that are not sent yet."""

    client: tuple[str, int]
    account_id: str = ""
    is_listening: bool = False
    unsent: "asyncio.Queue[dict[str, Any]]" = field(default_factory=lambda: asyncio.Queue(UNSENT_MAX))


class Trading:
    """The Trading API of one simulator: the accounts' keys, and the connections that listen to fills."""

    def __init__(self, sim: Simulator) -> None:
        """Register the accounts' keys for market data, and subscribe to the ledger's activities."""
        self.listeners: set[Listener] = set()
        self.keys = TradingKeys(sim.ledger.accounts, sim.settings.secret)
        self._sim = sim
        sim.credentials.trading_account = self.keys.account_id
        notify = sim.ledger.on_activity

        def on_activity(activity: Activity) -> None:
            notify(activity)
            self.publish(activity)

        sim.ledger.on_activity = on_activity

    def cut(self) -> int:
        """Abort all connections without a close frame, and return their number."""
        cut = list(self.listeners)
        for listener in cut:
            self._sim.abort(listener.client)
        return len(cut)

    def publish(self, activity: Activity) -> None:
        """Queue a fill for the connections that listen to its account. Other activities are ignored."""
        if activity.activity_type != TRADE:
            return
        for listener in list(self.listeners):
            if listener.is_listening and listener.account_id == activity.account_id:
                try:
                    listener.unsent.put_nowait({"stream": STREAM, "data": self._update(activity)})
                except asyncio.QueueFull:
                    self._sim.abort(listener.client)

    def _update(self, activity: Activity) -> dict[str, Any]:
        update = fill_json(activity, self._sim.market)
        del update["account_id"]
        holdings = self._sim.ledger.accounts[activity.account_id].current
        position = holdings.positions.get(activity.symbol)
        return update | {"position_qty": text(position.quantity if position else ZERO)}

    def receive(self, listener: Listener, message: object) -> None:
        """Answer one decoded client message; an unknown message has no answer."""
        body = cast("dict[str, Any]", message) if isinstance(message, dict) else {}
        action = body.get("action")
        if action in ("auth", "authenticate"):
            self._log_in(listener, body)
        elif action == "listen":
            self._listen(listener, body)

    def _log_in(self, listener: Listener, body: dict[str, Any]) -> None:
        given = body.get("data") if isinstance(body.get("data"), dict) else body
        given = cast("dict[str, Any]", given)
        key = str(given.get("key_id") or given.get("key") or "")
        secret = str(given.get("secret_key") or given.get("secret") or "")
        account_id = self._account_of(key, secret)
        count = sum(other.account_id == account_id for other in self.listeners - {listener})
        is_granted = account_id is not None and count < CONNECTIONS_MAX
        listener.account_id = account_id or "" if is_granted else ""
        self._authorization(listener, "authenticate", is_granted=is_granted)

    def _account_of(self, key: str, secret: str) -> str | None:
        if self._sim.credentials.is_pair(key, secret):
            return next(iter(self._sim.ledger.accounts), None)
        return self.keys.account_id(key, secret)

    def _listen(self, listener: Listener, body: dict[str, Any]) -> None:
        if not listener.account_id:
            self._authorization(listener, "listen", is_granted=False)
            return
        given = body.get("data")
        streams = cast("dict[str, Any]", given).get("streams") if isinstance(given, dict) else None
        names = cast("list[object]", streams) if isinstance(streams, list) else []
        listener.is_listening = STREAM in names
        granted = [STREAM] if listener.is_listening else []
        listener.unsent.put_nowait({"stream": "listening", "data": {"streams": granted}})

    def _authorization(self, listener: Listener, action: str, *, is_granted: bool) -> None:
        status = "authorized" if is_granted else "unauthorized"
        body = {"status": status, "action": action, "at": rfc3339(self._sim.clock.now_ns())}
        listener.unsent.put_nowait({"stream": "authorization", "data": body})


async def endpoint(websocket: WebSocket) -> None:
    """One connection from handshake to close."""
    trading: Trading = websocket.app.state.trading
    await websocket.accept()
    assert websocket.client is not None
    listener = Listener((websocket.client.host, websocket.client.port))
    trading.listeners.add(listener)
    reader = asyncio.create_task(_read(websocket, trading, listener))
    writer = asyncio.create_task(_write(websocket, listener))
    try:
        await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
    finally:
        trading.listeners.discard(listener)
        for task in (reader, writer):
            task.cancel()
        await asyncio.gather(reader, writer, return_exceptions=True)


async def _read(websocket: WebSocket, trading: Trading, listener: Listener) -> None:
    while True:
        received = await websocket.receive()
        if received["type"] == "websocket.disconnect":
            return
        encoded = received.get("text") or received.get("bytes") or b""
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            trading.receive(listener, msgspec.json.decode(encoded))


async def _write(websocket: WebSocket, listener: Listener) -> None:
    with suppress(WebSocketDisconnect, RuntimeError, OSError):
        while True:
            await websocket.send_bytes(msgspec.json.encode(await listener.unsent.get()))


ROUTES = [WebSocketRoute("/stream", endpoint)]
