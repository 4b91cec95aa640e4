"""Run simulated trials of the core, one per seed: `python -m portfolio_harness.simulation --seeds 0:2000`."""

import argparse
import os
import sys
import time
from statistics import median
from typing import Final

from portfolio_harness.simulation.mutants import MUTANTS, planted
from portfolio_harness.simulation.trial import Simulation

HASH_SEED: Final = "0"  # fixes the order of sets of strings
MODULE: Final = "portfolio_harness.simulation"
MUTANT_SEEDS_MAX: Final = 150  # seeds that are tried to find a planted fault


def main() -> None:
    """Run the trials and print each that fails.

    Exit code 1: a trial failed, or with --mutants, a planted fault was not found.
    """
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, "-m", MODULE, *sys.argv[1:]])  # noqa: S606
    parser = argparse.ArgumentParser(prog=MODULE, description=__doc__)
    parser.add_argument(
        "--seeds", type=_seeds, default="0:2000", help="FIRST:END (END is not run), or one seed"
    )
    parser.add_argument(
        "--mutants", action="store_true", help="plant faults in the product; every one must be found"
    )
    options = parser.parse_args()
    simulation = Simulation()
    is_good = _find_mutants(simulation) if options.mutants else _run(simulation, options.seeds)
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


def _run(simulation: Simulation, seeds: range) -> bool:
    """Run the seeds and print failures; whether every promise held in every trial."""
    began_s, failed, messages, waits = time.process_time(), 0, 0, list[float]()
    for seed in seeds:
        verdict = simulation.run(seed)
        messages += verdict.messages
        if verdict.converged_s is not None:
            waits.append(verdict.converged_s)
        if verdict.faults:
            failed += 1
            print(f"{verdict}\n  repeat: python -m {MODULE} --seeds {seed}", flush=True)
    took_s = time.process_time() - began_s
    print(
        f"{len(seeds)} seeds, {failed} failed, {messages} messages judged, {took_s:.1f} s of processor time"
    )
    if waits:
        print(f"from the last fault until right: median {median(waits):.2f} s, worst {max(waits):.2f} s")
    return not failed


def _find_mutants(simulation: Simulation) -> bool:
    """Plant each fault and look for it; whether all were found, in trials that succeed without it."""
    missed = 0
    for mutant in MUTANTS:
        with planted(mutant):
            found = next(
                (verdict for seed in range(MUTANT_SEEDS_MAX) if (verdict := simulation.run(seed)).faults),
                None,
            )
        if found is not None and simulation.run(found.seed).faults:
            print(f"seed {found.seed} fails without a planted fault, too", flush=True)
            found = None
        missed += found is None
        by = (
            f"NOT FOUND within {MUTANT_SEEDS_MAX} seeds"
            if found is None
            else f"seed {found.seed}: {found.faults[0]}"
        )
        print(f"{mutant.promise} {mutant.what}: {by}", flush=True)
    return not missed


if __name__ == "__main__":
    main()
