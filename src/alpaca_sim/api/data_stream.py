"""The market-data WebSocket endpoint.

It moves messages between a socket and its session, and closes clients that read too slowly or do not
authenticate in time.
"""

import asyncio
from contextlib import suppress

import msgspec
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from alpaca_sim.api.stream_session import AUTH_ATTEMPTS_MAX, Session
from alpaca_sim.api.web import json_response
from alpaca_sim.simulator import Simulator
from alpaca_sim.streams.feeds import FEED_KINDS, Feed, Subscriber
from alpaca_sim.streams.messages import Encoding

AUTH_TIMEOUT_S = 10.0
CLOSE_GRACE_S = 1.0  # how long the last message may take before the connection is aborted
CLOSE_POLICY = 1008
SOCKET_GONE = (WebSocketDisconnect, RuntimeError, OSError)  # raised by a send on a closed socket


async def endpoint(websocket: WebSocket) -> None:
    """One connection from handshake to close."""
    sim: Simulator = websocket.app.state.sim
    feed = sim.feeds.by_path[websocket.url.path]
    is_msgpack = "msgpack" in websocket.headers.get("content-type", "")
    encoding = Encoding.MSGPACK if is_msgpack else Encoding.JSON
    if _is_too_soon(sim, feed):
        await websocket.send_denial_response(json_response({"message": "too many requests."}, 429))
        return
    await websocket.accept()
    assert websocket.client is not None
    subscriptions = {channel: set[str]() for channel in feed.kind.channels}
    client = websocket.client.host, websocket.client.port
    subscriber = Subscriber(client, encoding, subscriptions, feed.kind.name)
    subscriber.is_refused = feed.kind.is_msgpack_only and not is_msgpack
    settings = sim.settings
    session = Session(
        feed,
        subscriber,
        sim.credentials,
        settings.market_connection_limit,
        settings.market_symbol_limit,
        feed.kind.name in settings.denied_feeds,
        lambda: sim.faults.is_on("market.ghosts", feed.kind.name),
        settings.switches.header_auth == "connected_first",
    )
    sim.sockets.add(subscriber)
    try:
        await _converse(websocket, sim, session, subscriber)
    finally:
        feed.remove(subscriber)
        sim.sockets.discard(subscriber)


def _is_too_soon(sim: Simulator, feed: Feed) -> bool:
    """Whether the fault `market.reconnect_limit` refuses this handshake: too soon after the last accepted."""
    sim.feeds.handshake_count += 1
    now = asyncio.get_running_loop().time()
    apart_s = sim.faults.level("market.reconnect_limit", feed.kind.name)
    if apart_s is not None and now - feed.handshake_at < apart_s:
        return True
    feed.handshake_at = now
    return False


async def _converse(websocket: WebSocket, sim: Simulator, session: Session, subscriber: Subscriber) -> None:
    if subscriber.is_refused:
        session.fail(412)
        subscriber.close()
    else:
        session.welcome(websocket.headers)
    attempts_max = 1 if sim.settings.switches.refused_session == "closes" else AUTH_ATTEMPTS_MAX
    reader = asyncio.create_task(_read(websocket, session, subscriber, attempts_max))
    writer = asyncio.create_task(_write(websocket, sim, subscriber))
    slow = asyncio.create_task(subscriber.slow.wait())
    try:
        await asyncio.wait((reader, writer, slow), return_when=asyncio.FIRST_COMPLETED)
        if subscriber.is_closed:
            await asyncio.wait((writer,), timeout=CLOSE_GRACE_S)
    finally:
        for task in (reader, writer, slow):
            task.cancel()
        await asyncio.gather(reader, writer, slow, return_exceptions=True)
    if subscriber.slow.is_set():
        await _close_slow(websocket, sim, session, subscriber)


async def _close_slow(websocket: WebSocket, sim: Simulator, session: Session, subscriber: Subscriber) -> None:
    """Send error 407, for a client that still reads, and abort the connection."""
    sim.feeds.by_path[websocket.url.path].remove(subscriber)
    subscriber.slow.clear()
    subscriber.drop_outbound()
    session.fail(407)
    with suppress(TimeoutError, *SOCKET_GONE):
        async with asyncio.timeout(CLOSE_GRACE_S):
            await _send_all(websocket, subscriber)
    sim.abort(subscriber.client)


async def _read(websocket: WebSocket, session: Session, subscriber: Subscriber, attempts_max: int) -> None:
    while not subscriber.is_closed:
        try:
            message = await asyncio.wait_for(
                _receive(websocket, subscriber.encoding), None if session.is_authenticated else AUTH_TIMEOUT_S
            )
        except WebSocketDisconnect:
            return
        except TimeoutError:
            session.fail(404)
            break
        session.receive(message)
        if not session.is_authenticated and session.auth_attempt_count >= attempts_max:
            break
    subscriber.close()


async def _receive(websocket: WebSocket, encoding: Encoding) -> object:
    """The next message, decoded; None when it is not valid. Raises WebSocketDisconnect."""
    received = await websocket.receive()
    if received["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(received.get("code", 1006))
    text, body = received.get("text"), received.get("bytes") or b""
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        if text is not None:
            return msgspec.json.decode(text)
        return msgspec.msgpack.decode(body) if encoding is Encoding.MSGPACK else msgspec.json.decode(body)
    return None


async def _write(websocket: WebSocket, sim: Simulator, subscriber: Subscriber) -> None:
    with suppress(*SOCKET_GONE):
        while True:
            await subscriber.wake.wait()
            subscriber.wake.clear()
            await asyncio.sleep(sim.faults.level("market.slow", subscriber.feed_name) or 0.0)
            await _send_all(websocket, subscriber)
            if subscriber.is_closed:
                await websocket.close(CLOSE_POLICY)
                return


async def _send_all(websocket: WebSocket, subscriber: Subscriber) -> None:
    while (encoded := subscriber.dequeue()) is not None:
        subscriber.is_sending = True
        try:
            if subscriber.encoding is Encoding.JSON:
                await websocket.send_text(encoded.decode())
            else:
                await websocket.send_bytes(encoded)
        finally:
            subscriber.is_sending = False


ROUTES = [WebSocketRoute(kind.path, endpoint) for kind in FEED_KINDS]
