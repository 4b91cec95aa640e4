"""AnyProcess processes: started so that they end with this process, restarted, and ended."""

import asyncio
import contextlib
import ctypes
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Final, Protocol

import structlog

from portfolio_realtime.backoff import Backoff

END_S_MAX: Final = 4.0
LINE_BYTES_MAX: Final = 64 * 1024  # the longest line of a child's output, where it is read
PAUSE_S_MIN: Final = 0.2
PAUSE_S_MAX: Final = 10.0
_PR_SET_PDEATHSIG: Final = 1

log = structlog.get_logger()

Process = asyncio.subprocess.Process


class AnyProcess(Protocol):
    """A process that was started, in whichever way."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def returncode(self) -> int | None:
        """Its exit code, -N for signal N; None while it runs."""
        ...

    async def wait(self) -> int:
        """Wait until it has ended; its exit code."""
        ...

    def terminate(self) -> None:
        """Send SIGTERM. Raises ProcessLookupError when it has ended."""
        ...

    def kill(self) -> None:
        """Send SIGKILL. Raises ProcessLookupError when it has ended."""
        ...


def end_with_parent() -> None:
    """Ask Linux to end this child process when its parent dies in any way. Called before exec."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def start_module(
    module: str,
    environment: dict[str, str],
    *arguments: str,
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int | None = None,
    line_bytes_max: int = LINE_BYTES_MAX,
) -> Process:
    """Start `python -m module` in a process that ends with this one. Ctrl-C does not reach the process."""
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


async def keep_alive(
    name: str, start: Callable[[], Awaitable[AnyProcess]], is_over: Callable[[int], bool]
) -> None:
    """Start a process, and start it again after a growing pause whenever it ends.

    Returns when `is_over` is true for the exit code, at the end of the process or after the pause.
    """
    backoff = Backoff(PAUSE_S_MIN, PAUSE_S_MAX)
    while True:
        started_s = time.monotonic()
        code = await (await start()).wait()
        if is_over(code):
            return
        pause_s = backoff.after_s(time.monotonic() - started_s)
        log.warning("process ended; starting it again", ended=name, code=code, pause_s=round(pause_s, 2))
        await asyncio.sleep(pause_s)
        if is_over(code):
            return


async def end_all(processes: Sequence[AnyProcess]) -> None:
    """End processes with SIGTERM; kill those that have not ended within END_S_MAX."""
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
    """Yield an event that Ctrl-C and SIGTERM set instead of interrupting the process."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    yield asked
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)
