"""SERVICE 4, the WebSocket server: sends every client the newest value of its accounts.

`python -m portfolio_realtime.websocket_server` listens on WEBSOCKET_HOST:WEBSOCKET_PORT. Stateless: run as
many as needed, behind any load balancer. It ends by drain: no new clients, everybody is asked to reconnect.
"""

import asyncio
import contextlib
import errno
import gc
import logging
import resource
import socket
import sys
from collections.abc import Generator
from functools import partial
from typing import Any, Final, NoReturn, cast

import structlog
import uvloop
from uvicorn.config import Config
from uvicorn.server import Server

from portfolio_realtime import config, exit_codes, logs, service
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.service import Context
from portfolio_realtime.state.connection_counts import ConnectionCounts
from portfolio_realtime.waiting import wait_at_most
from portfolio_realtime.websocket_server.access.shared_counts import SharedCounts
from portfolio_realtime.websocket_server.clients.endpoint import Endpoint
from portfolio_realtime.websocket_server.clients.gateway import CONNECTIONS_MAX, Gateway
from portfolio_realtime.websocket_server.clients.http_protocol import FirstBytes
from portfolio_realtime.websocket_server.http_api.account_queries import AccountQueries
from portfolio_realtime.websocket_server.http_api.front import build_front
from portfolio_realtime.websocket_server.workers import WORKER, Workers

BACKLOG: Final = 4096
SEND_BUFFER_BYTES: Final = 64 * 1024  # of the kernel's, for each connection: they have the listener's
FILES_BESIDE: Final = 1024  # open files that are no WebSocket: HTTP, Valkey, the dying
GARBAGE_OBJECTS_MAX: Final = 20_000  # made, and not yet gone, before the collector looks at them
SHUTDOWN_S_MAX: Final = 2
END_S_MAX: Final = 4.0
DATE_S: Final = 1.0  # between two updates of the date that answers show

log = structlog.get_logger()


class _Server(Server):
    """uvicorn's server without its signal handlers: the service has its own.

    It ends when it is told to, instead of looking ten times a second whether it should.
    """

    def __init__(self, options: Config) -> None:
        super().__init__(options)
        self._told = asyncio.Event()

    def end(self) -> None:
        """Let `serve` end."""
        self.should_exit = True
        self._told.set()

    async def main_loop(self) -> None:
        """Set the date that answers show, each second."""
        while not await self.on_tick(0):
            await wait_at_most(DATE_S, self._told)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def run(context: Context) -> None:
    """Serve until told to end, then drain. Raises SettingsError when the port cannot be had.

    When it is cancelled it asks all clients to reconnect at once.
    """
    settings = context.settings
    is_shared = WORKER in sys.argv  # one of several on this port
    with _listen(settings.websocket_host, settings.websocket_port, is_shared=is_shared) as listener:
        shared = SharedCounts(ConnectionCounts(context.state.connection, context.instance), context.clock)
        gateway = Gateway(settings, context.state, context.clock, context.registry, shared, context.tracing)
        gateway.connections_max = allow_open_files()
        server = _server(gateway, context)
        serving = asyncio.create_task(server.serve([listener]))
        try:
            _announce(gateway, listener)
            await service.together(
                asyncio.wait([serving]),
                _leave(context, gateway),
                gateway.sweep(),
                shared.keep(),
                shared.share(),
                gateway.confirm_access(),
                service.keep_running(gateway.follow_revocations, context.clock, "following revocations"),
                gateway.follower.renew(),
                gateway.follower.watch_freshness(),
                gateway.follower.follow_life(),
                service.keep_running(gateway.follower.follow, context.clock, "following publications"),
                service.keep_running(gateway.follower.follow_closures, context.clock, "following closures"),
                service.keep_running(gateway.follower.announce, context.clock, "announcing interest"),
            )
        finally:
            await _end(gateway, server, serving)
            await gateway.close()


async def _leave(context: Context, gateway: Gateway) -> None:
    await context.ending.wait()
    await gateway.drain()


def _collect_garbage_seldom() -> None:
    """A message makes a few objects that are soon gone, a connection some that stay.

    At its own pace the collector runs every few hundred messages, and through all connections as they come.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS_MAX, 10, 10)


def allow_open_files() -> int:
    """Raise the limit of open files as far as need be and may be; how many connections there is room for.

    Says so where that is fewer than CONNECTIONS_MAX.
    """
    wanted = CONNECTIONS_MAX + FILES_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return CONNECTIONS_MAX
    room = max(soft - FILES_BESIDE, soft // 2)
    log.warning(
        "the limit of open files allows fewer connections than set: raise it (ulimit -Hn, LimitNOFILE)",
        open_files=soft,
        connections_max=room,
    )
    return room


def _server(gateway: Gateway, context: Context) -> _Server:
    queries = AccountQueries(context.state, context.settings, context.clock)
    options = Config(
        build_front(gateway, context.instance, queries),
        http=cast("Any", FirstBytes),
        ws=cast("Any", partial(Endpoint, gateway)),  # called like a class
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=SHUTDOWN_S_MAX,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return _Server(options)


def _listen(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server(
            (host, port),
            family=family,
            backlog=BACKLOG,
            reuse_port=is_shared,
            dualstack_ipv6=_is_for_both(host),
        )
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        return listener
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"port {port} is in use: stop the program that listens there, or change WEBSOCKET_PORT"
            ) from None
        raise SettingsError(
            f"cannot listen on WEBSOCKET_HOST={host}, WEBSOCKET_PORT={port}: {error}"
        ) from None


def _is_for_both(host: str) -> bool:
    """Does `::` mean IPv4 as well?"""
    return host == "::" and socket.has_dualstack_ipv6()


def _announce(gateway: Gateway, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    is_ipv4_served = host == "0.0.0.0" or _is_for_both(host)  # compared, not bound
    shown = "127.0.0.1" if is_ipv4_served else "::1" if host == "::" else host
    url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
    if gateway.authenticator.is_off:
        log.error(  # at a level that no LOG_LEVEL hides
            "authentication is OFF: only clients on this machine are served; set JWT_SECRET or JWKS_URL"
        )
    log.info("serving", url=url, websocket=f"{url.replace('http', 'ws', 1)}/ws/portfolio/{{account_id}}")


async def _end(gateway: Gateway, server: _Server, serving: "asyncio.Task[None]") -> None:
    """End, at most in END_S_MAX, however often we are cancelled meanwhile (`service.together`)."""
    ending = asyncio.ensure_future(_closed(gateway, server, serving))
    while not ending.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(ending)
    ending.result()


async def _closed(gateway: Gateway, server: _Server, serving: "asyncio.Task[None]") -> None:
    """Ask who is still there to reconnect, and close the port."""
    gateway.is_draining = gateway.is_closed = True
    gateway.close_all(tuple(gateway.clients))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_S_MAX):
            server.end()
            await serving


def main() -> NoReturn:
    """Serve from this process, or from WEBSOCKET_WORKERS processes; exit codes as in `exit_codes`."""
    try:
        settings = config.load()
    except SettingsError:
        settings = None  # `service.main` says what is wrong
    if settings is None or settings.websocket_workers == 1 or WORKER in sys.argv:
        _collect_garbage_seldom()
        service.main("websocket_server", run, ends_itself=True)
    logs.configure("websocket_server", settings.log_level, settings.log_format)
    try:
        sys.exit(_run_workers(settings))
    except SettingsError as error:
        logs.say(str(error))
        sys.exit(exit_codes.SETTINGS)


def _run_workers(settings: Settings) -> int:
    """Raises SettingsError."""
    if settings.is_embedded:
        raise SettingsError(
            f"WEBSOCKET_WORKERS={settings.websocket_workers} needs a Valkey that they share: set REDIS_HOST, "
            "or run portfolio_realtime.run_services"
        )
    host = settings.websocket_host.strip("[]")
    with _listen(host, settings.websocket_port) as probe:  # nobody else has it
        port = probe.getsockname()[1]
    with socket.socket(probe.family, socket.SOCK_STREAM) as reserved:  # bound, never listening
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of connections that have ended
        if probe.family == socket.AF_INET6:
            reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not _is_for_both(host))
        reserved.bind((host, port))
        command = (sys.executable, "-m", "portfolio_realtime.websocket_server")
        environment = config.child_environment(WEBSOCKET_WORKERS="1", WEBSOCKET_PORT=str(port))
        return uvloop.run(Workers(command, environment, settings.websocket_workers).run())
