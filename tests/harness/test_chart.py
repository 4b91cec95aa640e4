"""The picture of lag against messages a second, drawn from made-up steps."""

import re
from pathlib import Path

import pytest
import typer.testing

from portfolio_harness.chart import Chart, Step, beyond, draw, knee, save, saved
from portfolio_harness.commands import app
from portfolio_realtime.errors import SettingsError

KNEE_LINE = re.compile(r'<g id="knee">\s*<path d="M ([\d.]+) ')


def chart(*lags_ms: float) -> Chart:
    """A step of a thousand messages more for each."""
    steps = [
        Step(100 * number, 1000.0 * number, lag_ms / 2, lag_ms) for number, lag_ms in enumerate(lags_ms, 1)
    ]
    return Chart("2026-11-20", 300, 1, 250, steps)


def drawn(made_up: Chart, folder: Path) -> str:
    """Its picture."""
    path = folder / "images" / "lag.svg"
    draw(made_up, path)
    return path.read_text()


@pytest.mark.parametrize(
    ("lags_ms", "found", "past"),
    [
        ((50, 90, 251, 400), 2000, 2),
        ((50, 400, 90, 300), 3000, 1),  # one step that does not hold is no knee while a later one holds
        ((300,), 0, 1),
        ((50, 250), None, 0),
        ((400, 90), None, 0),
        ((), None, 0),
    ],
)
def test_the_knee_is_the_last_step_that_held(
    lags_ms: tuple[float, ...], found: float | None, past: int
) -> None:
    """None where it never bent."""
    steps = chart(*lags_ms).steps

    assert knee(steps, 250) == found
    assert beyond(steps, 250) == past


def test_a_knee_is_drawn_as_a_line_with_its_figure(tmp_path: Path) -> None:
    """At its place: further right for a later knee."""
    early, late = (drawn(chart(*lags), tmp_path) for lags in ((50, 300, 400, 500), (50, 60, 70, 500)))
    at = [KNEE_LINE.findall(picture) for picture in (early, late)]

    assert "knee: 1,000 messages a second" in early
    assert "knee: 3,000 messages a second" in late
    assert [len(places) for places in at] == [1, 1]
    assert float(at[0][0]) < float(at[1][0])


def test_without_a_knee_there_is_no_line(tmp_path: Path) -> None:
    """The picture says how far was looked."""
    picture = drawn(chart(50, 60, 70), tmp_path)

    assert 'id="knee"' not in picture
    assert "no knee up to 3,000 messages a second" in picture


def test_a_knee_below_the_first_step_is_called_so(tmp_path: Path) -> None:
    """Where it is was not measured."""
    assert "knee: below 1,000 messages a second" in drawn(chart(300, 400), tmp_path)


def test_the_picture_names_its_axes_goal_and_steps(tmp_path: Path) -> None:
    """As text, so that it can be read and searched."""
    picture = drawn(chart(50, 300), tmp_path)

    labels = ("messages a second", "ms from trade to client", "p99", "p50", "goal: 250 ms", ">100<", ">200<")
    assert [label for label in labels if label not in picture] == []
    assert "300 accounts, at most 1 a second for each" in picture


def test_a_picture_is_drawn_again_from_its_figures(tmp_path: Path) -> None:
    """The same bytes, also by the command; what holds no figures is refused."""
    figures, again = tmp_path / "results" / "lag.json", tmp_path / "again.svg"
    save(chart(50, 60, 300), figures)
    first = drawn(chart(50, 60, 300), tmp_path)

    words = ["loadtest", "--drawn", str(figures), "--chart", str(again)]
    done = typer.testing.CliRunner().invoke(app, words)

    assert done.exit_code == 0, done.output
    assert again.read_text() == first
    figures.write_text("{}")
    with pytest.raises(SettingsError, match="has no figures"):
        saved(figures)
