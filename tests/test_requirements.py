"""The lock files agree: what runs in production is what `make run` and the tests install."""

import re
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
