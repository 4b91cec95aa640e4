"""How many servers there are: by connections of each and by processor, and more of them by day."""

import aws_cdk as cdk
from aws_cdk import aws_applicationautoscaling as scaling
from constructs import Construct
from deploy.aws.metrics import NAMESPACE
from deploy.aws.sizes import SERVERS_MIN, Size
from deploy.aws.stack.tasks import Tasks
from deploy.aws.stack.watch import own_dimensions

CPU_TARGET = 60.0
OUT_COOLDOWN_S = 60
IN_COOLDOWN_S = 900  # which task goes cannot be chosen, and its clients must reconnect
ZONE = "America/New_York"
BEFORE_OPEN = "cron(0 9 ? * MON-FRI *)"  # opens at 9:30; on a holiday a few cents are wasted
AFTER_CLOSE = "cron(0 17 ? * MON-FRI *)"


class Scaling(Construct):
    """Target tracking for the WebSocket server, never fewer than two."""

    def __init__(self, scope: Construct, size: Size, tasks: Tasks) -> None:
        super().__init__(scope, "Scaling")
        service = tasks.services["websocket_server"]
        self._target = scaling.CfnScalableTarget(
            self,
            "Servers",
            service_namespace="ecs",
            scalable_dimension="ecs:service:DesiredCount",
            resource_id=cdk.Fn.join("/", ["service", tasks.cluster.ref, service.attr_name]),
            min_capacity=SERVERS_MIN,
            max_capacity=size.servers_max,
            scheduled_actions=self._by_day(size),
        )
        policy = scaling.CfnScalingPolicy
        self._follow(
            "Connections",
            size.connections_per_server,
            customized_metric_specification=policy.CustomizedMetricSpecificationProperty(
                namespace=NAMESPACE,
                metric_name="Connections",
                statistic="Average",  # of the values that each server writes: connections per task
                dimensions=[
                    policy.MetricDimensionProperty(name=name, value=value)
                    for name, value in own_dimensions("websocket_server").items()
                ],
            ),
        )
        self._follow(
            "Cpu",
            CPU_TARGET,
            predefined_metric_specification=policy.PredefinedMetricSpecificationProperty(
                predefined_metric_type="ECSServiceAverageCPUUtilization"
            ),
        )

    def _by_day(self, size: Size) -> list[scaling.CfnScalableTarget.ScheduledActionProperty] | None:
        if size.servers_by_day == SERVERS_MIN:
            return None
        return [
            scaling.CfnScalableTarget.ScheduledActionProperty(
                scheduled_action_name=name,
                schedule=schedule,
                timezone=ZONE,
                scalable_target_action=scaling.CfnScalableTarget.ScalableTargetActionProperty(
                    min_capacity=least, max_capacity=size.servers_max
                ),
            )
            for name, schedule, least in (
                ("before-open", BEFORE_OPEN, size.servers_by_day),
                ("after-close", AFTER_CLOSE, SERVERS_MIN),
            )
        ]

    def _follow(self, name: str, target: float, **metric: object) -> None:
        scaling.CfnScalingPolicy(
            self,
            f"By{name}",
            policy_name=cdk.Fn.sub("${AWS::StackName}-by-" + name.lower()),
            policy_type="TargetTrackingScaling",
            scaling_target_id=self._target.ref,
            target_tracking_scaling_policy_configuration=scaling.CfnScalingPolicy.TargetTrackingScalingPolicyConfigurationProperty(
                target_value=target,
                scale_out_cooldown=OUT_COOLDOWN_S,
                scale_in_cooldown=IN_COOLDOWN_S,
                **metric,  # pyright: ignore[reportArgumentType]  # one of the two kinds
            ),
        )
