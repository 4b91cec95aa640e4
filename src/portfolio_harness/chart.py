"""The chart of lag against messages per second: its steps, the knee, the SVG, and the file of its figures."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from portfolio_realtime.errors import SettingsError

STEPS_MAX: Final = 16
BEYOND_MAX: Final = 2  # steps in a row above the goal: a single one may be noise of the machine
GREY: Final = "#808080"
COLOURS: Final = ("#d9534f", "#4a90d9")  # p99, p50
KNEE_COLOUR: Final = "#d98a2b"


class Step(msgspec.Struct, frozen=True):
    """One step of the measurement: a number of connections, and what it gave. Lags are in milliseconds."""

    connections: int
    messages_per_s: float
    lag_ms_p50: float
    lag_ms_p99: float


class Chart(msgspec.Struct, frozen=True):
    """All figures of the chart."""

    date: str
    accounts: int
    rate: float  # messages per second and account that the server may send
    p99_ms_max: float
    steps: list[Step]

    @property
    def knee_messages_per_s(self) -> float | None:
        """The rate at the knee: see `knee`."""
        return knee(self.steps, self.p99_ms_max)


def today() -> str:
    """The present date in UTC, YYYY-MM-DD."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


def beyond(steps: Sequence[Step], p99_ms_max: float) -> int:
    """The number of consecutive steps at the end whose p99 is above the goal."""
    count = 0
    for step in reversed(steps):
        if step.lag_ms_p99 <= p99_ms_max:
            break
        count += 1
    return count


def knee(steps: Sequence[Step], p99_ms_max: float) -> float | None:
    """Messages per second of the last step within the goal, before the steps at the end that missed it.

    0 when no step was within the goal; None when the last step was.
    """
    past = beyond(steps, p99_ms_max)
    if not past:
        return None
    return steps[-past - 1].messages_per_s if past < len(steps) else 0.0


def save(chart: Chart, path: Path) -> None:
    """Write all figures as JSON. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(chart), indent=1) + b"\n")


def saved(path: Path) -> Chart:
    """Read the figures that `save` wrote. Raises SettingsError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Chart)
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path} has no figures of a chart: {error}") from None


def need_plotting() -> None:
    """Prepare matplotlib to draw SVG. Raises SettingsError when it is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise SettingsError(
            "--chart needs matplotlib: pip install 'portfolio-realtime[charts]', or make install"
        ) from None
    mpl.use("svg")


def draw(chart: Chart, path: Path) -> None:
    """Draw lag against messages per second as SVG, with the knee marked. Raises SettingsError, OSError."""
    need_plotting()
    from matplotlib import pyplot, ticker

    style: Any = {"svg.hashsalt": "lag", "svg.fonttype": "none", "font.size": 9}
    style |= {f"{name}.color": GREY for name in ("text", "xtick", "ytick")}
    style |= {"axes.labelcolor": GREY, "axes.edgecolor": GREY, "axes.titlecolor": GREY}
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(8, 4.2))
        rates = [step.messages_per_s for step in chart.steps]
        for name, colour in zip(("p99", "p50"), COLOURS, strict=True):
            lags = [getattr(step, f"lag_ms_{name}") for step in chart.steps]
            axes.plot(rates, lags, "o-", color=colour, ms=3, label=name)
        axes.axhline(chart.p99_ms_max, ls="--", lw=1, color=GREY, label=f"goal: {chart.p99_ms_max:g} ms")
        _mark_knee(axes, chart)
        for step in chart.steps:
            at = (step.messages_per_s, step.lag_ms_p99)
            axes.annotate(f"{step.connections}", at, (0, 6), textcoords="offset points", ha="center", size=7)
        axes.set(xlabel="messages a second (at the points: connections)", yscale="log")
        axes.set_ylabel("ms from trade to client, beyond the conflation wait")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(ticker.LogFormatter())
        axes.set_title(f"{chart.accounts:,} accounts, at most {chart.rate:g} a second for each", size=9)
        axes.grid(visible=True, color=GREY, alpha=0.25, lw=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, labelcolor=GREY, loc="upper left")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
        pyplot.close(figure)


def _mark_knee(axes: Any, chart: Chart) -> None:
    """Draw the knee as a line with its figure; without a knee, a text that says so."""
    found, last = chart.knee_messages_per_s, chart.steps[-1].messages_per_s
    if found is None:
        label = f"no knee up to {last:,.0f} messages a second"
        axes.text(0.99, 0.02, label, transform=axes.transAxes, ha="right", va="bottom")
        return
    at = found or chart.steps[0].messages_per_s
    label = f"knee: {'' if found else 'below '}{at:,.0f} messages a second"
    axes.axvline(at, ls=":", lw=1.5, color=KNEE_COLOUR, gid="knee")
    align, beside = ("right", -4) if at > last / 2 else ("left", 4)  # where there is room
    axes.annotate(
        *(label, (at, 0.02), (beside, 0)),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha=align,
    )
