"""Several server processes on one port: started, kept alive, ended together.

The kernel spreads new connections over the processes that listen on the port (SO_REUSEPORT). The first
SIGTERM or Ctrl-C lets every process drain, the second ends them at once.
"""

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from functools import partial
from typing import Final

from portfolio_realtime.exit_codes import OK, SETTINGS
from portfolio_realtime.processes import Process, end_with_parent, keep_alive

WORKER: Final = "--worker"  # the port is shared with other processes
HURRY_S_MAX: Final = 5.0  # from the second signal until what is left is killed


class Workers:
    """So many processes of one command."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], count: int) -> None:
        self._command = command
        self._environment = environment
        self._count = count
        self._processes: dict[int, Process] = {}
        self._is_ending = False
        self._is_refused = False  # a process refuses its settings

    async def run(self) -> int:
        """Keep the processes alive until asked to end; the exit code, 0 when asked."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        await asyncio.gather(
            *(
                keep_alive(
                    f"server process {index}", partial(self._start, index), partial(self._is_over, index)
                )
                for index in range(self._count)
            )
        )
        return SETTINGS if self._is_refused else OK

    async def _start(self, index: int) -> Process:
        process = await asyncio.create_subprocess_exec(
            *(*self._command, WORKER),
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            preexec_fn=end_with_parent,
            start_new_session=True,
        )
        self._processes[index] = process
        if self._is_ending:  # the signal came while it was started
            _send(process, signal.SIGTERM)
        return process

    def _is_over(self, index: int, code: int) -> bool:
        if code == SETTINGS:
            self._is_refused = True
            self._end(signal.SIGTERM)
        return self._is_ending

    def _signalled(self) -> None:
        if self._is_ending:
            asyncio.get_running_loop().call_later(HURRY_S_MAX, self._end, signal.SIGKILL)
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        self._is_ending = True
        for process in self._processes.values():
            _send(process, number)


def _send(process: Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
