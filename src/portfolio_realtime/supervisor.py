"""Runs the services, each in a process of its own, and restarts a service that ends.

The pause before a restart grows while the service keeps ending.
"""

import asyncio
import errno
import socket
import sys
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import Final, NoReturn

import structlog
import uvloop

from portfolio_realtime import config, logs
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import PortfolioRealtimeError, SettingsError
from portfolio_realtime.exit_codes import FAILED, OK, SETTINGS
from portfolio_realtime.forking import Preloaded, PreloadedEnded
from portfolio_realtime.preloading import Importing, begin, is_possible
from portfolio_realtime.processes import AnyProcess, end_all, keep_alive, start_module, until_asked_to_end
from portfolio_realtime.service import together, warn_of_unused_password
from portfolio_realtime.state import keys, state_of
from portfolio_realtime.state.embedded import EmbeddedServer

READY_POLL_S: Final = 0.1
READY_ANSWER_S_MAX: Final = 2.0
FOREVER_S: Final = 3600.0
LOOK_S_MAX: Final = 60.0  # for a second system: whose accounts are collected here already
COLLECTOR: Final = "symbol_collector"  # a service, and its lease
AT_ONCE: Final = {
    "DRAIN_GRACE_SECONDS": "0",
    "DRAIN_SECONDS": "1.5",
}  # there is no other server to reconnect to

log = structlog.get_logger()


class Supervisor:
    """Keeps services, and if need be an embedded Valkey, running until `stop`."""

    def __init__(
        self, environment: dict[str, str], services: Sequence[str], importing: Importing | None = None
    ) -> None:
        """`importing`: the preloaded process, if it was started earlier; `stop` ends it."""
        self._environment = {**environment, **AT_ONCE}
        self._services = services
        self._preloaded = None if importing is None else Preloaded(importing)
        self._processes: dict[str, AnyProcess] = {}
        self._valkey: EmbeddedServer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its services. After `start`, it has the REDIS_URL of an embedded Valkey."""
        return dict(self._environment)

    @property
    def pids(self) -> dict[str, int]:
        """Name -> process id, of each started service and of an embedded `valkey`."""
        running = {name: process.pid for name, process in self._processes.items()}
        return running if self._valkey is None else {**running, "valkey": self._valkey.pid}

    async def start(self, *, is_embedded: bool) -> None:
        """Start an embedded Valkey if `is_embedded`, then the services. Raises StateUnavailable."""
        self._preload()
        if is_embedded:
            self._valkey = EmbeddedServer()
            await self._valkey.start()
            own = {"REDIS_URL": self._valkey.url, "REDIS_IS_EMBEDDED": "true"}
            self._environment = {**self._environment, **own}
            log.info("Valkey started", url=self._valkey.url)
            self._tasks.append(asyncio.create_task(self._keep_valkey(self._valkey)))
        self._tasks.extend(asyncio.create_task(self._keep(name)) for name in self._services)

    async def wait(self) -> None:
        """Wait for a failure that a restart cannot repair. Raises SettingsError."""
        await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """End all processes: SIGTERM first, then SIGKILL."""
        await cancel_until_ended(self._tasks)
        await end_all(list(self._processes.values()))
        if self._preloaded is not None:
            await self._preloaded.stop()
        if self._valkey is not None:
            await self._valkey.stop()
        self._failure.cancel()

    async def _keep(self, name: str) -> None:
        async def start() -> AnyProcess:
            process = self._processes[name] = await self._start(f"portfolio_realtime.{name}")
            return process

        await keep_alive(name, start, lambda code: code == SETTINGS)
        self._give_up(SettingsError(f"{name} refuses its settings; see above"))

    def _preload(self) -> Preloaded | None:
        """The process that imports what several services share; None where nothing is forked."""
        if self._preloaded is None and len(self._services) > 1 and is_possible():
            self._preloaded = Preloaded(begin(self._environment))
        return self._preloaded

    async def _start(self, module: str) -> AnyProcess:
        """A process that runs this module: a fork, or one that imports everything itself."""
        if (preloaded := self._preload()) is not None:
            try:
                return await preloaded.start(module, self._environment)
            except PreloadedEnded:
                log.warning("the preloaded process has ended; starting a service without it", module=module)
            if self._preloaded is preloaded:
                self._preloaded = None  # the next start begins another one
            await preloaded.stop()
        return await start_module(module, self._environment)

    async def _keep_valkey(self, valkey: EmbeddedServer) -> None:
        while True:
            code = await valkey.wait()
            log.warning("Valkey ended; starting it again", code=code)
            await valkey.start()

    def _give_up(self, error: PortfolioRealtimeError) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)


async def run(settings: config.Settings, services: Sequence[str], importing: Importing | None = None) -> None:
    """Run services until Ctrl-C or SIGTERM. Raises SettingsError, StateUnavailable."""
    if COLLECTOR in services and settings.account_source == "none":
        raise SettingsError(config.described_source(settings))
    serves = "websocket_server" in services
    host, port = settings.websocket_host, settings.run_services_port
    if serves:
        require_free(host, port, remedy="RUN_SERVICES_PORT=")
    environment = config.child_environment(
        WEBSOCKET_PORT=str(port), DEMO_PAGE=str(settings.shows_picker).lower()
    )
    log.info("following", accounts=config.described_source(settings))
    warn_of_unused_password(settings)
    async with until_asked_to_end() as asked:
        supervisor = Supervisor(environment, services, importing)
        try:
            if COLLECTOR in services and await _is_collected(settings):
                await together(asked.wait(), _refuse_strangers(environment))
            await supervisor.start(is_embedded=settings.is_embedded)
            watching = [_say_when_ready(host, port)] if serves and port else []
            await together(asked.wait(), supervisor.wait(), *watching)
        finally:
            log.info("ending")
            await supervisor.stop()


async def _is_collected(settings: config.Settings) -> bool:
    """Whether a collector is active in this Valkey already; False if Valkey cannot be asked now."""
    if settings.is_embedded:
        return False
    keys.use_prefix(settings.key_prefix)
    state = state_of(settings, "run_services")
    try:
        async with asyncio.timeout(LOOK_S_MAX):
            return await state.leases.is_held_by_another(COLLECTOR)
    except (PortfolioRealtimeError, TimeoutError):  # the services say it, with the remedy
        return False
    finally:
        await state.close()


async def _refuse_strangers(environment: dict[str, str]) -> None:
    """Compare our accounts with those of the active collector, before a service of ours takes any lease.

    Raises SettingsError if it collects for another system.
    """
    looking = await start_module(f"portfolio_realtime.{COLLECTOR}.strangers", environment)
    try:
        async with asyncio.timeout(LOOK_S_MAX):
            code = await looking.wait()
    except TimeoutError:  # the collector itself looks again
        return
    finally:
        await end_all([looking])
    if code == SETTINGS:
        raise SettingsError(f"{COLLECTOR} refuses its settings; see above")


async def _say_when_ready(host: str, port: int) -> NoReturn:
    """Log the page's address once the server is ready; then wait until cancelled."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
    while not await asyncio.to_thread(_succeeds, f"{url}/ready"):
        await asyncio.sleep(READY_POLL_S)
    log.info("ready: open the page in a browser; Ctrl-C ends everything", page=f"{url}/")
    while True:
        await asyncio.sleep(FOREVER_S)


def _succeeds(url: str) -> bool:
    """Whether a URL of this machine answers with success; asked without any proxy."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=READY_ANSWER_S_MAX):
            return True
    except (OSError, HTTPException):
        return False


def require_free(host: str, port: int, *, remedy: str) -> int:
    """The port, or a free one for 0. Raises SettingsError with the remedy when it cannot be used.

    `remedy` is the beginning of a setting or an option that sets another port, such as `--port `.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise SettingsError(f"cannot listen on {host}, port {port}: {error}") from None
            raise SettingsError(
                f"port {port} is in use: stop the program that listens there, or choose another port, "
                f"such as {remedy}{port + 1}"
            ) from None
        return probe.getsockname()[1]


def main(services: Sequence[str], importing: Importing | None = None) -> NoReturn:
    """Run services in this terminal until Ctrl-C, then exit with one of `exit_codes`."""
    try:
        settings = config.load()
        logs.configure("run_services", settings.log_level, settings.log_format)
        uvloop.run(run(settings, services, importing))
    except SettingsError as error:
        logs.say(str(error))
        sys.exit(SETTINGS)
    except PortfolioRealtimeError as error:
        log.error("ended", reason=str(error))
        sys.exit(FAILED)
    sys.exit(OK)
