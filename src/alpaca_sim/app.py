"""The composition root: one simulator, one ASGI application, one server on one port."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from alpaca_sim.api import (
    activities_rest,
    broker_rest,
    data_rest,
    data_stream,
    events,
    history_rest,
    trading_rest,
    trading_stream,
)
from alpaca_sim.api.auth import Guard
from alpaca_sim.api.rest_faults import RestFaults
from alpaca_sim.api.web import ApiError, error_response, not_found
from alpaca_sim.control import fault_actions, levers, odd_levers, routes
from alpaca_sim.core.clock import SECOND_NS
from alpaca_sim.simulator import Simulator

SHUTDOWN_S_MAX = 1
BACKLOG = 2_048
START_POLL_S = 0.005
# Longer than clients keep idle connections, so that a client never sends on one that was just closed.
KEEP_ALIVE_S = 75


def make_app(sim: Simulator) -> ASGIApp:
    """Return the ASGI application of one simulator: all routes, REST faults, authentication, rate limit."""
    served = [
        *routes.ROUTES,
        *history_rest.ROUTES,
        *levers.ROUTES,
        *odd_levers.ROUTES,
        # Before the account routes, which would read `activities` as an account id.
        *activities_rest.ROUTES,
        *trading_rest.ROUTES,
        *trading_stream.ROUTES,
        *broker_rest.ROUTES,
        *events.ROUTES,
        *data_rest.ROUTES,
        *data_stream.ROUTES,
    ]
    app = Starlette(routes=served, exception_handlers={ApiError: error_response, 404: not_found})
    app.router.redirect_slashes = False
    guard = Guard(RestFaults(app, sim), sim.credentials, sim.rate_limit, lambda: _http_date(sim))
    app.state.sim = sim
    sim.on_fault = partial(fault_actions.carry_out, sim)
    app.state.trading = trading_stream.Trading(sim)
    app.state.guard = guard
    return guard


def _http_date(sim: Simulator) -> str:
    return format_datetime(datetime.fromtimestamp(sim.reported_now_ns // SECOND_NS, UTC), usegmt=True)


class Server(uvicorn.Server):
    """uvicorn without its own signal handling: `serve` below stops it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Do nothing: the caller handles signals."""
        yield

    def abort(self, client: tuple[str, int]) -> None:
        """Close the connection of the client (host, port) at once, without a close frame."""
        for _, transport in self._connections(client):
            transport.abort()

    def freeze(self, client: tuple[str, int]) -> None:
        """Stop reading from the client (host, port) and stop pinging it: its own pings are not answered."""
        for connection, transport in self._connections(client):
            transport.pause_reading()
            stop_pings = getattr(connection, "stop_keepalive", None)
            if stop_pings is not None:
                stop_pings()

    def _connections(self, client: tuple[str, int]) -> list[tuple[object, asyncio.Transport]]:
        found: list[tuple[object, asyncio.Transport]] = []
        for connection in list(self.server_state.connections):
            transport: asyncio.Transport | None = getattr(connection, "transport", None)
            if transport is not None and transport.get_extra_info("peername") == client:
                found.append((connection, transport))
        return found


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 chooses a free port. Raises OSError when the port is in use."""
    # asyncio sets TCP_NODELAY only on a socket whose protocol is given.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


async def serve(
    sim: Simulator, listener: socket.socket, stop: asyncio.Event, on_ready: Callable[[], None]
) -> None:
    """Serve until `stop` is set or the task is cancelled.

    `on_ready` is called once the server accepts requests. Raises RuntimeError when the simulator's loop
    fails.
    """
    config = uvicorn.Config(
        make_app(sim),
        http="httptools",
        ws="websockets-sansio",
        lifespan="off",
        log_config=None,
        access_log=False,
        date_header=False,  # the guard sends the simulator's time
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S_MAX,
    )
    server = Server(config)
    sim.abort, sim.freeze = server.abort, server.freeze
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    driving = asyncio.create_task(sim.run())
    stopping = asyncio.create_task(stop.wait())
    try:
        while not server.started and not serving.done():
            await asyncio.sleep(START_POLL_S)
        on_ready()
        await asyncio.wait((serving, driving, stopping), return_when=asyncio.FIRST_COMPLETED)
        has_failed = driving.done()
    finally:
        stopping.cancel()
        driving.cancel()
        sim.close()
        server.should_exit = True
        await asyncio.gather(serving, driving, stopping, return_exceptions=True)
    if has_failed:
        raise RuntimeError("the simulator's loop failed") from driving.exception()


async def serve_until_signal(sim: Simulator, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    await serve(sim, listener, stop, on_ready)
