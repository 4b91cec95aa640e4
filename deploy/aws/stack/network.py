"""The network: two zones, who stands in which subnets, and which group may reach which."""

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct, DependencyGroup
from deploy.aws.networks import cloudflare_networks
from deploy.aws.services import SERVICES, title
from deploy.aws.sizes import LOG_DAYS, SERVER_PORT, VALKEY_PORT, VPC_NETWORK, Size

HTTPS = 443
ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class Groups:
    """Security groups; none may do more than what is said here."""

    balancer: ec2.CfnSecurityGroup
    valkey: ec2.CfnSecurityGroup
    tasks: dict[str, ec2.CfnSecurityGroup]


class Network(Construct):
    """Public subnets for the balancer, the tasks' own, and subnets without a way out for Valkey."""

    def __init__(self, scope: Construct, size: Size, behind_cloudflare: cdk.CfnCondition) -> None:
        super().__init__(scope, "Network")
        subnets = [ec2.SubnetConfiguration(name="Public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=22)]
        if size.has_private_tasks:
            private = ec2.SubnetType.PRIVATE_WITH_EGRESS
            subnets.append(ec2.SubnetConfiguration(name="Tasks", subnet_type=private, cidr_mask=22))
        isolated = ec2.SubnetType.PRIVATE_ISOLATED
        subnets.append(ec2.SubnetConfiguration(name="Valkey", subnet_type=isolated, cidr_mask=24))
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(VPC_NETWORK),
            max_azs=2,
            nat_gateways=1 if size.has_private_tasks else 0,
            subnet_configuration=subnets,
            restrict_default_security_group=False,  # would take a Lambda function
        )
        for subnet in self.vpc.public_subnets:
            child = subnet.node.default_child
            assert isinstance(child, ec2.CfnSubnet)
            child.map_public_ip_on_launch = False  # tasks say it themselves
        self._log_refused()
        self.tasks_are_public = not size.has_private_tasks
        self.public_subnets = [subnet.subnet_id for subnet in self.vpc.public_subnets]
        private_subnets = [subnet.subnet_id for subnet in self.vpc.private_subnets]
        self.task_subnets = private_subnets if size.has_private_tasks else self.public_subnets
        behind = self.vpc.private_subnets if size.has_private_tasks else self.vpc.public_subnets
        self.way_out = DependencyGroup()
        self.way_out.add(self.vpc.internet_connectivity_established)
        for subnet in behind:
            self.way_out.add(subnet.internet_connectivity_established)
        self.valkey_subnets = [subnet.subnet_id for subnet in self.vpc.isolated_subnets]
        self.groups = self._groups()
        self._open_balancer(behind_cloudflare)

    def _log_refused(self) -> None:
        group = logs.CfnLogGroup(
            self,
            "RefusedLog",
            log_group_name=cdk.Fn.sub("/${AWS::StackName}/refused-traffic"),
            retention_in_days=LOG_DAYS,
        )
        writer = iam.Role(
            self,
            "RefusedLogWriter",
            assumed_by=iam.ServicePrincipal("vpc-flow-logs.amazonaws.com"),
            inline_policies={
                "write": iam.PolicyDocument(
                    statements=[
                        iam.PolicyStatement(
                            actions=["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"],
                            resources=[group.attr_arn],
                        )
                    ]
                )
            },
        )
        ec2.CfnFlowLog(
            self,
            "RefusedTraffic",
            resource_id=self.vpc.vpc_id,
            resource_type="VPC",
            traffic_type="REJECT",
            log_group_name=group.ref,
            deliver_logs_permission_arn=writer.role_arn,
        )

    def _group(self, name: str, description: str) -> ec2.CfnSecurityGroup:
        nothing = ec2.CfnSecurityGroup.EgressProperty(  # an empty list would mean: everything
            ip_protocol="icmp", from_port=252, to_port=86, cidr_ip="255.255.255.255/32", description="nothing"
        )
        return ec2.CfnSecurityGroup(
            self,
            name,
            group_description=description,
            vpc_id=self.vpc.vpc_id,
            security_group_egress=[nothing],
        )

    def _groups(self) -> Groups:
        balancer = self._group("BalancerGroup", "Load balancer: 443 from clients, 8001 to the servers")
        valkey = self._group("ValkeyGroup", "Valkey: 6379 from the services")
        tasks: dict[str, ec2.CfnSecurityGroup] = {}
        for service in SERVICES:
            name = title(service.name)
            group = tasks[service.name] = self._group(f"{name}Group", f"{service.name}: 443 and Valkey out")
            # Images, secrets and logs come and go by 443; two of them ask Alpaca there.
            ec2.CfnSecurityGroupEgress(
                self,
                f"{name}ToHttps",
                group_id=group.attr_group_id,
                ip_protocol="tcp",
                from_port=HTTPS,
                to_port=HTTPS,
                cidr_ip=ANYWHERE,
                description="HTTPS",
            )
            self._connect(f"{name}ToValkey", group, valkey, VALKEY_PORT, f"{service.name} to Valkey")
            if service.is_server:
                self._connect("BalancerToServer", balancer, group, SERVER_PORT, "balancer to servers")
        return Groups(balancer, valkey, tasks)

    def _connect(
        self, name: str, source: ec2.CfnSecurityGroup, target: ec2.CfnSecurityGroup, port: int, what: str
    ) -> None:
        ec2.CfnSecurityGroupEgress(
            self,
            f"{name}Out",
            group_id=source.attr_group_id,
            destination_security_group_id=target.attr_group_id,
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            description=what,
        )
        ec2.CfnSecurityGroupIngress(
            self,
            f"{name}In",
            group_id=target.attr_group_id,
            source_security_group_id=source.attr_group_id,
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            description=what,
        )

    def _open_balancer(self, behind_cloudflare: cdk.CfnCondition) -> None:
        """443 from everywhere while the record is grey, then from Cloudflare's networks alone."""
        networks = cloudflare_networks().ipv4
        listed = ec2.CfnPrefixList(
            self,
            "CloudflareNetworks",
            prefix_list_name=cdk.Fn.sub("${AWS::StackName}-cloudflare"),
            address_family="IPv4",
            max_entries=len(networks) + 5,
            entries=[ec2.CfnPrefixList.EntryProperty(cidr=network) for network in networks],
        )
        everybody = cdk.CfnCondition(
            self, "OpenToEverybody", expression=cdk.Fn.condition_not(behind_cloudflare)
        )
        everybody.override_logical_id("OpenToEverybody")
        common = {
            "group_id": self.groups.balancer.attr_group_id,
            "ip_protocol": "tcp",
            "from_port": HTTPS,
            "to_port": HTTPS,
        }
        grey = ec2.CfnSecurityGroupIngress(
            self, "FromEverybody", **common, cidr_ip=ANYWHERE, description="clients, directly"
        )
        grey.cfn_options.condition = everybody
        orange = ec2.CfnSecurityGroupIngress(
            self,
            "FromCloudflare",
            **common,
            source_prefix_list_id=listed.attr_prefix_list_id,
            description="clients, through Cloudflare",
        )
        orange.cfn_options.condition = behind_cloudflare
