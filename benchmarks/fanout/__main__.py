"""CPU per message delivered, memory per idle connection, connects per CPU second: this server and its peers.

`python -m benchmarks.fanout --json`

Each server in turn, alone on one core; a client in C, the same for all, on another core. First so many
WebSockets are opened, then they are idle, then each gets one message per 0.2 s. Counted is the CPU time
(/proc/PID/stat) of the server's process. All take turns, several times, and each figure is the median.
Ours is the real one: every connection has a token and an account of its own, and its publications come
through Valkey, each different. Peers send one ready text to all. All have the same pattern, everything at
once and then nothing: ours are published like a calculator's flush, the batches of all shards together, and
the peers write to all clients in one go.

- `us_per_message`: microseconds of server CPU per text frame that arrived
- `bytes_per_connection`: resident memory of the server per open, idle connection
- `connects_per_s`: connections per second of server CPU: upgrade, for ours token and first value included
"""

import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from benchmarks.fanout import processes
from benchmarks.fanout.servers import MESSAGE_BYTES, SERVERS, Plan, Running, Skipped, compiled, requests
from portfolio_harness import process_usage
from portfolio_realtime.state.embedded import free_port

CONNECT_S_MAX = 60.0
ANSWER_S_MAX = 10.0
SETTLE_S = 1.0


class Receiver:
    """The client process."""

    def __init__(self, plan: Plan, name: str, running: Running) -> None:
        path = plan.folder / f"{name}.requests"
        with path.open("wb") as file:
            for request in requests(name, plan):
                file.write(len(request).to_bytes(4, sys.byteorder) + request)
        command = (str(compiled("receiver", plan.folder)), str(plan.port), str(plan.connections), str(path))
        self._process = processes.start(
            plan.stack,
            (*command, str(int(running.greets))),
            plan.other_core,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def wait_connected(self) -> None:
        """Return when all connections are open. Raises RuntimeError."""
        if self._answer(CONNECT_S_MAX) != "connected":
            raise RuntimeError("not all connections could be opened")

    def frames(self) -> int:
        """How many text frames have arrived. Raises RuntimeError when a connection was lost."""
        assert self._process.stdin is not None
        self._process.stdin.write("count\n")
        self._process.stdin.flush()
        frames, _, lost = (int(number) for number in self._answer(ANSWER_S_MAX).split())
        if lost:
            raise RuntimeError(f"{lost} connections were lost")
        return frames

    def _answer(self, wait_s: float) -> str:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], wait_s)[0]:
            raise RuntimeError(f"the client has not answered in {wait_s} s")
        return self._process.stdout.readline().strip()


def measure(name: str, connections: int, seconds: float, folder: Path) -> dict[str, float | int]:
    """The figures of one server. Raises Skipped, RuntimeError."""
    with ExitStack() as stack:
        plan = Plan(connections, folder, stack, free_port())
        running = SERVERS[name](plan)
        time.sleep(SETTLE_S)
        bytes_before, cpu_before_s = processes.resident_bytes(running.pid), process_usage.cpu_s(running.pid)
        started_s = time.monotonic()
        receiver = Receiver(plan, name, running)
        receiver.wait_connected()
        connect_wall_s = time.monotonic() - started_s
        connect_cpu_s = process_usage.cpu_s(running.pid) - cpu_before_s
        time.sleep(SETTLE_S)
        bytes_idle = processes.resident_bytes(running.pid)
        running.toggle()
        time.sleep(SETTLE_S)
        frames, cpu_s = receiver.frames(), process_usage.cpu_s(running.pid)
        time.sleep(seconds)
        frames, cpu_s = receiver.frames() - frames, process_usage.cpu_s(running.pid) - cpu_s
        running.toggle()
    if not frames:
        raise RuntimeError(f"{name} has sent nothing")
    return {
        "us_per_message": round(cpu_s / frames * 1e6, 2),
        "bytes_per_connection": round((bytes_idle - bytes_before) / connections),
        "connects_per_s": round(connections / max(connect_cpu_s, 0.001)),
        "connect_wall_s": round(connect_wall_s, 2),
        "messages_per_s": round(frames / seconds),
    }


def report(results: dict[str, dict[str, Any]], connections: int) -> None:
    """A table for people, and what the figures are in proportion, on stderr."""
    print(
        f"{connections} connections, {MESSAGE_BYTES}-byte messages, one to each per 0.2 s\n"
        f"{'server':<22}{'us/message':>12}{'bytes/connection':>18}{'connects/CPU s':>16}",
        file=sys.stderr,
    )
    for name, figures in results.items():
        if why := figures.get("skipped") or figures.get("failed"):
            print(f"{name:<22}  {next(iter(figures))}: {why}", file=sys.stderr)
            continue
        print(
            f"{name:<22}{figures['us_per_message']:>12}{figures['bytes_per_connection']:>18}"
            f"{figures['connects_per_s']:>16}",
            file=sys.stderr,
        )
    ours = results.get("portfolio_realtime", {}).get("us_per_message")
    for peer in ("c_epoll", "fastapi_send_text"):
        theirs = results.get(peer, {}).get("us_per_message")
        if ours and theirs:
            print(f"ours / {peer}: {ours / theirs:.2f}", file=sys.stderr)


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each figure, over rounds in which all servers took turns."""
    return {name: round(statistics.median(one[name] for one in rounds), 2) for name in rounds[0]}


def main(
    connections: Annotated[int, typer.Option(min=1, max=16_000)] = 4000,
    seconds: Annotated[float, typer.Option(min=0.5, max=20, help="Of messages, per server and round")] = 6.0,
    rounds: Annotated[int, typer.Option(min=1, max=9, help="In which the servers take turns")] = 3,
    servers: Annotated[str, typer.Option(help="Names, separated by commas")] = ",".join(SERVERS),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout")] = False,
) -> None:
    """Measure the servers one after the other, several times; medians."""
    chosen = [name.strip() for name in servers.split(",") if name.strip()]
    if unknown := sorted(set(chosen) - SERVERS.keys()):
        raise typer.BadParameter(f"no such server: {', '.join(unknown)}; there are {', '.join(SERVERS)}")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="fanout-") as folder:
        for turn in range(rounds):
            for name in [name for name in chosen if name not in results]:
                print(f"[{turn + 1}/{rounds}] {name} …", file=sys.stderr, flush=True)
                try:
                    found[name].append(measure(name, connections, seconds, Path(folder)))
                except Skipped as why:
                    results[name] = {"skipped": str(why)}
                except RuntimeError as why:
                    results[name] = {"failed": str(why)}
    results = {name: results.get(name) or medians(found[name]) for name in chosen}
    report(results, connections)
    if as_json:
        print(msgspec.json.encode(results).decode())
    if any("failed" in figures for figures in results.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
