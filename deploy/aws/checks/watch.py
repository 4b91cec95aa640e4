"""Step 8 of the guide: alarms, scaling, metrics."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final
from zoneinfo import available_timezones

from deploy.aws.alarms import RUNBOOK, alarms
from deploy.aws.checks.registry import is_between, is_exactly, rule, value
from deploy.aws.checks.template import ABSENT, Resource, Template, refers, text_of
from deploy.aws.metrics import DEPLOYMENT, FAMILIES, NAMESPACE, OWN, SERVICE
from deploy.aws.sizes import SERVERS_MIN, SIZES

ALARM: Final = "CloudWatch::Alarm"
TARGET: Final = "ApplicationAutoScaling::ScalableTarget"
POLICY: Final = "ApplicationAutoScaling::ScalingPolicy"
TRACKING: Final = "TargetTrackingScalingPolicyConfiguration"
DAY_S: Final = 86_400
STATISTICS: Final = frozenset({"Average", "Sum", "Minimum", "Maximum", "SampleCount"})
COMPARISONS: Final = frozenset(
    {
        "GreaterThanThreshold",
        "GreaterThanOrEqualToThreshold",
        "LessThanThreshold",
        "LessThanOrEqualToThreshold",
    }
)
Series = tuple[str, str, frozenset[tuple[str, str]]]  # namespace, metric, dimensions as text

value(
    "alarm.statistic",
    "limits",
    ALARM,
    "Statistic",
    lambda found: found in STATISTICS,
    ("p99", "Mean"),
    "a statistic",
)
value(
    "alarm.period",
    "limits",
    ALARM,
    "Period",
    lambda found: found in (10, 30) or found % 60 == 0,
    (45, 90),
    "in minutes",
)
value(
    "alarm.missing",
    "field",
    ALARM,
    "TreatMissingData",
    lambda found: found in ("breaching", "notBreaching", "missing", "ignore"),
    ("breeching", ABSENT),
    "what missing data means is said for each alarm",
)
value(
    "alarm.enabled",
    "8",
    ALARM,
    "ActionsEnabled",
    lambda found: found in (ABSENT, True),
    (False,),
    "an alarm that tells nobody is none",
)
value(
    "scaling.minimum",
    "8",
    TARGET,
    "MinCapacity",
    is_between(SERVERS_MIN, 100),
    (1, 0, 200),
    "never fewer than two",
)
value(
    "scaling.zone-name",
    "limits",
    TARGET,
    "ServiceNamespace",
    is_exactly("ecs"),
    ("ec2",),
    "scales an ECS service",
)
value(
    "scaling.dimension",
    "limits",
    TARGET,
    "ScalableDimension",
    is_exactly("ecs:service:DesiredCount"),
    ("ecs:service:Count",),
    "the number of tasks",
)
value(
    "scaling.kind",
    "8",
    POLICY,
    "PolicyType",
    is_exactly("TargetTrackingScaling"),
    ("StepScaling",),
    "follows a target",
)
value(
    "scaling.in-cooldown",
    "field",
    POLICY,
    f"{TRACKING}.ScaleInCooldown",
    is_between(600, 3600),
    (0, 60, ABSENT),
    "slow in: the clients of the task that goes must reconnect",
)
value(
    "scaling.out-cooldown",
    "field",
    POLICY,
    f"{TRACKING}.ScaleOutCooldown",
    is_between(30, 120),
    (900, ABSENT),
    "fast out",
)


def _last(template: Template) -> Resource:
    return template.all(ALARM)[-1]


def _put(path: str, wrong: Any) -> Callable[[Template], None]:
    return lambda template: _last(template).put(path, wrong)


def suffix(alarm: Resource) -> str:
    """An alarm's name without the stack's."""
    return text_of(alarm.get("AlarmName")).removeprefix("${AWS::StackName}-")


def _named(template: Template, name: str) -> Resource:
    return next(alarm for alarm in template.all(ALARM) if suffix(alarm) == name)


@rule(
    "alarm.as-written",
    "8",
    "each alarm of deploy/aws/alarms.py is there and rings as it says",
    ("one missing", lambda template: template.content["Resources"].pop(_last(template).name)),
    ("inverted", _put("ComparisonOperator", "LessThanThreshold")),
    ("another threshold", lambda template: _named(template, "feed-silent").put("Threshold", 6000)),
    (
        "silent when the feed's service is away",
        lambda template: _named(template, "feed-silent").put("TreatMissingData", "notBreaching"),
    ),
    (
        "another statistic",
        lambda template: _named(template, "websocket-server-running").put("Statistic", "Average"),
    ),
)
def _as_written(template: Template) -> Iterator[tuple[str, str]]:
    wanted = {alarm.name: alarm for alarm in alarms(SIZES[template.size])}
    found = {suffix(alarm): alarm for alarm in template.all(ALARM)}
    for name in wanted.keys() ^ found.keys():
        yield name, "is missing" if name in wanted else "is not in deploy/aws/alarms.py"
    for name in wanted.keys() & found.keys():
        one, alarm = wanted[name], found[name]
        for path, setting in {
            "MetricName": one.metric,
            "Statistic": one.statistic,
            "ComparisonOperator": one.comparison,
            "Threshold": one.threshold,
            "DatapointsToAlarm": one.datapoints,
            "EvaluationPeriods": one.periods,
            "TreatMissingData": one.missing,
            "Period": one.period_s,
        }.items():
            if alarm.get(path) != setting:
                yield name, f"{path} must be {setting}"


@rule(
    "alarm.action",
    "8",
    "an alarm and its end are told to the topic that sends mail",
    ("no action", _put("AlarmActions", [])),
    ("nobody", _put("AlarmActions", [{"Ref": "Nobody"}])),
    ("end not told", _put("OKActions", ABSENT)),
    ("no mail", lambda template: template.content["Resources"].pop(template.one("SNS::Subscription").name)),
)
def _action(template: Template) -> Iterator[tuple[str, str]]:
    topic = template.one("SNS::Topic").name
    for alarm in template.all(ALARM):
        for path in ("AlarmActions", "OKActions"):
            if not isinstance(alarm.get(path), list) or [refers(one) for one in alarm.get(path)] != [topic]:
                yield alarm.name, f"{path} must be the topic"
    mails = [refers(one.get("TopicArn")) for one in template.all("SNS::Subscription")]
    if topic not in mails:
        yield topic, "nobody is subscribed"


@rule(
    "alarm.m-of-n",
    "limits",
    "no more values are wanted than are looked at, within a day",
    ("six of five", _put("DatapointsToAlarm", 6)),
    ("two days", lambda template: _last(template).properties.update(Period=3600, EvaluationPeriods=48)),
)
def _m_of_n(template: Template) -> Iterator[tuple[str, str]]:
    for alarm in template.all(ALARM):
        points, periods = alarm.get("DatapointsToAlarm"), alarm.get("EvaluationPeriods")
        if not 1 <= points <= periods:
            yield alarm.name, f"{points} of {periods} cannot be"
        if periods * alarm.get("Period") > DAY_S:
            yield alarm.name, "looks back over more than a day"
        if alarm.get("ComparisonOperator") not in COMPARISONS:
            yield alarm.name, "compares in no way that CloudWatch knows"


@rule(
    "alarm.description",
    "field",
    "each alarm says what it means, what missing data means, and which page helps",
    ("no page", _put("AlarmDescription", "Something is wrong.")),
    ("none", _put("AlarmDescription", ABSENT)),
)
def _description(template: Template) -> Iterator[tuple[str, str]]:
    for alarm in template.all(ALARM):
        text = alarm.get("AlarmDescription")
        if not isinstance(text, str) or len(text) > 1024:
            yield alarm.name, "needs a description of at most 1,024 characters"
        elif re.search(rf"Missing data: .+\. {RUNBOOK}/[a-z-]+\.md$", text) is None:
            yield alarm.name, f"must say what missing data means, and end with {RUNBOOK}/PAGE.md"


def own_series(template: Template) -> set[Series]:
    """The series that the services of this template write."""
    del template
    return {
        (NAMESPACE, metric, frozenset({(DEPLOYMENT, "<AWS::StackName>"), (SERVICE, service)}))
        for service, metrics in OWN.items()
        for metric in metrics
    }


def used_series(template: Template) -> Iterator[tuple[str, Series]]:
    """Every series that an alarm, a scaling policy or the dashboard looks at, with who does."""
    for alarm in template.all(ALARM):
        dimensions = {(one["Name"], text_of(one["Value"])) for one in alarm.get("Dimensions")}
        yield alarm.name, (alarm.get("Namespace"), alarm.get("MetricName"), frozenset(dimensions))
    for policy in template.all(POLICY):
        custom = policy.get(f"{TRACKING}.CustomizedMetricSpecification")
        if custom is not ABSENT:
            dimensions = {(one["Name"], text_of(one["Value"])) for one in custom["Dimensions"]}
            yield policy.name, (custom["Namespace"], custom["MetricName"], frozenset(dimensions))
    for board in template.all("CloudWatch::Dashboard"):
        body = json.loads(text_of(board.get("DashboardBody")))
        for widget in body["widgets"]:
            for namespace, metric, *flat in widget["properties"]["metrics"]:
                yield board.name, (namespace, metric, frozenset(zip(flat[::2], flat[1::2], strict=True)))


def _in_dashboard(old: str, new: str) -> Callable[[Template], None]:
    def plant(template: Template) -> None:
        body = template.one("CloudWatch::Dashboard").get("DashboardBody")
        parts = body["Fn::Join"][1]
        parts[:] = [part.replace(old, new) if isinstance(part, str) else part for part in parts]

    return plant


@rule(
    "metrics.exist",
    "8",
    "alarms, scaling and the dashboard use series that a service writes or AWS lists",
    ("unknown metric", lambda template: _named(template, "drift").put("MetricName", "EquityDrift")),
    (
        "unknown dimension",
        lambda template: _named(template, "drift").put("Dimensions[Name=Service].Name", "ServiceName"),
    ),
    (
        "another's metric",
        lambda template: _named(template, "drift").put("Dimensions[Name=Service].Value", "websocket_server"),
    ),
    (
        "unknown of AWS",
        lambda template: _named(template, "healthy-servers").put("MetricName", "HealthyHosts"),
    ),
    (
        "scaling by nothing",
        lambda template: _policy(template, "connections").put(
            f"{TRACKING}.CustomizedMetricSpecification.MetricName", "ConnectionCount"
        ),
    ),
    ("dashboard of nothing", _in_dashboard('"FeedSilentSeconds"', '"FeedSilence"')),
)
def _exist(template: Template) -> Iterator[tuple[str, str]]:
    own = own_series(template)
    for user, (namespace, metric, dimensions) in used_series(template):
        names = {name for name, _ in dimensions}
        known = any(
            namespace == family.namespace and metric in family.names and names == set(family.dimensions)
            for family in FAMILIES
        )
        if (namespace, metric, dimensions) not in own and not known:
            yield user, f"nobody writes {namespace} {metric} with {', '.join(sorted(names))}"


@rule(
    "metrics.of-this-stack",
    "two stacks",
    "each series is told apart by something of this stack",
    (
        "another stack's",
        lambda template: _named(template, "drift").put("Dimensions[Name=Deployment].Value", "portfolio"),
    ),
)
def _of_this_stack(template: Template) -> Iterator[tuple[str, str]]:
    for user, (_, metric, dimensions) in used_series(template):
        if not any("<" in what for _, what in dimensions):
            yield user, f"{metric} would be that of another stack"


def _policy(template: Template, name: str) -> Resource:
    return next(one for one in template.all(POLICY) if text_of(one.get("PolicyName")).endswith(name))


@rule(
    "scaling.target",
    "8",
    "scales the WebSocket server's service, between its limits",
    ("another service", lambda template: template.one(TARGET).put("ResourceId", "service/cluster/other")),
    ("maximum below minimum", lambda template: template.one(TARGET).put("MaxCapacity", 1)),
)
def _target(template: Template) -> Iterator[tuple[str, str]]:
    target, server = template.one(TARGET), template.service("websocket_server")
    cluster = template.one("ECS::Cluster").name
    if (
        server is not None
        and text_of(target.get("ResourceId")) != f"service/<{cluster}>/<{server.name}.Name>"
    ):
        yield target.name, "must name the server's service"
    if not target.get("MinCapacity") <= target.get("MaxCapacity"):
        yield target.name, "its maximum is below its minimum"


@rule(
    "scaling.policies",
    "8",
    "by connections of each server and by processor",
    (
        "connections missing",
        lambda template: template.content["Resources"].pop(_policy(template, "connections").name),
    ),
    (
        "sum of all",
        lambda template: _policy(template, "connections").put(
            f"{TRACKING}.CustomizedMetricSpecification.Statistic", "Sum"
        ),
    ),
    ("never", lambda template: _policy(template, "cpu").put(f"{TRACKING}.TargetValue", 100)),
    (
        "by memory",
        lambda template: _policy(template, "cpu").put(
            f"{TRACKING}.PredefinedMetricSpecification.PredefinedMetricType",
            "ECSServiceAverageMemoryUtilization",
        ),
    ),
)
def _policies(template: Template) -> Iterator[tuple[str, str]]:
    customs = [one.get(f"{TRACKING}.CustomizedMetricSpecification") for one in template.all(POLICY)]
    statistics = [one["Statistic"] for one in customs if one is not ABSENT]
    if statistics != ["Average"]:
        yield "scaling", "one policy must follow the average of the servers' connections"
    kinds = [
        one.get(f"{TRACKING}.PredefinedMetricSpecification.PredefinedMetricType")
        for one in template.all(POLICY)
    ]
    if "ECSServiceAverageCPUUtilization" not in kinds:
        yield "scaling", "one policy must follow the processor"
    for policy in template.all(POLICY):
        aim, is_cpu = policy.get(f"{TRACKING}.TargetValue"), "Cpu" in policy.name
        if not (30 <= aim <= 75 if is_cpu else aim == SIZES[template.size].connections_per_server):
            yield policy.name, "its aim leaves no room until the new server is there"


def _schedule(path: str, wrong: Any) -> Callable[[Template], None]:
    return lambda template: template.one(TARGET).put(f"ScheduledActions[0].{path}", wrong)


@rule(
    "scaling.schedule",
    "cost",
    "weekdays by New York's clock, never fewer than two",
    ("five fields", _schedule("Schedule", "cron(0 9 ? * MON-FRI)")),
    ("two day fields", _schedule("Schedule", "cron(0 9 * * MON-FRI *)")),
    ("unknown zone", _schedule("Timezone", "America/New York")),
    (
        "one at night",
        lambda template: template.one(TARGET).put("ScheduledActions[1].ScalableTargetAction.MinCapacity", 1),
    ),
    ("none", lambda template: template.one(TARGET).put("ScheduledActions", [])),
)
def _schedules(template: Template) -> Iterator[tuple[str, str]]:
    target, size = template.one(TARGET), SIZES[template.size]
    actions = target.get("ScheduledActions")
    actions = [] if actions is ABSENT else actions
    if len(actions) != (0 if size.servers_by_day == SERVERS_MIN else 2):
        yield target.name, "raises the minimum before the open and lowers it after the close"
    for action in actions:
        fields = re.fullmatch(r"cron\((\S+) (\S+) (\S+) (\S+) (\S+) (\S+)\)", action["Schedule"])
        if fields is None or [fields[3], fields[5]].count("?") != 1:
            yield target.name, f"{action['Schedule']}: six fields, one of the two day fields `?`"
        if action["Timezone"] not in available_timezones():
            yield target.name, f"{action['Timezone']} is no zone"
        change = action["ScalableTargetAction"]
        if not SERVERS_MIN <= change["MinCapacity"] <= change["MaxCapacity"]:
            yield target.name, "fewer than two servers"
