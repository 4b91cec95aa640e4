"""A real HTTP server on a free port that answers as a test says."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def scripted(answer: Answer) -> AsyncGenerator[str]:
    """Base URL of a server that calls `answer(request target, writer)` for each request, one a connection."""
    open_connections: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_connections.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            with contextlib.suppress(ConnectionError):
                await answer(head.split(" ", 2)[1], writer)
                await writer.drain()
        finally:
            open_connections.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in tuple(open_connections):
            writer.transport.abort()
        await server.wait_closed()


def response(status: int, body: str, headers: str = "") -> bytes:
    """A whole response."""
    content = body.encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode() + content


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
