"""A million hostile inputs: `python -m benchmarks.hostile --count 1000000`.

Random bytes, frames and JSON messages against one WebSocket without sockets; the same guided by coverage
(atheris) and made up from strategies (hypothesis); real sockets and made-up HTTP requests (schemathesis)
against a real server process. A crash, a stack trace, a wrong frame or a close code that is not listed ends
it with exit code 1 and the seed; else the counts are printed.
"""

import argparse
import asyncio
import importlib.util
import json
import re
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.hostile.made_up import made_up
from benchmarks.hostile.server import attacked, over_http, over_sockets
from benchmarks.hostile.socketless import side_by_side
from benchmarks.hostile.victim import Surprise
from portfolio_harness.progress import say
from portfolio_realtime import logs

FUZZED_SHARE: Final = 0.1
MADE_UP_SHARE: Final = 0.01
SOCKETS_SHARE: Final = 0.01
HTTP_SHARE: Final = 0.01
INPUT_BYTES_MAX: Final = 400
MEMORY_GROWTH_BYTES_MAX: Final = 64 * 1024 * 1024


def fuzzed(runs: int, seed: int) -> int:
    """Inputs that atheris has tried; 0 where it is not installed. Raises Surprise."""
    if importlib.util.find_spec("atheris") is None:
        say("atheris is not installed: nothing is guided by coverage")
        return 0
    with TemporaryDirectory(prefix="hostile-") as folder:
        command = (
            *(sys.executable, "-m", "benchmarks.hostile.fuzz", f"-runs={runs}", f"-seed={seed}"),
            *(f"-max_len={INPUT_BYTES_MAX}", f"-artifact_prefix={folder}/", "-print_final_stats=1"),
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    executed = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    if done.returncode != 0 or executed is None:
        raise Surprise(f"atheris found something: {done.stdout[-3000:]}{done.stderr[-1000:]}")
    return int(executed[1])


async def on_a_server(sockets: int, requests: int, seed: int) -> dict[str, Any]:
    """Over sockets and HTTP, against a real process. Raises Surprise."""
    async with attacked() as target:
        before = target.resident_bytes()
        over_socket = await over_sockets(target, sockets, seed)
        say(f"{sockets} connections over sockets")
        statuses = await asyncio.to_thread(over_http, target, requests, seed)
        say(f"{statuses.total()} HTTP requests")
        grown = target.resident_bytes() - before
        if grown > MEMORY_GROWTH_BYTES_MAX:
            raise Surprise(f"the server has grown by {grown} bytes")
    return {"sockets": dict(over_socket), "http": dict(statuses), "server_grown_bytes": grown}


async def attack(count: int, seed: int) -> dict[str, Any]:
    """All of it; what was done, in numbers. Raises Surprise."""
    sockets, requests = max(100, int(count * SOCKETS_SHARE)), max(100, int(count * HTTP_SHARE))
    runs = max(100, int(count * FUZZED_SHARE))
    on_server = await on_a_server(sockets, requests, seed)
    guided = await asyncio.to_thread(fuzzed, runs, seed)
    say(f"{guided} inputs guided by coverage")
    invented = await asyncio.to_thread(made_up, max(100, int(count * MADE_UP_SHARE)), seed)
    say(f"{invented.total()} inputs made up from strategies")
    others = sockets + sum(on_server["http"].values()) + guided + invented.total()
    plain = max(0, count - others)
    codes = await asyncio.to_thread(side_by_side, plain, seed)
    return {
        "seed": seed,
        "count": plain + others,
        "without_sockets": dict(codes),
        "guided": guided,
        "made_up": dict(invented),
        **on_server,
        "surprises": 0,
    }


def main() -> None:
    """Attack, and print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    logs.configure("hostile", "error", "console")
    try:
        done = asyncio.run(attack(asked.count, asked.seed))
    except* Surprise as surprises:
        for surprise in surprises.exceptions:
            say(f"SURPRISE: {surprise}")
        sys.exit(1)
    print(json.dumps(done, indent=2, sort_keys=True))


if __name__ == "__main__":
    main()
