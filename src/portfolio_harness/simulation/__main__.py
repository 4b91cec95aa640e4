"""`python -m portfolio_harness.simulation --seeds 0:2000`: trials of the pure core, one seed each."""

import argparse
import os
import sys
import time

from portfolio_harness.simulation.trial import Simulation

HASH_SEED = "0"  # the order of sets of names


def main() -> None:
    """Run them; print each that fails. Exit code 1 when one does."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, "-m", "portfolio_harness.simulation", *sys.argv[1:]])  # noqa: S606
    parser = argparse.ArgumentParser(prog="portfolio_harness.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0:500", help="FIRST:LAST, or one")
    options = parser.parse_args()
    first, _, last = options.seeds.partition(":")
    seeds = range(int(first), int(last or int(first) + 1))
    simulation = Simulation()
    began_s, failed, messages, converged = time.process_time(), 0, 0, []
    for seed in seeds:
        verdict = simulation.run(seed)
        messages += verdict.messages
        converged.append(verdict.converged_s)
        if verdict.faults:
            failed += 1
            print(verdict, flush=True)
    took = time.process_time() - began_s
    print(f"{len(seeds)} seeds, {failed} failed, {messages} messages judged, {took:.1f} s of processor time")
    known = sorted(one for one in converged if one is not None)
    if known:
        print(f"converged after median {known[len(known) // 2]:.2f}, worst {known[-1]:.2f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
