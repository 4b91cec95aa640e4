"""What valuing costs, from a thousand accounts to a million, and where the knee is.

`python -m benchmarks.curve --chart docs/images/cost-curve.svg --data benchmarks/results/cost-curve.json`

Three costs: the full pass over the book, the pass by what has changed (2 % of the symbols), and a flush of
watched accounts that are all due. The knee of a cost is where what is to be paid anyway (calls into
libraries, a look at every symbol) equals what grows with the size: below it, size is free; above, time is
proportional to size. Both come from one fit over all sizes. All times are CPU time of one core, so that other
work of the machine counts little.
"""

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import typer

from benchmarks.provenance import provenance
from benchmarks.valuation import MOVED_SHARE, NOW_NS, Holdings, holdings, marks, recalculate
from portfolio_harness.progress import say
from portfolio_realtime.valuation.valuer import Valuer

SYMBOLS: Final = 11_000
ACCOUNTS: Final = (1_000, 10_000, 100_000, 1_000_000)
POSITIONS: Final = (1, 3, 10, 30, 100)  # per account
BOOK_MAX: Final = 20_000_000  # positions in one book: memory
WATCHED: Final = (0, 1, 10, 100, 1_000, 10_000, 30_000, 100_000)
WATCHED_POSITIONS: Final = 10
TEMPLATES: Final = 2_000  # different accounts; a larger book repeats their positions under other names
TURNS: Final = 7
GREY: Final = "#808080"
COLOURS: Final = ("#2fb985", "#4a90d9", "#d98a2b", "#b06fd8", "#d9534f")


class Pass(msgspec.Struct, frozen=True):
    """One size of book."""

    accounts: int
    positions: int  # per account
    full_ms: float
    incremental_ms: float

    @property
    def size(self) -> int:
        """Positions in the book."""
        return self.accounts * self.positions


class Flush(msgspec.Struct, frozen=True):
    """One number of watched accounts."""

    watched: int
    ms: float


class Cost(msgspec.Struct, frozen=True):
    """`fixed_ms + account_ns × accounts + position_ns × positions`."""

    fixed_ms: float
    account_ns: float
    position_ns: float

    def knee(self, positions: int) -> int | None:
        """So many accounts with so many positions cost what is to be paid anyway; None: size is free."""
        growing_ns = self.account_ns + positions * self.position_ns
        return round(self.fixed_ms * 1e6 / growing_ns) if growing_ns else None


class Curve(msgspec.Struct, frozen=True):
    """Everything that was measured in one run."""

    date: str
    commit: str
    cpu: str
    symbols: int
    passes: list[Pass]
    flushes: list[Flush]
    full: Cost
    incremental: Cost
    flush: Cost


def median_ms(prepare: Callable[[int], object], work: Callable[[int], object]) -> float:
    """Median CPU time of TURNS runs, after one to warm up; the preparation before each does not count."""
    times: list[float] = []
    for turn in range(TURNS + 1):
        prepare(turn)
        started = time.process_time()
        work(turn)
        times.append((time.process_time() - started) * 1000)
    return round(statistics.median(times[1:]), 4)


def filled(accounts: int, positions: int) -> tuple[Valuer, Holdings]:
    """A valuer with so many accounts and a mark of every symbol, and the holdings they are copied from."""
    held = holdings(min(accounts, TEMPLATES), positions, SYMBOLS, 7)
    valuer = Valuer(price_ttl_s=3600, min_update_interval_s=0.0)
    templates = [held.account(index) for index in range(held.accounts)]
    for index, template in zip(range(accounts), itertools.cycle(templates), strict=False):
        valuer.put_account(msgspec.structs.replace(template, account_id=f"{index:036d}"))
    valuer.apply_marks(marks(held, range(SYMBOLS), 1))
    return valuer, held


def measured_pass(accounts: int, positions: int) -> Pass:
    """The full pass and the pass by what has changed, on a book of this size."""
    valuer, held = filled(accounts, positions)
    random = np.random.default_rng(3)

    def move(turn: int) -> None:
        moved = random.choice(SYMBOLS, int(SYMBOLS * MOVED_SHARE), replace=False)
        held.prices[moved] += 0.01
        valuer.apply_marks(marks(held, moved.tolist(), 2 + turn))

    def refresh(_: int) -> None:
        for stretch in valuer.whole.stretches():
            stretch.refresh()

    incremental_ms = median_ms(move, refresh)
    full_ms = median_ms(lambda _: None, lambda _: recalculate(valuer))
    return Pass(accounts, positions, full_ms, incremental_ms)


def measured_flushes() -> list[Flush]:
    """A flush of ever more watched accounts; each price has moved, so all of them are due."""
    held = holdings(max(WATCHED), WATCHED_POSITIONS, SYMBOLS, 7)
    valuer = Valuer(price_ttl_s=3600, min_update_interval_s=0.0)
    flushes: list[Flush] = []
    watched = moves = 0

    def move(_: int) -> None:
        nonlocal moves
        moves += 1
        held.prices[:] += 0.01
        valuer.apply_marks(marks(held, range(SYMBOLS), moves))

    def flush(_: int) -> None:
        assert len(valuer.flush(NOW_NS, float(moves)).publications) == watched

    for count in WATCHED:
        for index in range(watched, count):
            valuer.watch(held.account(index), 1, with_positions=False)
        watched = count
        flushes.append(Flush(count, median_ms(move, flush)))
        say(f"{count} watched: {flushes[-1].ms} ms")
    return flushes


def fitted(sizes: Sequence[tuple[int, int]], times_ms: Sequence[float]) -> Cost:
    """The cost of (accounts, positions) whose relative errors are as small as can be; nothing is negative."""
    from scipy.optimize import nnls  # not above: it takes a second and a half, in each worker of the tests

    terms = np.array([(1, accounts, positions) for accounts, positions in sizes])
    found, _ = nnls(terms / np.array(times_ms)[:, None], np.ones(len(times_ms)))
    fixed_ms, account_ms, position_ms = found.tolist()
    return Cost(round(fixed_ms, 4), round(account_ms * 1e6, 3), round(position_ms * 1e6, 3))


def measured() -> Curve:
    """The whole run."""
    sizes = [
        (accounts, positions)
        for accounts, positions in itertools.product(ACCOUNTS, POSITIONS)
        if accounts * positions <= BOOK_MAX
    ]
    passes: list[Pass] = []
    for number, (accounts, positions) in enumerate(sizes, 1):
        passes.append(one := measured_pass(accounts, positions))
        say(
            f"book {number} of {len(sizes)}: {accounts} accounts × {positions}: "
            f"full {one.full_ms} ms, incremental {one.incremental_ms} ms"
        )
        gc.collect()
    flushes = measured_flushes()
    sizes = [(one.accounts, one.size) for one in passes]
    return Curve(
        **provenance(),
        symbols=SYMBOLS,
        passes=passes,
        flushes=flushes,
        full=fitted(sizes, [one.full_ms for one in passes]),
        incremental=fitted(sizes, [one.incremental_ms for one in passes]),
        flush=fitted([(one.watched, 0) for one in flushes], [one.ms for one in flushes]),
    )


def sentence(curve: Curve) -> str:
    """What it costs and where the knees are, in words."""
    full, moved, flush = curve.full, curve.incremental, curve.flush
    found = [cost.knee(WATCHED_POSITIONS) for cost in (full, moved, flush)]
    knees = ["more than were measured" if knee is None else f"{knee:,}" for knee in found]
    return (
        f"A full pass takes {full.fixed_ms:.2f} ms anyway, {full.account_ns:.1f} ns for each account and "
        f"{full.position_ns:.2f} ns for each position: with {WATCHED_POSITIONS} positions an account its "
        f"knee is at {knees[0]} accounts. After a batch of {MOVED_SHARE:.0%} of the symbols it is "
        f"{moved.fixed_ms:.2f} ms, {moved.account_ns:.1f} ns and {moved.position_ns:.2f} ns, with the knee "
        f"at {knees[1]}. A flush takes {flush.fixed_ms:.2f} ms and {flush.account_ns / 1000:.1f} µs for each "
        f"watched account that is due; its knee is at {knees[2]}."
    )


def draw(curve: Curve, path: Path) -> None:
    """Both passes by the size of the book, and the flush by the number of watched accounts."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    style: Any = {"svg.hashsalt": "cost", "font.size": 9}
    style |= {f"{name}.color": GREY for name in ("text", "xtick", "ytick")}
    style |= {"axes.labelcolor": GREY, "axes.edgecolor": GREY, "axes.titlecolor": GREY}
    with pyplot.rc_context(style):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), width_ratios=(3, 2))
        for positions, colour in zip(POSITIONS, COLOURS, strict=True):
            passes = [one for one in curve.passes if one.positions == positions]
            sizes = [one.size for one in passes]
            left.plot(sizes, [one.full_ms for one in passes], "o-", color=colour, ms=3, label=f"{positions}")
            left.plot(sizes, [one.incremental_ms for one in passes], "o--", color=colour, ms=3, lw=1)
        left.set(xlabel="positions in the book", ylabel="ms", xscale="log", yscale="log")
        left.set_title("whole book: full pass (—), 2 % of the symbols (- -)", fontsize=9)
        left.legend(title="per account", frameon=False, fontsize=8, labelcolor=GREY)
        flushes = [one for one in curve.flushes if one.watched]
        right.plot(
            [one.watched for one in flushes], [one.ms for one in flushes], "o-", color=COLOURS[1], ms=3
        )
        right.set(xlabel="watched accounts, all due", xscale="log", yscale="log")
        right.set_title("flush", fontsize=9)
        knee = WATCHED_POSITIONS * (curve.full.knee(WATCHED_POSITIONS) or 0)
        for axes, at in ((left, knee), (right, curve.flush.knee(0) or 0)):
            axes.axvline(at, color=GREY, lw=1, ls=":")
            axes.text(at, axes.get_ylim()[1], " knee", va="top", fontsize=8)
            axes.grid(visible=True, color=GREY, alpha=0.25, lw=0.5)
            axes.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, transparent=True, metadata={"Date": None})


def main(
    chart: Annotated[Path | None, typer.Option(help="Draw it as SVG here")] = None,
    data: Annotated[Path | None, typer.Option(help="Write every figure as JSON here")] = None,
    drawn: Annotated[Path | None, typer.Option(help="Draw this JSON instead of measuring")] = None,
) -> None:
    """Measure what valuing costs by size, and say where the knee is."""
    curve = msgspec.json.decode(drawn.read_bytes(), type=Curve) if drawn else measured()
    if data:
        data.parent.mkdir(parents=True, exist_ok=True)
        data.write_bytes(msgspec.json.format(msgspec.json.encode(curve), indent=1) + b"\n")
    if chart:
        draw(curve, chart)
    print(sentence(curve))


if __name__ == "__main__":
    typer.run(main)
