"""The load balancer: HTTPS on 443, and the servers behind it."""

from aws_cdk import aws_elasticloadbalancingv2 as elb
from constructs import Construct
from deploy.aws.sizes import SERVER_PORT
from deploy.aws.stack.common import imported
from deploy.aws.stack.network import HTTPS, Network

IDLE_S = (
    300  # the server pings each connection every 20 to 25 s; the default of 60 would do, with little room
)
TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"
DEREGISTRATION_S = 120  # as long as a task may take to end


class Balancer(Construct):
    """An Application Load Balancer with one listener and one target group."""

    def __init__(self, scope: Construct, network: Network) -> None:
        super().__init__(scope, "Balancer")
        self.load_balancer = elb.CfnLoadBalancer(
            self,
            "LoadBalancer",
            type="application",
            scheme="internet-facing",
            ip_address_type="ipv4",
            subnets=network.public_subnets,
            security_groups=[network.groups.balancer.attr_group_id],
            load_balancer_attributes=[
                elb.CfnLoadBalancer.LoadBalancerAttributeProperty(key=key, value=value)
                for key, value in {
                    "deletion_protection.enabled": "true",
                    "idle_timeout.timeout_seconds": str(IDLE_S),
                    "routing.http.drop_invalid_header_fields.enabled": "true",
                    "routing.http2.enabled": "true",
                }.items()
            ],
        )
        self.load_balancer.node.add_dependency(network.vpc.internet_connectivity_established)
        self.target_group = elb.CfnTargetGroup(
            self,
            "Servers",
            vpc_id=network.vpc.vpc_id,
            target_type="ip",
            protocol="HTTP",
            protocol_version="HTTP1",
            port=SERVER_PORT,
            # Not /ready, which says no while Valkey is away: ECS would end every server.
            health_check_enabled=True,
            health_check_path="/health",
            health_check_protocol="HTTP",
            health_check_port="traffic-port",
            health_check_interval_seconds=30,
            health_check_timeout_seconds=5,
            unhealthy_threshold_count=2,
            healthy_threshold_count=3,
            matcher=elb.CfnTargetGroup.MatcherProperty(http_code="200"),
            target_group_attributes=[
                elb.CfnTargetGroup.TargetGroupAttributeProperty(key=key, value=value)
                for key, value in {
                    "deregistration_delay.timeout_seconds": str(DEREGISTRATION_S),
                    "load_balancing.algorithm.type": "least_outstanding_requests",
                }.items()
            ],
        )
        self.listener = elb.CfnListener(
            self,
            "Https",
            load_balancer_arn=self.load_balancer.ref,
            port=HTTPS,
            protocol="HTTPS",
            ssl_policy=TLS_POLICY,
            certificates=[elb.CfnListener.CertificateProperty(certificate_arn=imported("CertificateArn"))],
            default_actions=[
                elb.CfnListener.ActionProperty(type="forward", target_group_arn=self.target_group.ref)
            ],
        )
