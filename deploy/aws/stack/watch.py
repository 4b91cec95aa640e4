"""Alarms, the topic that tells people, and the dashboard."""

from collections.abc import Iterator
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from constructs import Construct
from deploy.aws.alarms import Alarm, alarms
from deploy.aws.metrics import BALANCER, DEPLOYMENT, ECS, NAMESPACE, OWN, SERVICE, TARGETS, VALKEY
from deploy.aws.parameters import ALERT_EMAIL
from deploy.aws.services import KEPT_RUNNING
from deploy.aws.sizes import Size
from deploy.aws.stack.balancer import Balancer
from deploy.aws.stack.tasks import Tasks
from deploy.aws.stack.valkey import Valkey

WIDTH, HEIGHT, COLUMNS = 8, 6, 3


class Watch(Construct):
    """What people are told, and where they look."""

    def __init__(
        self, scope: Construct, size: Size, tasks: Tasks, balancer: Balancer, valkey: Valkey
    ) -> None:
        super().__init__(scope, "Watch")
        self._tasks, self._balancer, self._valkey, self._size = tasks, balancer, valkey, size
        topic = self._topic()
        for alarm in alarms(size):
            self._alarm(alarm, topic)
        self._dashboard()

    def _topic(self) -> str:
        # Not encrypted: alarms could not use AWS's own key, and their names are no secret.
        topic = sns.CfnTopic(self, "Alerts")
        sns.CfnSubscription(
            self, "AlertMail", topic_arn=topic.ref, protocol="email", endpoint=cdk.Fn.ref(ALERT_EMAIL.name)
        )
        sns.CfnTopicPolicy(
            self,
            "AlertsPolicy",
            topics=[topic.ref],
            policy_document=iam.PolicyDocument(
                statements=[
                    iam.PolicyStatement(
                        actions=["sns:Publish"],
                        principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                        resources=[topic.ref],
                        conditions={"StringEquals": {"aws:SourceAccount": cdk.Aws.ACCOUNT_ID}},
                    ),
                    iam.PolicyStatement(
                        effect=iam.Effect.DENY,
                        actions=["sns:Publish"],
                        principals=[iam.AnyPrincipal()],
                        resources=[topic.ref],
                        conditions={"Bool": {"aws:SecureTransport": "false"}},
                    ),
                ]
            ),
        )
        return topic.ref

    def _alarm(self, alarm: Alarm, topic: str) -> None:
        namespace, dimensions = self._series(alarm)
        cloudwatch.CfnAlarm(
            self,
            "".join(word.capitalize() for word in alarm.name.split("-")),
            alarm_name=cdk.Fn.sub("${AWS::StackName}-" + alarm.name),
            alarm_description=alarm.description,
            namespace=namespace,
            metric_name=alarm.metric,
            dimensions=[
                cloudwatch.CfnAlarm.DimensionProperty(name=name, value=value)
                for name, value in dimensions.items()
            ],
            statistic=alarm.statistic,
            period=alarm.period_s,
            comparison_operator=alarm.comparison,
            threshold=alarm.threshold,
            datapoints_to_alarm=alarm.datapoints,
            evaluation_periods=alarm.periods,
            treat_missing_data=alarm.missing,
            alarm_actions=[topic],
            ok_actions=[topic],
        )

    def _series(self, alarm: Alarm) -> tuple[str, dict[str, str]]:
        if alarm.kind == "own":
            return NAMESPACE, own_dimensions(alarm.of)
        if alarm.kind == "service":
            return ECS.namespace, self._of_service(alarm.of)
        if alarm.kind == "node":
            return VALKEY.namespace, self._of_node(alarm.of)
        family = BALANCER if alarm.kind == "balancer" else TARGETS
        return family.namespace, self._of_balancer(with_targets=alarm.kind == "targets")

    def _of_service(self, name: str) -> dict[str, str]:
        return {"ClusterName": self._tasks.cluster.ref, "ServiceName": self._tasks.services[name].attr_name}

    def _of_node(self, number: str) -> dict[str, str]:
        return {"CacheClusterId": cdk.Fn.join("-", [self._valkey.replication_group.ref, number])}

    def _of_balancer(self, *, with_targets: bool) -> dict[str, str]:
        found = {"LoadBalancer": self._balancer.load_balancer.attr_load_balancer_full_name}
        if with_targets:
            found["TargetGroup"] = self._balancer.target_group.attr_target_group_full_name
        return found

    def _dashboard(self) -> None:
        widgets = [
            {
                "type": "metric",
                "x": number % COLUMNS * WIDTH,
                "y": number // COLUMNS * HEIGHT,
                "width": WIDTH,
                "height": HEIGHT,
                "properties": {
                    "title": title,
                    "region": cdk.Aws.REGION,
                    "view": "timeSeries",
                    "stat": statistic,
                    "period": 60,
                    "metrics": [
                        _row(namespace, metric, dimensions) for namespace, metric, dimensions in rows
                    ],
                },
            }
            for number, (title, statistic, rows) in enumerate(self._charts())
        ]
        cloudwatch.CfnDashboard(
            self,
            "Dashboard",
            dashboard_name=cdk.Aws.STACK_NAME,
            dashboard_body=cdk.Stack.of(self).to_json_string({"widgets": widgets}),
        )

    def _charts(self) -> Iterator[tuple[str, str, list[tuple[str, str, dict[str, str]]]]]:
        names = [service.name for service in KEPT_RUNNING]
        nodes = [f"{number:03d}" for number in range(1, self._size.replicas + 2)]
        for metric in ("CPUUtilization", "MemoryUtilization"):
            yield metric, "Average", [(ECS.namespace, metric, self._of_service(name)) for name in names]
        for metric, statistic in (
            ("Connections", "Sum"),
            ("Reconnects", "Sum"),
            ("SlowConsumers", "Sum"),
            ("FeedSilentSeconds", "Maximum"),
            ("EventStreamLagSeconds", "Maximum"),
            ("EquityDriftRatio", "Maximum"),
            ("StaleAccounts", "Maximum"),
            ("Errors", "Sum"),
        ):
            writers = [name for name in names if metric in OWN[name]]
            yield metric, statistic, [(NAMESPACE, metric, own_dimensions(name)) for name in writers]
        for metric in (
            "EngineCPUUtilization",
            "DatabaseMemoryUsagePercentage",
            "Evictions",
            "ReplicationLag",
        ):
            yield metric, "Average", [(VALKEY.namespace, metric, self._of_node(number)) for number in nodes]
        yield (
            "Healthy servers",
            "Minimum",
            [(TARGETS.namespace, "HealthyHostCount", self._of_balancer(with_targets=True))],
        )


def own_dimensions(service: str) -> dict[str, str]:
    """What tells the series of one service in one installation from all others."""
    return {DEPLOYMENT: cdk.Aws.STACK_NAME, SERVICE: service}


def _row(namespace: str, metric: str, dimensions: dict[str, str]) -> list[Any]:
    flat = [part for pair in dimensions.items() for part in pair]
    return [namespace, metric, *flat]
