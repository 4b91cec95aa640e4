"""The guide's steps, row by row: every check, test and file that the page names is there."""

import re
from pathlib import Path
from typing import Final

import pytest
from deploy.aws.checks.registry import CHECKS

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs/deploy/guide.md"
STEPS: Final = {*map(str, range(1, 12)), "cost:"}
ROWS: Final = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| guide", "| ---"))
]


def test_no_step_is_missing() -> None:
    """Eleven steps and the appendix."""
    assert {row[0].split()[0] for row in ROWS} == STEPS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_rows_check_or_test_exists(row: list[str]) -> None:
    """By name; a name without a dot or a slash is a test of the Cloudflare script."""
    cloudflare = (ROOT / "tests/cloudflare/test_cloudflare.py").read_text()
    names = re.findall(r"`([^`]+)`", row[2])

    assert names
    for name in names:
        if name.startswith("test_"):
            assert f"def {name}(" in cloudflare
        elif name.startswith("make "):
            assert f"\n{name.removeprefix('make ')}:" in (ROOT / "Makefile").read_text()
        elif "/" in name:
            assert (ROOT / name).exists(), name
        else:
            assert name in CHECKS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_rows_file_exists(row: list[str]) -> None:
    """Where our line is."""
    for name in re.findall(r"`((?:deploy|src|tests)/[^`:]+)`", row[1]):
        assert (ROOT / name).exists(), name
