"""The lock files agree: what runs in production is what `make run` and the tests install."""

import re
import runpy
import subprocess
import sys
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


def test_the_progress_counts_what_is_fetched_wherever_it_is_from(capsys: pytest.CaptureFixture[str]) -> None:
    """Packages for other systems are not counted, files of this machine are; long steps say so again."""
    progress = runpy.run_path(str(FOLDER / "progress.py"))["Progress"](30, is_terminal=False)
    progress.tick()
    for _ in range(10):
        progress.line("Ignoring colorama: markers do not match your environment")
        progress.line("Collecting aiohttp==3.14.5 (from -r run.txt)")
        progress.line("Processing /wheels/yarl-1.25.1-py3-none-any.whl (from -r run.txt)")
    progress.tick()
    progress.line("Installing collected packages: aiohttp, yarl")
    progress.tick()

    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "making the environment, 10 s",
        "fetching package 10 of 25: yarl-1.25.1-py3-none-any.whl",
        "fetching package 20 of 20: yarl-1.25.1-py3-none-any.whl",
        "fetching package 20 of 20, 20 s",
        "unpacking 20 packages; this takes as long again ...",
        "unpacking 20 packages, 30 s",
    ]


def test_the_progress_comes_line_by_line() -> None:
    """From a pipe that stays open: nothing waits for a full block."""
    command = [sys.executable, str(FOLDER / "progress.py"), str(FOLDER / "run.txt")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("Successfully installed aiohttp\n")
        process.stdin.flush()
        assert process.stdout.readline() == "  installed\n"
        process.stdin.close()
