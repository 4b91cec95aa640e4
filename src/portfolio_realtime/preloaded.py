"""The process from which services are forked: it imports what they share, and does nothing else.

`forking.Preloaded` speaks to it over standard input, in lines of JSON. It stays clean: no thread, no event
loop, no connection, no setting. A request brings a module and the environment of its process; the answers
are the id of the process, and its exit code once it has ended.
"""

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from setproctitle import getproctitle, setproctitle

from portfolio_realtime import preloading
from portfolio_realtime.exit_codes import OK
from portfolio_realtime.lean_imports import OPENTELEMETRY, RICH, lean_imports
from portfolio_realtime.preloading import MODULE, ForkedHere, Importing

BY_ALL: Final = ("portfolio_realtime.service",)  # the supervisor included
BY_SOME: Final = (
    *("numpy", "websockets.asyncio.client", "portfolio_realtime.valuation.float_rounding"),
    *("portfolio_realtime.outbound", "portfolio_realtime.alpaca.credentials"),
)
BLAS_THREADS: Final = "OPENBLAS_NUM_THREADS"
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
STANDARD_INPUT: Final = 0
BYTES: Final = 64 * 1024


def preload(modules: Sequence[str]) -> None:
    """Import these, and keep the garbage collector, which is off afterwards, away from what is there.

    The collector writes to each object that it looks at; a page that is written to is not shared any more.
    """
    gc.disable()
    with lean_imports(OPENTELEMETRY, RICH):
        for name in modules:
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


class Nursery:
    """The processes that were forked and run, and the socket on which they are asked for."""

    def __init__(self, asking: socket.socket) -> None:
        self._asking = asking
        self._selector = selectors.DefaultSelector()
        self._selector.register(asking, selectors.EVENT_READ)
        self._waiting = b""  # of a request, the part that has come

    def serve(self) -> str:
        """Fork for each request. Returns in a fork, with its module; in this process "", at the end."""
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._tell_end(key.fd, key.data)
                    continue
                received = self._asking.recv(BYTES)
                if not received:
                    return ""  # the process that has started us has ended, or wants no more
                module = self._fork_each(received)
                if module:
                    return module

    def _fork_each(self, received: bytes) -> str:
        """Fork for each request that is complete now. Returns as `_fork` does."""
        *requests, self._waiting = (self._waiting + received).split(b"\n")
        for request in requests:
            module = self._fork(json.loads(request))
            if module:
                return module
        return ""

    def _fork(self, request: Mapping[str, Any]) -> str:
        """The module in the fork, "" in this process."""
        own = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # one that comes now waits for the fork's handlers
        pid = os.fork()
        if not pid:
            self._be(own, request["module"], request["environment"])
            return request["module"]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
        self._say(pid=pid)
        return ""

    def _be(self, parent: int, module: str, environment: dict[str, str]) -> None:
        """Become what `python -m module` would be, started with `environment` in a session of its own."""
        from portfolio_realtime.processes import end_with_parent  # not above: it must be imported lean

        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        self._selector.close()
        self._asking.detach()
        os.open(os.devnull, os.O_RDONLY)  # the lowest number that is free: standard input
        os.setsid()
        end_with_parent()
        if os.getppid() != parent:
            os._exit(1)  # it ended before it was asked to take us along
        setproctitle(f"{sys.executable} -m {module}")
        os.environ.clear()
        os.environ.update(environment)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        gc.enable()

    def _tell_end(self, descriptor: int, pid: int) -> None:
        self._selector.unregister(descriptor)
        os.close(descriptor)
        self._say(pid=pid, code=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    def _say(self, **said: int) -> None:
        self._asking.sendall(json.dumps(said).encode() + b"\n")


def fork() -> Importing:
    """Import what all share, and fork the preloaded process, which imports the rest in the background.

    To be called before this process has a thread, a loop, a connection or settings.
    """
    preload(BY_ALL)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        gc.enable()
        theirs.close()
        return Importing(ForkedHere(pid), ours)
    ours.close()
    os.setsid()
    setproctitle(f"{sys.executable} -m {MODULE}")  # written over the environment that it was started with
    passed_on = preloading.passed_on(os.environ)
    os.environ.clear()
    os.environ.update(passed_on)
    sys.argv[:] = sys.argv[:1]
    os.dup2(theirs.fileno(), STANDARD_INPUT)
    theirs.close()
    serve()
    os._exit(OK)  # what the callers would do at their end is not for this process


def serve() -> None:
    """Import the rest, and fork services until the process that asks ends; a fork runs its service."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # it ends when its socket does, after the services
    os.environ[BLAS_THREADS] = "1"  # a fork takes no other thread along
    preload(BY_SOME)
    if module := Nursery(socket.socket(fileno=STANDARD_INPUT)).serve():
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        sys.exit(OK)


if __name__ == "__main__":
    getproctitle()  # finds where the title is, before the environment changes
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    preload(BY_ALL)
    serve()
