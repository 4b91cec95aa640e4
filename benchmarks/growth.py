"""How the cost of the whole system grows: `python -m benchmarks.growth --data FILE`.

One thing grows at a time: viewers (each of an account of its own), accounts that nobody watches, trades. Each
size is a whole system under load. For each process there is a line, base + slope x size, and for all of them
together the exponent of base + k x size^e; both by least squares.
How the cost grows with positions is `python -m benchmarks.curve`, in the calculator alone.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import linear_regression
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import typer

from benchmarks.compare.figures import Run
from benchmarks.compare.load import Load
from benchmarks.provenance import provenance
from benchmarks.scaleout.arrangement import Arrangement, run
from portfolio_harness.client_processes import allow_files
from portfolio_realtime.errors import PortfolioRealtimeError

BASE: Final = Load(
    connections=250,
    accounts=500,
    symbols=500,
    trades_per_s=500,
    rate=1.0,
    warm_up_s=8.0,
    duration_s=20.0,
    seed=7,
)
VIEWERS: Final = (250, 1000, 2000, 4000)
ACCOUNTS: Final = (500, 2000, 8000)
TRADES: Final = (100, 500, 2500, 5000)
SERIES: Final = {
    "viewers": [replace(BASE, connections=count, accounts=VIEWERS[-1]) for count in VIEWERS],
    "accounts": [replace(BASE, accounts=count) for count in ACCOUNTS],
    "trades_per_s": [replace(BASE, trades_per_s=count) for count in TRADES],
}
SIZE: Final = {"viewers": "connections", "accounts": "accounts", "trades_per_s": "trades_per_s"}
POWERS: Final = [step / 100 for step in range(5, 301)]  # exponents that are tried
GROWING: Final = ("cores.", "resident_mb.", "bytes_per_message")  # figures that have a line


class Line(msgspec.Struct, frozen=True):
    """base + slope x size."""

    base: float
    slope: float


class Series(msgspec.Struct, frozen=True):
    """One thing that grew."""

    sizes: list[float]
    messages_per_s: list[float]
    figures: dict[str, list[float]]
    lines: dict[str, Line]
    exponent: float | None  # of the cores of all processes; None: they do not grow, or by no power


def fitted(sizes: Sequence[float], values: Sequence[float]) -> Line:
    """The line through these points, by least squares."""
    slope, base = linear_regression(sizes, values)
    return Line(base, slope)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """e of the curve base + k x size^e that fits best, neither of both negative.

    None: less than a tenth of the largest value has grown, so that noise would be read as growth; or no
    exponent within POWERS fits best, because the values are no such curve.
    """
    if max(values) - min(values) < max(values) / 10:
        return None
    from scipy.optimize import nnls  # not above: it takes a second and a half, in each worker of the tests

    def misfit(power: float) -> float:
        terms = np.array([(1, (size / sizes[-1]) ** power) for size in sizes])
        return float(nnls(terms, np.array(values))[1])

    best = min(POWERS, key=misfit)
    return None if best in (POWERS[0], POWERS[-1]) else best


def series_of(name: str, loads: Sequence[Load], runs: Sequence[Run]) -> Series:
    """Figures, lines and the exponent of one thing that grew."""
    sizes = [float(getattr(load, SIZE[name])) for load in loads]
    names = [figure for figure in runs[0].figures if figure.startswith(GROWING)]
    figures = {figure: [one.figures[figure] for one in runs] for figure in names}
    cores = [figure for figure in names if figure.startswith("cores.")]
    figures["cores"] = [sum(one.figures[figure] for figure in cores) for one in runs]
    return Series(
        sizes,
        [one.figures["messages_per_s"] for one in runs],
        figures,
        {figure: fitted(sizes, values) for figure, values in figures.items()},
        exponent(sizes, figures["cores"]),
    )


async def _measured() -> dict[str, Series]:
    found: dict[str, Series] = {}
    for name, loads in SERIES.items():
        runs: list[Run] = []
        for load in loads:
            one = await run(Arrangement("one"), load)
            runs.append(one)
            cores = sum(value for figure, value in one.figures.items() if figure.startswith("cores."))
            size = getattr(load, SIZE[name])
            print(f"{name} {size:,}: {cores:.2f} cores; others {one.others_share:.1%}", file=sys.stderr)
        found[name] = series_of(name, loads, runs)
    return found


def main(
    data: Annotated[Path | None, typer.Option(help="Write everything to this file.")] = None,
) -> None:
    """Measure every series and print its exponents. Exit code 1: a part did not start."""
    try:
        allow_files(max(VIEWERS))
        found = asyncio.run(_measured())
    except PortfolioRealtimeError as error:
        sys.exit(str(error))
    result: dict[str, Any] = {**provenance(), "series": found}
    if data is not None:
        data.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    for name, one in found.items():
        shown = "none" if one.exponent is None else f"{one.exponent:.2f}"
        print(
            f"{name:14} exponent {shown}; cores {', '.join(f'{value:.2f}' for value in one.figures['cores'])}"
        )


if __name__ == "__main__":
    typer.run(main)
