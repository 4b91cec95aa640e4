"""Run simulated trials of the core, one per seed: `python -m portfolio_harness.simulation --seeds 0:2000`."""

import argparse
import itertools
import os
import resource
import sys
from collections.abc import Sequence
from statistics import median
from typing import Final

from portfolio_harness.simulation.mutants import MUTANTS, planted
from portfolio_harness.simulation.processes import each_in_process, processor_count
from portfolio_harness.simulation.stories import LONG, SHORT
from portfolio_harness.simulation.trial import Simulation

HASH_SEED: Final = "0"  # fixes the order of sets of strings
MODULE: Final = "portfolio_harness.simulation"
CHUNK: Final = 25  # seeds that one process runs
# Short stories have half the faults of long ones, so that twice the seeds and more are tried.
MUTANT_SEEDS_MAX: Final = 400
KINDS: Final = {"short": SHORT, "long": LONG}


def main() -> None:
    """Run the trials and print each that fails.

    Exit code 1: a trial failed, or with --mutants, a planted fault was not found.
    """
    if not os.environ.get("PYTHONHASHSEED", "").isdecimal():
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, "-m", MODULE, *sys.argv[1:]])  # noqa: S606
    parser = argparse.ArgumentParser(prog=MODULE, description=__doc__)
    parser.add_argument(
        "--seeds",
        type=_seeds,
        nargs="+",
        default=[range(2000)],
        help="FIRST:END (END is not run), or one seed; more than one of them",
    )
    parser.add_argument("--story", choices=KINDS, default="short", help="how long a trial takes")
    parser.add_argument(
        "--mutants", action="store_true", help="plant faults in the product; every one must be found"
    )
    parser.add_argument(
        "--histories", action="store_true", help="print a checksum of all that happened in each trial"
    )
    parser.add_argument("--processes", type=int, default=processor_count(), help="how many run side by side")
    options = parser.parse_args()
    simulation = Simulation(KINDS[options.story])
    if options.mutants:
        is_good = _find_mutants(simulation, options.processes)
    else:
        is_good = _run(simulation, list(itertools.chain(*options.seeds)), options)
    sys.exit(0 if is_good else 1)


def _seeds(text: str) -> range:
    """The seeds of `FIRST:END` or of one seed. Raises ArgumentTypeError when there is none."""
    first, _, last = text.partition(":")
    if not first.isdecimal() or not (last or "0").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of seeds: write 0:2000, or 7 for one seed")
    seeds = range(int(first), int(last or int(first) + 1))
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} has no seed: END, which is not run, must be above FIRST")
    return seeds


def _run(simulation: Simulation, seeds: Sequence[int], options: argparse.Namespace) -> bool:
    """Run the seeds and print failures; whether every promise held in every trial."""
    failed, messages, waits = 0, 0, list[float]()
    chunks = [seeds[first : first + CHUNK] for first in range(0, len(seeds), CHUNK)]
    for verdicts in each_in_process(simulation.run_all, chunks, options.processes):
        for verdict in verdicts:
            messages += verdict.messages
            if verdict.converged_s is not None:
                waits.append(verdict.converged_s)
            if options.histories:
                print(f"seed {verdict.seed}: history {verdict.history:08x}")
            if verdict.faults:
                failed += 1
                print(f"{verdict}\n  repeat: {_repeat(verdict.seed, options.story)}", flush=True)
    print(
        f"{len(seeds)} seeds, {failed} failed, {messages} messages judged, "
        f"{_processor_s():.1f} s of processor time"
    )
    if waits:
        print(f"from the last fault until right: median {median(waits):.2f} s, worst {max(waits):.2f} s")
    return not failed


def _repeat(seed: int, story: str) -> str:
    """The command that runs this trial again."""
    return f"PYTHONHASHSEED={os.environ['PYTHONHASHSEED']} python -m {MODULE} --story {story} --seeds {seed}"


def _processor_s() -> float:
    """The processor time of this process and of those that it has run."""
    ours, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return ours.ru_utime + ours.ru_stime + theirs.ru_utime + theirs.ru_stime


def _find_mutants(simulation: Simulation, processes: int) -> bool:
    """Plant each fault and look for it; whether all were found, in trials that succeed without it."""

    def hunt(number: int) -> tuple[bool, str]:
        mutant = MUTANTS[number]
        with planted(mutant):
            seeds = itertools.chain(mutant.found_by, range(MUTANT_SEEDS_MAX))
            found = next((one for seed in seeds if (one := simulation.run(seed)).faults), None)
        if found is None:
            return False, f"NOT FOUND within {MUTANT_SEEDS_MAX} seeds"
        if simulation.run(found.seed).faults:
            return False, f"seed {found.seed} fails without a planted fault, too"
        return True, f"seed {found.seed}: {found.faults[0]}"

    is_each_found = True
    hunts = each_in_process(hunt, range(len(MUTANTS)), processes)
    for mutant, (is_found, by) in zip(MUTANTS, hunts, strict=True):
        is_each_found &= is_found
        print(f"{mutant.promise} {mutant.what}: {by}", flush=True)
    print(f"{len(MUTANTS)} planted faults, {_processor_s():.1f} s of processor time")
    return is_each_found


if __name__ == "__main__":
    main()
