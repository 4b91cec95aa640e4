"""The product's table of activity types beside the simulator's, and both beside Alpaca's own lists."""

import re
from pathlib import Path

import pytest

from alpaca_sim.core.activity_types import MEANINGS
from portfolio_realtime.symbol_collector import activity_types
from portfolio_realtime.symbol_collector.activity_types import TABLE, ActivityType, Cost
from tests.alpaca_sim.openapi import FOLDER

DOCUMENT = Path(__file__).parents[2] / "docs" / "activity-types.md"


@pytest.mark.parametrize("code", sorted(TABLE.keys() | MEANINGS.keys()))
def test_the_simulator_means_the_same_by_each_type(code: str) -> None:
    """Two tables from the same sources, each by itself: a type that one lacks, or reads otherwise, fails."""
    ours, theirs = TABLE[code], MEANINGS[code]
    assert (ours.moves, ours.is_external) == (theirs.units, theirs.flow)
    assert theirs.cash, "every type may move the cash, and here none is kept from it"


@pytest.mark.parametrize("file", ["broker", "trading"])
def test_every_type_of_alpacas_files_is_in_the_table(file: str) -> None:
    """And says so in its source."""
    path = FOLDER / f"{file}.yaml"
    if not path.exists():
        pytest.skip("the OpenAPI files are not beside this repository")
    start = path.read_text().index("    ActivityType:\n      description: |-")
    block = path.read_text()[start:].partition("      title: ActivityType")[0].partition("enum:")[2]
    codes = re.findall(r"- ([A-Z]+)\n", block)
    assert len(codes) > 25
    assert not [code for code in codes if file not in TABLE[code].source.split()]


@pytest.mark.parametrize("one", TABLE.values(), ids=TABLE)
def test_a_type_does_not_contradict_itself(one: ActivityType) -> None:
    """What moves no position costs nothing; the client's own securities come at their price."""
    assert one.moves or one.cost is Cost.NOTHING
    assert not (one.moves and one.is_external) or one.cost is Cost.PRICE
    assert one.needs_amount == (one.code in {"ACATC", "CSD", "CSW", "JNLC", "TRANS"})


def test_what_nobody_describes_moves_what_it_says_and_is_no_gain() -> None:
    """Also a type that comes tomorrow."""
    assert not activity_types.is_described("NEWTYPE")
    assert not activity_types.is_described("MISC")
    assert activity_types.of("NEWTYPE").moves


def test_the_document_shows_the_table() -> None:
    """Row by row; `python -m portfolio_realtime.symbol_collector.activity_types` prints it."""
    assert activity_types.as_markdown() in DOCUMENT.read_text()
