"""Peers in Python: `python python_server.py picows|websockets|fastapi PORT BYTES INTERVAL_S`.

Each sends one ready message to all of its clients per interval, in the leanest way that its documentation
shows; SIGUSR2 switches it on and off.
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

BACKLOG = 4096

Send = Callable[[], Coroutine[Any, Any, None]]


async def tick(send: Send, interval_s: float) -> None:
    """Call `send` once per interval while SIGUSR2 has switched it on."""
    loop = asyncio.get_running_loop()
    is_on = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR2, lambda: is_on.clear() if is_on.is_set() else is_on.set())
    due_s = loop.time()
    while True:
        await is_on.wait()
        await send()
        due_s = max(due_s + interval_s, loop.time())
        await asyncio.sleep(due_s - loop.time())


async def picows(port: int, message: str, interval_s: float) -> None:
    """`WSTransport.send` to each client. Faster here on asyncio's own loop than on uvloop."""
    from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

    clients: set[WSTransport] = set()

    class Listener(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            clients.add(transport)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            clients.discard(transport)

    def listener(_: WSUpgradeRequest) -> WSListener:
        return Listener()

    async def send() -> None:
        for client in clients:
            client.send(WSMsgType.TEXT, payload)

    payload = message.encode()
    await ws_create_server(listener, "127.0.0.1", port, backlog=BACKLOG)
    await tick(send, interval_s)


async def websockets(port: int, message: str, interval_s: float) -> None:
    """`broadcast`, which frames the message once."""
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    clients: set[ServerConnection] = set()

    async def handle(client: ServerConnection) -> None:
        clients.add(client)
        try:
            await client.wait_closed()
        finally:
            clients.discard(client)

    async def send() -> None:
        broadcast(clients, message)

    async with serve(handle, "127.0.0.1", port, compression=None, backlog=BACKLOG):
        await tick(send, interval_s)


async def fastapi(port: int, message: str, interval_s: float) -> None:
    """`send_text` to each client, under uvicorn with its own choice of WebSocket protocol."""
    import uvicorn
    from fastapi import FastAPI, WebSocket, WebSocketDisconnect

    app = FastAPI()
    clients: set[WebSocket] = set()

    @app.websocket("/{rest:path}")
    async def handle(client: WebSocket) -> None:  # pyright: ignore[reportUnusedFunction]  # FastAPI calls it
        await client.accept()
        clients.add(client)
        with suppress(WebSocketDisconnect):
            while True:
                await client.receive_text()
        clients.discard(client)

    async def send() -> None:
        for client in tuple(clients):
            await client.send_text(message)

    config = uvicorn.Config(
        app, port=port, log_level="error", ws_per_message_deflate=False, backlog=BACKLOG, lifespan="off"
    )
    await asyncio.gather(uvicorn.Server(config).serve(), tick(send, interval_s))


def main() -> None:
    """Run the server that the command line names."""
    name, port, message_bytes, interval_s = sys.argv[1:]
    server = {"picows": picows, "websockets": websockets, "fastapi": fastapi}[name]
    if name == "picows":
        asyncio.run(server(int(port), "x" * int(message_bytes), float(interval_s)))
        return
    import uvloop

    uvloop.run(server(int(port), "x" * int(message_bytes), float(interval_s)))


if __name__ == "__main__":
    main()
