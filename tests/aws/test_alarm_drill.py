"""Each alarm with made-up series: it rings, it clears, it does not ring for nothing.

The evaluator follows the CloudWatch user guide, "Evaluating an alarm" and "Configuring how CloudWatch alarms
treat missing data": of the last N periods M must breach; one without a value counts as the alarm says, and
with `missing` not at all.
"""

from collections.abc import Sequence

import pytest
from deploy.aws.alarms import Alarm, alarms
from deploy.aws.sizes import SIZES

Series = Sequence[float | None]  # a value for each period, the oldest first; None: none was sent
ALARMS = {f"{size.name} {alarm.name}": alarm for size in SIZES.values() for alarm in alarms(size)}


def state(alarm: Alarm, series: Series) -> str:
    """What CloudWatch says after the last of these periods."""
    seen = series[-alarm.periods :]
    if alarm.missing == "missing" and all(value is None for value in seen):
        return "INSUFFICIENT_DATA"
    breaching = sum(
        alarm.missing == "breaching" if value is None else _is_beyond(alarm, value) for value in seen
    )
    return "ALARM" if breaching >= alarm.datapoints else "OK"


def _is_beyond(alarm: Alarm, value: float) -> bool:
    if alarm.comparison == "LessThanThreshold":
        return value < alarm.threshold
    return value > alarm.threshold or (
        alarm.comparison.endswith("OrEqualToThreshold") and value == alarm.threshold
    )


def good(alarm: Alarm) -> float:
    """A value of a quiet day; at night the services write 0."""
    return alarm.threshold if alarm.comparison == "LessThanThreshold" else 0.0


def bad(alarm: Alarm) -> float:
    """Just beyond."""
    return alarm.threshold - 1 if alarm.comparison == "LessThanThreshold" else alarm.threshold + 0.01


@pytest.mark.parametrize("name", [*ALARMS])
def test_it_rings_and_clears(name: str) -> None:
    """Not before M bad periods, with the last of them, and not for longer than N after the first good one."""
    alarm = ALARMS[name]
    quiet = [good(alarm)] * alarm.periods
    assert state(alarm, quiet) == "OK"
    assert state(alarm, quiet + [bad(alarm)] * (alarm.datapoints - 1)) == "OK"
    ringing = quiet + [bad(alarm)] * alarm.datapoints
    assert state(alarm, ringing) == "ALARM"
    assert state(alarm, ringing + quiet) == "OK"


@pytest.mark.parametrize("name", [*ALARMS])
def test_at_its_threshold_all_is_well(name: str) -> None:
    """The wanted number of tasks, exactly so much processor: not beyond."""
    alarm = ALARMS[name]
    assert state(alarm, [alarm.threshold] * alarm.periods) == "OK"


@pytest.mark.parametrize("name", [*ALARMS])
def test_one_lost_value_does_not_ring(name: str) -> None:
    """Lines of the log can be dropped under load."""
    alarm = ALARMS[name]
    quiet: list[float | None] = [good(alarm)] * alarm.periods
    for lost in range(alarm.periods):
        assert state(alarm, [*quiet[:lost], None, *quiet[lost + 1 :]]) == "OK", lost


@pytest.mark.parametrize("name", [*ALARMS])
def test_silence_means_what_the_alarm_says(name: str) -> None:
    """A service that is away rings where its absence is the fault, and nowhere else."""
    alarm = ALARMS[name]
    said = {"breaching": "ALARM", "notBreaching": "OK", "missing": "INSUFFICIENT_DATA"}
    assert state(alarm, [None] * alarm.periods) == said[alarm.missing]


@pytest.mark.parametrize("size", [*SIZES])
def test_whoever_is_away_is_missed(size: str) -> None:
    """Each of the four services, the feed, the events and the servers behind the balancer."""
    missed = {alarm.name for alarm in alarms(SIZES[size]) if alarm.missing == "breaching"}
    assert missed == {
        "symbol-collector-running",
        "market-data-consumer-running",
        "portfolio-calculator-running",
        "websocket-server-running",
        "healthy-servers",
        "feed-silent",
        "event-stream-lag",
    }


@pytest.mark.parametrize("size", [*SIZES])
def test_a_deployment_is_quiet(size: str) -> None:
    """For some minutes there is one task more, never one fewer; then another server is not yet healthy."""
    by_name = {alarm.name: alarm for alarm in alarms(SIZES[size])}
    for service, wanted in SIZES[size].counts.items():
        running = by_name[f"{service.replace('_', '-')}-running"]
        assert state(running, [wanted, wanted + 1, wanted + 1, wanted, wanted]) == "OK"
    healthy = by_name["healthy-servers"]
    assert state(healthy, [2, 1, 1, 2, 2]) == "OK"
    assert state(healthy, [1, 1, 1, 1, 1]) == "ALARM"
