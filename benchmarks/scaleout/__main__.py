"""More of each on one machine: `python -m benchmarks.scaleout --json`.

Each arrangement runs the same load in turn, round by round. What counts is how many messages the product's
own processes deliver for one second of one core's time; simulator and clients share the machine and do not
count. Two of a kind are good where they keep 85 % of what one of them delivers, three primaries 80 %.
"""

import asyncio
import sys
from dataclasses import asdict
from typing import Annotated, Final

import msgspec
import typer

from benchmarks.compare.figures import Run, ratios, table
from benchmarks.compare.load import Load
from benchmarks.provenance import provenance
from benchmarks.scaleout.arrangement import Arrangement, run
from portfolio_harness.client_processes import allow_files
from portfolio_realtime.errors import PortfolioRealtimeError

ONE: Final = Arrangement("one")
MORE: Final = (
    (Arrangement("two calculators", calculators=2), 0.85),
    (Arrangement("two servers", servers=2), 0.85),
    (Arrangement("three primaries", primaries=3), 0.80),
)
EFFICIENCY: Final = "messages_per_core_s"


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    connections: Annotated[int, typer.Option(min=2)] = 4000,
    accounts: Annotated[int, typer.Option(min=1)] = 4000,
    symbols: Annotated[int, typer.Option(min=1)] = 500,
    rate: Annotated[float, typer.Option(min=0.01, help="Messages a second and account.")] = 1.0,
    warm_up: Annotated[float, typer.Option(min=0, help="Seconds.")] = 5.0,
    duration: Annotated[float, typer.Option(min=1, help="Seconds.")] = 20.0,
    seed: int = 7,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Run all arrangements in turn and print each beside one of everything.

    Exit code 1: a goal is missed, or a part did not start.
    """
    load = Load(connections, accounts, symbols, symbols, rate, warm_up, duration, seed)
    try:
        allow_files(connections)
        found = asyncio.run(_rounds(load, rounds))
    except PortfolioRealtimeError as error:
        sys.exit(str(error))
    is_good, told = True, dict[str, object]()
    for arrangement, least in MORE:
        pairs = list(zip(found[ONE.name], found[arrangement.name], strict=True))
        compared = ratios(pairs)
        kept = compared[EFFICIENCY].ratio
        is_good = is_good and kept >= least
        told[arrangement.name] = {
            "kept": round(kept, 3),
            "goal": least,
            "ratios": {name: asdict(one) for name, one in compared.items()},
        }
        print(f"\n{arrangement.name}: keeps {kept:.0%} of one (goal {least:.0%})", file=sys.stderr)
        print(table(compared, ONE.name, arrangement.name), file=sys.stderr)
    if as_json:
        whole = {
            **provenance(),
            "load": asdict(load),
            "rounds": rounds,
            "others_share_max": max(one.others_share for runs in found.values() for one in runs),
            "arrangements": told,
            "is_good": is_good,
        }
        print(msgspec.json.format(msgspec.json.encode(whole)).decode())
    sys.exit(0 if is_good else 1)


async def _rounds(load: Load, rounds: int) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for number in range(rounds):
        arrangements = [ONE, *(arrangement for arrangement, _ in MORE)]
        for arrangement in arrangements if number % 2 == 0 else reversed(arrangements):
            one = await run(arrangement, load)
            found.setdefault(arrangement.name, []).append(one)
            print(
                f"round {number + 1} of {rounds}: {arrangement.name}: "
                f"{one.figures[EFFICIENCY]:,.0f} messages a core second, "
                f"p99 {one.figures['lag_ms_p99']:.1f} ms; others {one.others_share:.1%}",
                file=sys.stderr,
            )
    return found


if __name__ == "__main__":
    typer.run(main)
