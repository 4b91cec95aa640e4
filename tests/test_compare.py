"""What says whether a revision is faster: its ratios, what it refuses to judge, and a planted slow-down."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.compare import usage
from benchmarks.compare.figures import Run, is_judged, ratios, table
from benchmarks.compare.revisions import Revision, prepared
from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.errors import SettingsError
from tests.conftest import DEADLINE_S

SLOWER_RATIO = 0.5
WORK = """
import json, time
begun_s = time.thread_time()
while time.thread_time() - begun_s < 0.6:
    pass
give_up_s = time.monotonic() + 20
while time.process_time() < 1.4 * time.thread_time() and time.monotonic() < give_up_s:
    time.sleep(0.05)
print(json.dumps([time.thread_time(), time.process_time()]))
"""


def run(**figures: float) -> Run:
    """A run on a quiet machine."""
    return Run(figures, 0.0)


def test_a_ratio_is_the_median_of_the_pairs() -> None:
    """Not the ratio of the medians: what slows both of a pair harms nothing."""
    pairs = [(run(a=10), run(a=5)), (run(a=100), run(a=60)), (run(a=20), run(a=8))]
    found = ratios(pairs)["a"]
    assert (found.before, found.now) == (20, 8)
    assert (found.ratio, found.lowest, found.highest) == (0.5, 0.4, 0.6)
    assert found.is_clear


def test_it_is_clear_only_when_all_pairs_agree() -> None:
    """And when there are enough of them."""
    assert not ratios([(run(a=10), run(a=5))] * 2)["a"].is_clear
    assert ratios([(run(a=10), run(a=5))] * 3)["a"].is_clear
    assert ratios([(run(a=5), run(a=10))] * 3)["a"].is_clear
    assert not ratios([*[(run(a=10), run(a=5))] * 3, (run(a=10), run(a=10))])["a"].is_clear


@given(st.lists(st.floats(0.1, 1000), min_size=1, max_size=9))
def test_a_revision_against_itself_is_one(figures: list[float]) -> None:
    """Whatever the machine did to both of a pair."""
    found = ratios([(run(a=value), run(a=value)) for value in figures])["a"]
    assert (found.ratio, found.is_clear) == (1, False)


def test_a_figure_without_a_ratio_is_left_out() -> None:
    """One that a revision does not have, or that was nothing before."""
    pairs = [(run(a=1, b=2, c=0), run(a=1, c=1))]
    assert set(ratios(pairs)) == {"a"}
    assert ratios([]) == {}
    assert "a" in table(ratios(pairs), "old", "new")


def test_a_busy_machine_is_not_judged() -> None:
    """A tenth of it for something else is the most."""
    assert is_judged(Run({}, 0.1))
    assert not is_judged(Run({}, 0.11))


def test_an_unknown_revision_is_refused() -> None:
    """Also one that looks like an option."""
    for name in ("no-such-revision", "--output=x"):
        with pytest.raises(SettingsError, match="git knows no such revision"):
            prepared(name)


def test_a_planted_slow_down_is_seen(tmp_path: Path) -> None:
    """A process that is slowed down by a half uses so much more processor time."""
    revision = Revision(".", "", tmp_path, tmp_path)
    environment = {"PATH": os.environ["PATH"], **revision.environment(SLOWER_RATIO)}
    done = subprocess.run(
        [sys.executable, "-c", WORK], env=environment, capture_output=True, timeout=DEADLINE_S, check=True
    )
    own_s, all_s = json.loads(done.stdout)
    assert 1.4 <= all_s / own_s < 1.7
    assert "COMPARE_SLOWER_RATIO" not in revision.environment()


def test_a_process_and_its_children_are_found() -> None:
    """With their command lines, so that each gets its name; what they use is counted."""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    starting = f"import subprocess, sys; subprocess.run({sleeping!r})"
    parent = subprocess.Popen([sys.executable, "-c", starting])
    try:
        found = usage.tree(os.getpid())
        while not any("sleep(60)" in line and "subprocess" not in line for line in found.values()):
            found = usage.tree(os.getpid())
        assert {os.getpid(), parent.pid} < set(found)
        resident_mb, proportional_mb = usage.memory_mb(os.getpid())
        assert 0 < proportional_mb <= resident_mb
        assert usage.cpu_s(found) > 0
        began = usage.machine()
        assert 0 < began.busy_s < began.all_s
    finally:
        for pid in usage.tree(parent.pid):
            os.kill(pid, 15)
        parent.wait()
