"""The lock files agree: what runs in production is what `make run` and the tests install."""

import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "requirements"


def locked(name: str) -> set[str]:
    """`package==version` of each line."""
    return set(re.findall(r"^[A-Za-z0-9._-]+==[^ ;\\]+", (FOLDER / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_what_runs_in_production_is_in_every_environment(name: str) -> None:
    """Else `make lock` was not run after a change."""
    assert locked("runtime.txt") - locked(name) == set()


@pytest.mark.parametrize("name", ["runtime.txt", "run.txt", "dev.txt", "build.txt"])
def test_every_package_has_a_hash_and_no_address(name: str) -> None:
    """A package that was changed on its way is refused; where it comes from is the reader's choice."""
    text = (FOLDER / name).read_text()

    assert text.count("--hash=sha256:") >= len(locked(name)) > 0
    assert "://" not in text


def test_the_progress_counts_what_is_fetched_wherever_it_is_from() -> None:
    """Packages for other systems are not counted, files of this machine are; long steps say so every 10 s."""
    pip = "10 s\n" + (
        "Ignoring colorama: markers do not match your environment\n"
        "Collecting aiohttp==3.14.5 (from -r run.txt)\n"
        "Processing /wheels/yarl-1.25.1-py3-none-any.whl (from -r run.txt)\n"
        * 10
        + "10 s\nInstalling collected packages: aiohttp, yarl\n10 s\n"
    )

    lines = subprocess.run(
        ["awk", "-v", "total=30", "-v", "tty=", "-f", FOLDER / "progress.awk"],
        input=pip,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()

    assert [line.strip() for line in lines] == [
        "making the environment, 10 s",
        "fetching package 10 of 25: yarl-1.25.1-py3-none-any.whl",
        "fetching package 20 of 20: yarl-1.25.1-py3-none-any.whl",
        "fetching package 20 of 20, 20 s",
        "unpacking 20 packages; this takes as long again ...",
        "unpacking 20 packages, 30 s",
    ]
