"""Which series the services of a run have written, in CloudWatch's embedded metric format."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from deploy.aws.checks.template import Template
from deploy.aws.checks.watch import Series, used_series
from deploy.aws.metrics import FAMILIES

OF_AWS: Final = {family.namespace for family in FAMILIES}


def written(logs: Iterable[str]) -> Iterator[Series]:
    """The series of every line that CloudWatch would take metrics from."""
    for log in logs:
        for line in log.splitlines():
            if '"_aws"' not in line:
                continue
            event: dict[str, Any] = json.loads(line)
            for directive in event["_aws"]["CloudWatchMetrics"]:
                yield from _series(event, directive)


def _series(event: dict[str, Any], directive: dict[str, Any]) -> Iterator[Series]:
    """The series of one directive whose values the event has."""
    present = [metric["Name"] for metric in directive["Metrics"] if metric["Name"] in event]
    for names in directive["Dimensions"]:
        dimensions = frozenset((name, str(event[name])) for name in names)
        for name in present:
            yield directive["Namespace"], name, dimensions


def unwritten(template: Template, logs: Iterable[str]) -> set[str]:
    """What alarms, scaling and the dashboard look at, and nobody has written."""
    found = {_shape(series) for series in written(logs)}
    used = {_shape(series) for _, series in used_series(template) if series[0] not in OF_AWS}
    return {f"{namespace} {metric} by {', '.join(names)}" for namespace, metric, names in used - found}


def _shape(series: Series) -> tuple[str, str, tuple[str, ...]]:
    namespace, metric, dimensions = series
    return namespace, metric, tuple(sorted(name for name, _ in dimensions))
