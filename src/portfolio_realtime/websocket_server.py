"""SERVICE 4, the WebSocket server: sends every client the newest value of its accounts.

`python -m portfolio_realtime.websocket_server` listens on WEBSOCKET_HOST:WEBSOCKET_PORT. Stateless: run as
many as needed, behind any load balancer. It ends by drain: no new clients, everybody is asked to reconnect.
"""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Generator
from functools import partial
from typing import Any, Final, cast

import structlog
import uvicorn

from portfolio_realtime import service
from portfolio_realtime.clock import Clock
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.service import Context
from portfolio_realtime.state import State
from portfolio_realtime.valuation.explain import explain
from portfolio_realtime.websocket.endpoint import Endpoint
from portfolio_realtime.websocket.gateway import Gateway
from portfolio_realtime.websocket.routes import build_app

BACKLOG: Final = 4096
SHUTDOWN_S_MAX: Final = 2
END_S_MAX: Final = 4.0

log = structlog.get_logger()


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the service has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def run(context: Context) -> None:
    """Serve until cancelled, then drain. Raises SettingsError when the port cannot be had."""
    settings = context.settings
    with _listen(settings.websocket_host, settings.websocket_port) as listener:
        gateway = Gateway(settings, context.state, context.clock, context.registry)
        server = _server(gateway, context)
        serving = asyncio.create_task(server.serve([listener]))
        try:
            _announce(gateway, listener)
            await service.together(
                asyncio.wait([serving]),
                gateway.sweep(),
                gateway.follower.renew(),
                service.keep_running(gateway.follower.follow, context.clock, "following publications"),
                service.keep_running(gateway.follower.announce, context.clock, "announcing interest"),
            )
        finally:
            await _end(gateway, server, serving)


async def explanation(state: State, clock: Clock, account_id: str) -> bytes | None:
    """The work behind an account's value, from its record and its marks, or None without a record.

    Raises StateUnavailable.
    """
    account = await state.accounts.read_one(account_id)
    if account is None:
        return None
    marks = await state.marks.read([position.symbol for position in account.positions])
    return explain(account, marks, clock.now_ns())


def _server(gateway: Gateway, context: Context) -> _Server:
    config = uvicorn.Config(
        build_app(gateway, context.instance, partial(explanation, context.state, context.clock)),
        http="httptools",
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
    return _Server(config)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"port {port} is in use: end what listens there, or set WEBSOCKET_PORT to another port"
            ) from None
        raise SettingsError(
            f"cannot listen on WEBSOCKET_HOST={host}, WEBSOCKET_PORT={port}: {error}"
        ) from None


def _announce(gateway: Gateway, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # compared, not bound
    url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
    if gateway.authenticator.is_off:
        log.warning("authentication is OFF: only clients on this machine are served; set JWT_SECRET")
    log.info("serving", url=url, websocket=f"{url.replace('http', 'ws', 1)}/ws/portfolio/{{account_id}}")


async def _end(gateway: Gateway, server: _Server, serving: "asyncio.Task[None]") -> None:
    log.info("draining", clients=len(gateway.clients))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_S_MAX):
            await gateway.drain()
            server.should_exit = True
            await serving


if __name__ == "__main__":
    service.main("websocket_server", run)
