"""Simulators that are forked from a process which has imported them: the import takes a second of a core."""

import os
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Final

CONTEXT: Final = get_context("forkserver")
CONTEXT.set_forkserver_preload(["alpaca_sim.cli", __name__])
STANDARD_OUTPUT: Final = 1
END_S_MAX: Final = 5


class ForkedSimulator:
    """What `python -m alpaca_sim` with these flags would be."""

    def __init__(self, flags: list[str]) -> None:
        ours, theirs = CONTEXT.Pipe(duplex=False)
        self.process: ForkServerProcess = CONTEXT.Process(target=_be, args=(flags, theirs))
        self.process.start()
        theirs.close()
        self._output = os.fdopen(os.dup(ours.fileno()))
        ours.close()

    def ready_url(self) -> str:
        """Wait for the line that says where it is."""
        for line in self._output:
            if " ready on " in line:
                return line.split(" ready on ")[1].split()[0]
        self.process.join()
        raise AssertionError(f"the simulator ended with code {self.process.exitcode} before it was ready")

    def end(self) -> None:
        """Ask it to end, then make it."""
        self.process.terminate()
        self.process.join(END_S_MAX)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(END_S_MAX)
        self.process.close()
        self._output.close()


def _be(flags: list[str], output: Connection) -> None:
    from alpaca_sim.__main__ import main  # not above: who only starts one does without it

    os.dup2(output.fileno(), STANDARD_OUTPUT)
    output.close()
    sys.stdout = os.fdopen(STANDARD_OUTPUT, "w", buffering=1)
    sys.argv[:] = ["alpaca-sim", *flags]
    main()
