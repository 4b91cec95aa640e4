"""The core in virtual time: every promise in many trials, and every planted fault found.

All run in processes of their own, whose sets of names have one order: so a seed can be tried again.
"""

import asyncio
import os
import re
import subprocess
import sys

import pytest

SEEDS = os.environ.get("SIMULATION_SEEDS", "0:400")
LONG_SEEDS = os.environ.get("SIMULATION_LONG_SEEDS", "0:60")
SECONDS_MAX = 900.0  # a machine with much else to do

pytestmark = pytest.mark.timeout(SECONDS_MAX)


def simulated(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    """`python -m portfolio_harness.simulation …`, and what it said."""
    return subprocess.run(
        [sys.executable, "-m", "portfolio_harness.simulation", *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )


@pytest.mark.parametrize(("story", "seeds"), [("short", SEEDS), ("long", LONG_SEEDS)])
async def test_every_promise_holds_in_every_trial(story: str, seeds: str) -> None:
    """`make simulate SEEDS=0:20000` tries more."""
    trials = await asyncio.to_thread(simulated, "--story", story, "--seeds", seeds)

    assert not trials.returncode, trials.stdout + trials.stderr
    assert " 0 failed" in trials.stdout


async def test_every_planted_fault_is_found() -> None:
    """By short stories. A simulation that finds nothing proves nothing."""
    found = await asyncio.to_thread(simulated, "--mutants")

    assert not found.returncode, found.stdout + found.stderr
    assert "P1 " in found.stdout


def histories(*arguments: str) -> dict[str, str]:
    """Seed -> checksum of every command and every message of its trial, with their times."""
    trials = simulated("--histories", *arguments)
    assert not trials.returncode, trials.stdout + trials.stderr
    return dict(re.findall(r"seed (\d+): history (\w+)", trials.stdout))


@pytest.mark.parametrize("story", ["short", "long"])
async def test_the_history_of_a_seed_is_the_same_alone_and_in_a_range(story: str) -> None:
    """Nothing of the real time, of chance, of memory addresses or of the seeds before is in it."""
    together = await asyncio.to_thread(histories, "--story", story, "--seeds", "0:12", "--processes", "1")
    alone = await asyncio.to_thread(histories, "--story", story, "--seeds", "11")
    turned = await asyncio.to_thread(
        histories, "--story", story, "--seeds", *map(str, range(11, -1, -3)), "--processes", "1"
    )

    assert len(together) == 12
    assert len(set(together.values())) == 12
    assert together["11"] == alone["11"]
    assert turned == {seed: together[seed] for seed in turned}
