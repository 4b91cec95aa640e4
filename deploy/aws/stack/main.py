"""The stack of the services: network, Valkey, tasks, balancer, scaling, alarms."""

from typing import Any

import aws_cdk as cdk
from constructs import Construct
from deploy.aws.parameters import CLOUDFLARE, MAIN_PARAMETERS
from deploy.aws.services import KEPT_RUNNING
from deploy.aws.sizes import Size
from deploy.aws.stack.balancer import Balancer
from deploy.aws.stack.common import add_parameter, imported
from deploy.aws.stack.network import Network
from deploy.aws.stack.scaling import Scaling
from deploy.aws.stack.tasks import Tasks
from deploy.aws.stack.valkey import Valkey
from deploy.aws.stack.watch import Watch


class MainStack(cdk.Stack):
    """Everything that costs by the hour."""

    def __init__(self, scope: Construct, name: str, size: Size, **options: Any) -> None:
        super().__init__(scope, name, **options)
        for parameter in MAIN_PARAMETERS:
            add_parameter(self, parameter)
        behind_cloudflare = cdk.CfnCondition(
            self,
            "IsBehindCloudflare",
            expression=cdk.Fn.condition_equals(cdk.Fn.ref(CLOUDFLARE.name), "yes"),
        )
        network = Network(self, size, behind_cloudflare)
        valkey = Valkey(self, size, network)
        tasks = Tasks(self, size, network, valkey, behind_cloudflare)
        balancer = Balancer(self, network)
        for service in KEPT_RUNNING:
            target = balancer.target_group.ref if service.is_server else None
            tasks.run(service, target, balancer.listener if service.is_server else None)
        Scaling(self, size, tasks)
        Watch(self, size, tasks, balancer, valkey)
        cdk.CfnOutput(
            self,
            "BalancerName",
            value=balancer.load_balancer.attr_dns_name,
            description="Target of the CNAME record at Cloudflare",
        )
        cdk.CfnOutput(
            self,
            "WebSocketUrl",
            value=cdk.Fn.join("", ["wss://", imported("DomainName")]),
            description="NEXT_PUBLIC_WEBSOCKET_URL of the page",
        )
        cdk.CfnOutput(self, "Cluster", value=tasks.cluster.ref, description="aws ecs run-task --cluster")
