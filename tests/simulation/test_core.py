"""The core in virtual time: every promise in many trials, and every planted fault found.

Both run in a process of their own, whose sets of names have one order: so a seed can be tried again.
"""

import asyncio
import os
import subprocess
import sys

import pytest

SEEDS = os.environ.get("SIMULATION_SEEDS", "0:60")
SECONDS_MAX = 900.0  # a machine with much else to do

pytestmark = pytest.mark.timeout(SECONDS_MAX)


def simulated(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m portfolio_harness.simulation …`, and what it said."""
    return subprocess.run(
        [sys.executable, "-m", "portfolio_harness.simulation", *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


async def test_every_promise_holds_in_every_trial() -> None:
    """`make simulate SEEDS=0:20000` tries more."""
    trials = await asyncio.to_thread(simulated, "--seeds", SEEDS)

    assert not trials.returncode, trials.stdout + trials.stderr
    assert " 0 failed" in trials.stdout


@pytest.mark.parametrize("seed", ["1723", "2210"])
async def test_what_clients_do_is_simulated(seed: str) -> None:
    """These failed while clients did not resume, or connected to a server that had died again."""
    trial = await asyncio.to_thread(simulated, "--seeds", seed)

    assert not trial.returncode, trial.stdout + trial.stderr


@pytest.mark.parametrize("seed", ["5344", "5378", "5421"])
async def test_what_once_failed_is_right(seed: str) -> None:
    """An announcement that rested after an outage, Valkey's clock set back, a sender that was killed."""
    trial = await asyncio.to_thread(simulated, "--seeds", seed)

    assert not trial.returncode, trial.stdout + trial.stderr


async def test_every_planted_fault_is_found() -> None:
    """A simulation that finds nothing proves nothing."""
    found = await asyncio.to_thread(simulated, "--mutants")

    assert not found.returncode, found.stdout + found.stderr
    assert "P1 " in found.stdout


async def test_the_same_seed_gives_the_same_trial() -> None:
    """Message by message."""
    first, second = [await asyncio.to_thread(simulated, "--seeds", "11") for _ in range(2)]

    judged = [trial.stdout.partition(" messages judged")[0] for trial in (first, second)]
    assert judged[0] == judged[1]
    assert not first.returncode
