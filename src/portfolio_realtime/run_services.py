"""All four services, supervised, in one terminal, each in a process of its own: one failure harms no other.

A service that ends is started again after a pause that grows while it keeps ending. Ctrl-C ends everything
within END_S_MAX; no process and no folder is left. Run it: `python -m portfolio_realtime.run_services`
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Final, NoReturn

import structlog
import uvloop

from portfolio_realtime import config, telemetry
from portfolio_realtime.errors import PortfolioRealtimeError, SettingsError
from portfolio_realtime.service import EXIT_FAILED, EXIT_SETTINGS, together
from portfolio_realtime.state.embedded import EmbeddedServer, end_with_parent

SERVICES: Final = ("websocket_server", "symbol_collector", "market_data_consumer", "portfolio_calculator")
PAUSE_S_MIN: Final = 0.2
PAUSE_S_MAX: Final = 10.0
SETTLED_S: Final = 30.0  # a process that lived this long is started again without a long pause
END_S_MAX: Final = 4.0
AT_ONCE: Final = {"DRAIN_GRACE_SECONDS": "0", "DRAIN_SECONDS": "1.5"}  # nobody is left to reconnect to
LINE_BYTES_MAX: Final = 64 * 1024  # of a child's output, where we read it

log = structlog.get_logger()


class Supervisor:
    """Keeps services and, where none is configured, an embedded Valkey alive until `stop`."""

    def __init__(self, environment: dict[str, str], services: Sequence[str] = SERVICES) -> None:
        self._environment = {**environment, **AT_ONCE}
        self._services = services
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._valkey: EmbeddedServer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()

    @property
    def environment(self) -> dict[str, str]:
        """The settings of its services; with an embedded Valkey, REDIS_URL is that one's after `start`."""
        return dict(self._environment)

    @property
    def pids(self) -> dict[str, int]:
        """Process id of each running service, and of `valkey` where it is ours."""
        running = {name: process.pid for name, process in self._processes.items()}
        return running if self._valkey is None else {**running, "valkey": self._valkey.pid}

    async def start(self, *, is_embedded: bool) -> None:
        """Start Valkey if need be, then the services. Raises StateUnavailable."""
        if is_embedded:
            self._valkey = EmbeddedServer()
            await self._valkey.start()
            self._environment = {**self._environment, "REDIS_URL": self._valkey.url}
            log.info("Valkey started", url=self._valkey.url)
            self._tasks.append(asyncio.create_task(self._keep_valkey(self._valkey)))
        self._tasks.extend(asyncio.create_task(self._keep(name)) for name in self._services)

    async def wait(self) -> None:
        """Wait for something that a new start cannot mend. Raises SettingsError."""
        await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """End every process, kindly first."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await end_all(list(self._processes.values()))
        if self._valkey is not None:
            await self._valkey.stop()
        self._failure.cancel()

    async def _keep(self, name: str) -> None:
        pause_s = PAUSE_S_MIN
        while True:
            started_s = time.monotonic()
            process = self._processes[name] = await start_module(
                f"portfolio_realtime.{name}", self._environment
            )
            code = await process.wait()
            if code == EXIT_SETTINGS:
                self._give_up(SettingsError(f"{name} refuses its settings; see above"))
                return
            pause_s = PAUSE_S_MIN if time.monotonic() - started_s > SETTLED_S else pause_s
            log.warning("service ended; starting it again", ended=name, code=code, pause_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    async def _keep_valkey(self, valkey: EmbeddedServer) -> None:
        while True:
            code = await valkey.wait()
            log.warning("Valkey ended; starting it again", code=code)
            await valkey.start()

    def _give_up(self, error: PortfolioRealtimeError) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)


async def start_module(
    module: str,
    environment: dict[str, str],
    *arguments: str,
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int | None = None,
    line_bytes_max: int = LINE_BYTES_MAX,
) -> asyncio.subprocess.Process:
    """Start `python -m module` in a process that ends with ours; Ctrl-C in the terminal reaches only us."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module, *arguments),
        env=environment,
        stdin=stdin,
        stdout=stdout,
        limit=line_bytes_max,
        preexec_fn=end_with_parent,
        start_new_session=True,
    )


async def end_all(processes: Sequence[asyncio.subprocess.Process]) -> None:
    """Ask processes to end; kill those that have not within END_S_MAX."""
    running = [process for process in processes if process.returncode is None]
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    endings = [asyncio.create_task(process.wait()) for process in running]
    if endings:
        await asyncio.wait(endings, timeout=END_S_MAX)
    for process in running:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    await asyncio.gather(*endings)


@contextlib.asynccontextmanager
async def until_asked_to_end() -> AsyncGenerator[asyncio.Event, None]:
    """An event that Ctrl-C and SIGTERM set, instead of interrupting."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    yield asked
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)


async def run(settings: config.Settings, services: Sequence[str]) -> None:
    """Run these services until asked to end. Raises SettingsError, StateUnavailable."""
    environment = config.child_environment(
        WEBSOCKET_PORT=str(settings.run_services_port), DEMO_PAGE=str(settings.shows_picker).lower()
    )
    log.info("following", accounts=config.described_source(settings))
    if "websocket_server" in services:
        log.info("page", url=f"http://127.0.0.1:{settings.run_services_port}/")
    async with until_asked_to_end() as asked:
        supervisor = Supervisor(environment, services)
        try:
            await supervisor.start(is_embedded=settings.is_embedded)
            await together(asked.wait(), supervisor.wait())
        finally:
            log.info("ending")
            await supervisor.stop()


def main(services: Sequence[str] = SERVICES) -> NoReturn:
    """Run services in this terminal until Ctrl-C, then exit: 0 asked to end, 1 failed, 2 wrong settings."""
    try:
        settings = config.load()
        telemetry.configure_logs("run_services", settings.log_level, settings.log_format)
        uvloop.run(run(settings, services))
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_SETTINGS)
    except PortfolioRealtimeError as error:
        log.error("ended", reason=str(error))
        sys.exit(EXIT_FAILED)
    sys.exit(0)


if __name__ == "__main__":
    main()
