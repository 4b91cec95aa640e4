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
from portfolio_realtime.clock import NS_PER_S, Clock
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import SettingsError, StateUnavailable
from portfolio_realtime.model import Account, Bookings
from portfolio_realtime.service import Context
from portfolio_realtime.state import State
from portfolio_realtime.state.minutes import whole_at_or_before
from portfolio_realtime.valuation.explain import explain
from portfolio_realtime.valuation.history import history as picture
from portfolio_realtime.valuation.history import symbols_of
from portfolio_realtime.websocket.endpoint import Endpoint
from portfolio_realtime.websocket.gateway import Gateway
from portfolio_realtime.websocket.patience import PatientHttp
from portfolio_realtime.websocket.routes import build_app

BACKLOG: Final = 4096
SHUTDOWN_S_MAX: Final = 2
END_S_MAX: Final = 4.0
HISTORY_POINTS_MAX: Final = 1440  # a day of minutes
HISTORIES_MAX: Final = 4  # drawn at the same time
PAIR_READS_MAX: Final = 20
PAIR_PAUSE_S: Final = 0.02

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
                gateway.confirm_access(),
                service.keep_running(gateway.follow_revocations, context.clock, "following revocations"),
                gateway.follower.renew(),
                service.keep_running(gateway.follower.follow, context.clock, "following publications"),
                service.keep_running(gateway.follower.announce, context.clock, "announcing interest"),
            )
        finally:
            await _end(gateway, server, serving)
            await gateway.close()


async def explanation(state: State, clock: Clock, account_id: str) -> bytes | None:
    """The work behind an account's value, from its record and its marks, or None without a record.

    Raises StateUnavailable.
    """
    account = await state.accounts.read_one(account_id)
    if account is None:
        return None
    marks = await state.marks.read([position.symbol for position in account.positions])
    return explain(account, marks, clock.now_ns())


async def history(
    state: State, settings: Settings, clock: Clock, turns: asyncio.Semaphore, account_id: str
) -> bytes | None:
    """What an account was worth at each minute since the last close, or None without a record.

    Raises StateUnavailable, also when record and bookings are never seen together.
    """
    async with turns:
        account, bookings = await _pair(state, account_id)
        if account is None:
            return None
        if bookings is None:
            raise StateUnavailable("the record's bookings are not there")
        interval_ns = settings.history_interval * NS_PER_S
        written_ns = clock.now_ns() - int(2 * settings.history_delay_s * NS_PER_S)
        end_ns = written_ns // interval_ns * interval_ns
        since_ns = max(bookings.day_began_ns, end_ns - (HISTORY_POINTS_MAX - 1) * interval_ns)
        times_ns = range(whole_at_or_before(since_ns, interval_ns), end_ns + 1, interval_ns)
        minutes = await state.minutes.read(times_ns, symbols_of(account, bookings))
        timeframe = timeframe_of(settings.history_interval)
        return await asyncio.to_thread(picture, account, bookings, minutes, since_ns, timeframe)


async def _pair(state: State, account_id: str) -> tuple[Account | None, Bookings | None]:
    """A record and its bookings; they are written one after the other, so it may take a second look."""
    account: Account | None = None
    for _ in range(PAIR_READS_MAX):
        found = await state.accounts.read_with_bookings(account_id)
        if found is None:
            return None, None
        account, bookings = found
        if bookings is not None:
            return account, bookings
        await asyncio.sleep(PAIR_PAUSE_S)
    return account, None


def timeframe_of(interval_s: int) -> str:
    """As Alpaca names it: 60 -> `1Min`; other lengths in seconds: `5Sec`."""
    minutes, seconds = divmod(interval_s, 60)
    return f"{interval_s}Sec" if seconds else f"{minutes}Min"


def _server(gateway: Gateway, context: Context) -> _Server:
    state, settings, clock = context.state, context.settings, context.clock
    explain_account = partial(explanation, state, clock)
    history_of_account = partial(history, state, settings, clock, asyncio.Semaphore(HISTORIES_MAX))
    config = uvicorn.Config(
        build_app(gateway, context.instance, explain_account, history_of_account),
        http=PatientHttp,
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
    """Drain to the end, at most END_S_MAX, however often we are cancelled meanwhile (`service.together`)."""
    ending = asyncio.ensure_future(_drained(gateway, server, serving))
    while not ending.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(ending)
    ending.result()


async def _drained(gateway: Gateway, server: _Server, serving: "asyncio.Task[None]") -> None:
    log.info("draining", clients=len(gateway.clients))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_S_MAX):
            await gateway.drain()
            server.should_exit = True
            await serving


if __name__ == "__main__":
    service.main("websocket_server", run)
