"""The guide says what there is: every fault, switch, lever and option, and its example plan can be used."""

import re
from pathlib import Path

import pytest
import typer.main
from starlette.routing import Route, WebSocketRoute

from alpaca_sim.api import events
from alpaca_sim.cli import app
from alpaca_sim.control import levers, odd_levers, routes
from alpaca_sim.core import faults
from alpaca_sim.core.faults import KINDS
from alpaca_sim.core.switches import CHOICES
from alpaca_sim.streams.feeds import FEED_KINDS

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "simulator.md"


@pytest.fixture(scope="module")
def guide() -> str:
    """Its text."""
    return GUIDE.read_text()


def test_every_fault_is_described_with_its_bounds(guide: str) -> None:
    """In the table's words, which are the code's."""
    for kind in KINDS.values():
        low, high = kind.level
        level = f"{kind.level_means}, {low:g} to {high:g}" if kind.level_means else ""
        lasts = "yes" if kind.for_s[1] else "at once"
        assert f"| `{kind.name}` | {kind.about} | {lasts} | {level} |" in guide


def test_every_switch_is_described_with_its_values(guide: str) -> None:
    """Default first."""
    for name, values in CHOICES.items():
        others = ", ".join(f"`{value}`" for value in values[1:])
        assert f"| `{name}` | `{values[0]}` | {others} |" in guide


def test_every_lever_and_stream_is_named(guide: str) -> None:
    """By its path."""
    posted = [
        route
        for route in routes.ROUTES + levers.ROUTES + odd_levers.ROUTES
        if "POST" in (route.methods or ())
    ]
    names = {route.path.removeprefix("/_sim/") for route in posted}
    assert (
        names and [name for name in names if f"`{name}`" not in guide and f"/_sim/{name}" not in guide] == []
    )
    streams: list[Route | WebSocketRoute] = [route for route in events.ROUTES if "{" not in route.path]
    assert [route.path for route in streams if f"`{route.path}`" not in guide] == []
    assert [kind.name for kind in FEED_KINDS if kind.name not in guide] == []


def test_the_options_that_the_guide_uses_exist(guide: str) -> None:
    """Those of the command line, and of the tools it names."""
    known = {name for parameter in typer.main.get_command(app).params for name in parameter.opts}
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", guide)) - {"--help", "--data-binary"}
    assert used <= known


def test_the_example_plan_can_be_used(guide: str) -> None:
    """As written."""
    (example,) = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    plan = faults.load(example)
    assert plan.seed == 7 and len(plan.faults) == 6
