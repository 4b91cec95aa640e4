"""Two revisions under the same load, in turn: `python -m benchmarks.compare --rev 9b74796 --json`.

Each is checked out beside this one and installed in an environment of its own; "." is the working tree. The
simulator and the clients are this revision's for both. Which one goes first changes from pair to pair. A run
in which something else used more than a tenth of the machine is made again, and told.
"""

import asyncio
import sys
from dataclasses import asdict
from typing import Annotated, Final

import msgspec
import typer

from benchmarks.compare.figures import OTHERS_SHARE_MAX, Run, is_judged, ratios, table
from benchmarks.compare.load import Load, run
from benchmarks.compare.revisions import WORKING_TREE, Revision, prepared
from benchmarks.provenance import provenance
from portfolio_harness.client_processes import allow_files
from portfolio_realtime.errors import PortfolioRealtimeError

AGAIN_MAX: Final = 3  # runs made again, of one place in a pair


class TooBusy(PortfolioRealtimeError):
    """Something else used the machine again and again."""


def main(
    rev: Annotated[str, typer.Option(help='What to compare with: a commit, a tag, or "." for these files.')],
    now: Annotated[str, typer.Option(help="What is compared.")] = WORKING_TREE,
    pairs: Annotated[int, typer.Option(min=1)] = 5,
    connections: Annotated[int, typer.Option(min=0, help="0: nobody watches.")] = 500,
    accounts: Annotated[int, typer.Option(min=1)] = 500,
    symbols: Annotated[int, typer.Option(min=1)] = 100,
    trades: Annotated[float, typer.Option(min=0, help="Trades a second; 0: as many as symbols.")] = 0.0,
    rate: Annotated[float, typer.Option(min=0.01, help="Messages a second and account.")] = 1.0,
    warm_up: Annotated[float, typer.Option(min=0, help="Seconds.")] = 5.0,
    duration: Annotated[float, typer.Option(min=1, help="Seconds.")] = 20.0,
    seed: int = 7,
    plant: Annotated[float, typer.Option(help="Slow --now down by so much: does the measure see it?")] = 0.0,
    starts_only: Annotated[bool, typer.Option(help="Only the start and the memory at rest.")] = False,
    judge_anyway: Annotated[bool, typer.Option(help="Keep runs on a busy machine, and say so.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Run both in turn and print the ratios.

    Exit code 1: a revision did not start, or the machine was busy.
    """
    trades_per_s = trades or symbols
    load = Load(connections, accounts, symbols, trades_per_s, rate, warm_up, duration, seed, starts_only)
    try:
        allow_files(connections)
        before, after = prepared(rev), prepared(now)
        found = asyncio.run(_pairs(before, after, load, pairs, plant, judge_anyway=judge_anyway))
    except PortfolioRealtimeError as error:
        sys.exit(str(error))
    result = ratios(found)
    if as_json:
        told = {
            **provenance(),
            "before": before.commit or before.name,
            "now": after.commit or after.name,
            "load": asdict(load),
            "planted": plant,
            "others_share_max": max(one.others_share for pair in found for one in pair),
            "pairs": len(found),
            "ratios": {name: asdict(one) for name, one in result.items()},
            "runs": [[one.figures for one in pair] for pair in found],
        }
        print(msgspec.json.format(msgspec.json.encode(told)).decode())
    else:
        print(table(result, rev, now))


async def _pairs(
    before: Revision, after: Revision, load: Load, count: int, plant: float, *, judge_anyway: bool
) -> list[tuple[Run, Run]]:
    found: list[tuple[Run, Run]] = []
    for number in range(count):
        sides = [(before, 0.0), (after, plant)]
        order = sides if number % 2 == 0 else sides[::-1]
        runs = {
            id(side): await _quiet(*side, load, f"pair {number + 1} of {count}", judge_anyway)
            for side in order
        }
        found.append((runs[id(sides[0])], runs[id(sides[1])]))
    return found


async def _quiet(revision: Revision, slower: float, load: Load, what: str, judge_anyway: bool) -> Run:
    """A run on a quiet machine. Raises TooBusy."""
    for _ in range(AGAIN_MAX + 1):
        one = await run(revision, load, slower)
        shown = ", ".join(
            f"{name} {one.figures[name]:.2f}"
            for name in ("first_value_s", "lag_ms_p50", "lag_ms_p99", "cpu_us_per_message", "busy_ms_per_s")
            if name in one.figures
        )
        print(f"{what}: {revision.name}: {shown}; others {one.others_share:.1%}", file=sys.stderr)
        if is_judged(one) or judge_anyway:
            return one
    raise TooBusy(
        f"something else used more than {OTHERS_SHARE_MAX:.0%} of the machine in {AGAIN_MAX + 1} runs: "
        "stop it, or use --judge-anyway, which says so in its result"
    )


if __name__ == "__main__":
    typer.run(main)
