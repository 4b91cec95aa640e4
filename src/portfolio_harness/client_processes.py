"""Checking clients in several processes, driven as if they were in one.

The parent writes one JSON order per line to each child and reads one JSON answer per line from it. Run as
`python -m portfolio_harness.client_processes`, this file is the child.
"""

import asyncio
import os
import resource
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Self

import msgspec
import uvloop

from portfolio_harness.clients import Clients, ClientsFailed, TokenFor
from portfolio_harness.lags import Lags
from portfolio_harness.oracle import Truth
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.processes import end_all, start_module

CONNECTIONS_PER_PROCESS_MAX: Final = 8000
SPARE_FILES: Final = 100  # open files of a process beside its connections
LINE_BYTES_MAX: Final = 256 * 1024 * 1024
MODULE: Final = "portfolio_harness.client_processes"


class Order(msgspec.Struct, omit_defaults=True):
    """An order of the parent. `ClientProcesses` shows which fields each `what` uses."""

    what: str  # create, start, measure, report, compare, cut, stop
    url: str = ""
    clients: list[tuple[str, str]] = []  # account id, token
    interval_s: float = 1.0
    detail: bool = False
    stalled: int = 0
    ramp_s: float = 0.0
    count: int = 0
    truths: dict[str, Truth] | None = None  # account id -> the truth; None: as in the last order


class Report(msgspec.Struct):
    """The counts and samples of the clients of one process; the fields are those of `Clients`."""

    counts: dict[str, int] = {}
    close_codes: dict[int, int] = {}
    lags: dict[int, dict[int, int]] = {}
    deliveries: dict[int, dict[int, int]] = {}
    first_values: dict[int, dict[int, int]] = {}
    outages_s: list[float] = []
    connects_per_s: float = 0.0
    without_value: int = 0
    cut_off: int = 0
    regular: int = 0
    silence_s: float = 0.0


class ChildAnswer(msgspec.Struct, omit_defaults=True):
    """A child's answer to an order. `failed` is the reason when it could not be done."""

    failed: str = ""
    report: Report | None = None
    differing: dict[str, list[str]] = {}


class Seen:
    """The reports of all children, combined. `silence_s` is the largest; everything else is added up."""

    def __init__(self, reports: Sequence[Report]) -> None:
        self.counts = Counter[str]()
        self.close_codes = Counter[int]()
        for report in reports:
            self.counts.update(report.counts)
            self.close_codes.update(report.close_codes)
        self.lags = Lags().merge(Lags(report.lags) for report in reports)
        self.deliveries = Lags().merge(Lags(report.deliveries) for report in reports)
        self.first_values = Lags().merge(Lags(report.first_values) for report in reports)
        self.outages_s = sorted(outage_s for report in reports for outage_s in report.outages_s)
        self.connects_per_s = sum(report.connects_per_s for report in reports)
        self.without_value = sum(report.without_value for report in reports)
        self.cut_off = sum(report.cut_off for report in reports)
        self.regular = sum(report.regular for report in reports)
        self.silence_s = max(report.silence_s for report in reports)


class ClientProcesses:
    """Clients in as many processes as they need.

    As an async context manager, it starts the processes and ends them. The arguments are those of `Clients`.
    Each method raises ClientsFailed when a client process fails.
    """

    def __init__(
        self,
        url: str,
        account_ids: Sequence[str],
        token_for: TokenFor,
        *,
        interval_s: float,
        detail: bool = False,
        stalled: int = 0,
        ramp_s: float = 0.0,
    ) -> None:
        count = -(-len(account_ids) // CONNECTIONS_PER_PROCESS_MAX)
        self._orders = [
            Order(
                "create",
                url=url,
                clients=[(account_id, token_for(account_id)) for account_id in account_ids[index::count]],
                interval_s=interval_s,
                detail=detail,
                stalled=len(range(index, stalled, count)),
                ramp_s=ramp_s,
            )
            for index in range(count)
        ]
        self._processes: list[asyncio.subprocess.Process] = []
        self._detail = detail
        self._truths: dict[str, Truth] | None = None

    @property
    def pids(self) -> list[int]:
        """The process ids of the client processes."""
        return [process.pid for process in self._processes]

    async def __aenter__(self) -> Self:
        for _ in self._orders:
            process = await start_module(
                MODULE,
                dict(os.environ),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                line_bytes_max=LINE_BYTES_MAX,
            )
            self._processes.append(process)
        await self._tell(self._orders)
        return self

    async def __aexit__(self, *_: object) -> None:
        await end_all(self._processes)

    async def start(self, count: int) -> None:
        """Connect the first `count` clients, and return when each has a value. Raises ClientsFailed."""
        children = len(self._processes)
        await self._tell(
            [Order("start", count=len(range(index, count, children))) for index in range(children)]
        )

    async def measure(self) -> None:
        """Reset the counts of messages and lags; errors stay counted."""
        await self._tell_all("measure")

    async def cut(self) -> None:
        """Abort all connections at once, without a close frame."""
        await self._tell_all("cut")

    async def seen(self) -> Seen:
        """The counts of all clients."""
        answers = await self._tell_all("report")
        return Seen([answer.report for answer in answers if answer.report is not None])

    async def mismatches(self, truths: dict[str, Truth]) -> dict[str, list[str]]:
        """Account id -> names of the figures that differ from the truth, for each client that differs."""
        told = None if truths is self._truths else truths
        self._truths = truths
        if told is not None and not self._detail:
            told = {key: replace(truth, rows={}, quantities={}) for key, truth in told.items()}
        answers = await self._tell([Order("compare", truths=told)] * len(self._processes))
        return {account: wrong for answer in answers for account, wrong in answer.differing.items()}

    async def _tell_all(self, what: str) -> list[ChildAnswer]:
        return await self._tell([Order(what)] * len(self._processes))

    async def _tell(self, orders: Sequence[Order]) -> list[ChildAnswer]:
        pairs = zip(self._processes, orders, strict=True)
        return list(await asyncio.gather(*(_ask(process, order) for process, order in pairs)))


async def _ask(process: asyncio.subprocess.Process, order: Order) -> ChildAnswer:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(order) + b"\n")
    await process.stdin.drain()
    line = await process.stdout.readline()
    if not line:
        raise ClientsFailed("a client process ended; its reason is above")
    answer = msgspec.json.decode(line, type=ChildAnswer)
    if answer.failed:
        raise ClientsFailed(answer.failed)
    return answer


class Child:
    """The child's side: clients that follow the parent's orders."""

    def __init__(self) -> None:
        self._clients: Clients | None = None
        self._truths: dict[str, Truth] = {}

    async def obey(self, order: Order) -> ChildAnswer:
        """Carry out one order and return the answer. Raises ClientsFailed."""
        if order.what == "create":
            self._clients = _created(order)
            return ChildAnswer()
        assert self._clients is not None
        match order.what:
            case "start":
                await self._clients.start(order.count)
            case "measure":
                self._clients.begin_measuring()
            case "cut":
                self._clients.cut()
            case "report":
                return ChildAnswer(report=_report(self._clients))
            case "compare":
                return ChildAnswer(differing=await self._differing(self._clients, order.truths))
            case what:
                raise ClientsFailed(f"no such order: {what}")
        return ChildAnswer()

    async def _differing(self, clients: Clients, truths: dict[str, Truth] | None) -> dict[str, list[str]]:
        if truths is not None:
            self._truths = truths
        return await clients.mismatches(self._truths)


def _created(order: Order) -> Clients:
    tokens = dict(order.clients)
    return Clients(
        order.url,
        [account_id for account_id, _ in order.clients],
        tokens.__getitem__,
        interval_s=order.interval_s,
        detail=order.detail,
        stalled=order.stalled,
        ramp_s=order.ramp_s,
    )


def _report(clients: Clients) -> Report:
    return Report(
        counts=dict(clients.counts),
        close_codes=dict(clients.close_codes),
        lags=clients.lags.counts,
        deliveries=clients.deliveries.counts,
        first_values=clients.first_values.counts,
        outages_s=[round(outage_s, 4) for outage_s in clients.outages_s],
        connects_per_s=clients.connects_per_s,
        without_value=clients.without_value,
        cut_off=clients.cut_off,
        regular=clients.regular,
        silence_s=round(clients.silence_s, 3),
    )


def allow_files(connections: int) -> None:
    """Raise this process's limit of open files for `connections`. Raises SettingsError with the remedy."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + SPARE_FILES
    if needed > hard:
        raise SettingsError(
            f"{connections} connections need {needed} open files and {hard} are allowed: "
            f"raise the limit with ulimit -n {needed}"
        )
    if needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


async def _serve() -> None:
    """Carry out the orders on standard input until it ends."""
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    child = Child()
    while line := await reader.readline():
        try:
            answer: Any = await child.obey(msgspec.json.decode(line, type=Order))
        except ClientsFailed as error:
            answer = ChildAnswer(failed=str(error))
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    allow_files(CONNECTIONS_PER_PROCESS_MAX)
    uvloop.run(_serve())
