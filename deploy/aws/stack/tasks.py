"""Task definitions and services on Fargate: each with its own role, secrets, group and log."""

from collections.abc import Mapping
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct
from deploy.aws.networks import cloudflare_networks
from deploy.aws.parameters import ARCHITECTURE, DATA_FEED, IMAGE_DIGEST, ORIGINS, SANDBOX
from deploy.aws.services import COMMON, HEALTH_COMMAND, IMAGE_USER, SERVICES, VALKEY_KEY, Service, title
from deploy.aws.sizes import LOG_DAYS, SERVER_PORT, STOP_TIMEOUT_S, VPC_NETWORK, Size
from deploy.aws.stack.common import imported
from deploy.aws.stack.network import Network
from deploy.aws.stack.valkey import Valkey
from deploy.aws.valkey_users import valkey_users

START_S = 60
TMP_MIB = 16
LOG_BUFFER = "4m"


class Tasks(Construct):
    """A cluster, and a task definition for each service and for people's commands."""

    def __init__(
        self,
        scope: Construct,
        size: Size,
        network: Network,
        valkey: Valkey,
        behind_cloudflare: cdk.CfnCondition,
    ) -> None:
        super().__init__(scope, "Tasks")
        self._size, self._network, self._valkey = size, network, valkey
        self._behind_cloudflare = behind_cloudflare
        self.cluster = ecs.CfnCluster(
            self,
            "Cluster",
            capacity_providers=["FARGATE", "FARGATE_SPOT"],
            cluster_settings=[
                ecs.CfnCluster.ClusterSettingsProperty(name="containerInsights", value="disabled")
            ],
        )
        self.services: dict[str, ecs.CfnService] = {}
        self.definitions: dict[str, ecs.CfnTaskDefinition] = {}
        for service in SERVICES:
            self.definitions[service.name] = self._task_definition(service)

    def run(self, service: Service, target_group: str | None, after: Construct | None) -> None:
        """Keep this service running, behind a target group where one is given."""
        more: dict[str, Any] = {}
        if target_group is not None:
            balancer = ecs.CfnService.LoadBalancerProperty(
                container_name=service.name, container_port=SERVER_PORT, target_group_arn=target_group
            )
            # Scaling says how many there are: a number here would be taken again at each deployment.
            more = {
                "load_balancers": [balancer],
                "health_check_grace_period_seconds": START_S,
                "availability_zone_rebalancing": "ENABLED",
            }
        else:
            more = {"desired_count": self._size.counts[service.name]}
        network = ecs.CfnService.AwsVpcConfigurationProperty(
            subnets=self._network.task_subnets,
            security_groups=[self._network.groups.tasks[service.name].attr_group_id],
            assign_public_ip="ENABLED" if self._network.tasks_are_public else "DISABLED",
        )
        provider = "FARGATE_SPOT" if service.is_on_spot else "FARGATE"
        made = ecs.CfnService(
            self,
            f"{title(service.name)}Service",
            cluster=self.cluster.ref,
            task_definition=self.definitions[service.name].ref,
            capacity_provider_strategy=[
                ecs.CfnService.CapacityProviderStrategyItemProperty(capacity_provider=provider, weight=1)
            ],
            platform_version="LATEST",
            network_configuration=ecs.CfnService.NetworkConfigurationProperty(awsvpc_configuration=network),
            # A second collector or consumer stands by until the lease is free: nobody waits for its start.
            deployment_configuration=ecs.CfnService.DeploymentConfigurationProperty(
                minimum_healthy_percent=100,
                maximum_percent=200,
                deployment_circuit_breaker=ecs.CfnService.DeploymentCircuitBreakerProperty(
                    enable=True, rollback=True
                ),
            ),
            enable_ecs_managed_tags=True,
            propagate_tags="SERVICE",
            **more,
        )
        made.node.add_dependency(self._network.way_out)  # a task without a route cannot pull its image
        if after is not None:
            made.node.add_dependency(after)
        self.services[service.name] = made

    def _task_definition(self, service: Service) -> ecs.CfnTaskDefinition:
        name, size = title(service.name), self._size.tasks[service.name]
        log = logs.CfnLogGroup(
            self,
            f"{name}Log",
            log_group_name=cdk.Fn.sub("/${AWS::StackName}/" + service.name),
            retention_in_days=LOG_DAYS,
        )
        secrets = self._secrets(service)
        role = self._execution_role(service, log, sorted({arn for arn, _ in secrets.values()}, key=str))
        return ecs.CfnTaskDefinition(
            self,
            f"{name}Task",
            family=cdk.Fn.sub("${AWS::StackName}-" + service.name.replace("_", "-")),
            requires_compatibilities=["FARGATE"],
            network_mode="awsvpc",
            runtime_platform=ecs.CfnTaskDefinition.RuntimePlatformProperty(
                cpu_architecture=cdk.Fn.ref(ARCHITECTURE.name), operating_system_family="LINUX"
            ),
            cpu=str(size.cpu),
            memory=str(size.memory_mib),
            execution_role_arn=role.role_arn,
            container_definitions=[self._container(service, log, secrets)],
        )

    def _container(
        self, service: Service, log: logs.CfnLogGroup, secrets: Mapping[str, tuple[str, str]]
    ) -> ecs.CfnTaskDefinition.ContainerDefinitionProperty:
        definition = ecs.CfnTaskDefinition
        more: dict[str, Any] = {}
        if service.is_server:
            more["port_mappings"] = [
                definition.PortMappingProperty(container_port=SERVER_PORT, protocol="tcp")
            ]
        if not service.is_kept_running:
            more["command"] = ["portfolio-realtime", "--help"]  # run-task --overrides says which one
        image = (
            "${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}/${Repository}@${"
            + IMAGE_DIGEST.name
            + "}"
        )
        return definition.ContainerDefinitionProperty(
            name=service.name,
            image=cdk.Fn.sub(image, {"Repository": imported("RepositoryName")}),
            essential=True,
            user=IMAGE_USER,
            readonly_root_filesystem=True,
            linux_parameters=definition.LinuxParametersProperty(
                init_process_enabled=True,
                capabilities=definition.KernelCapabilitiesProperty(drop=["ALL"]),
                tmpfs=[
                    definition.TmpfsProperty(
                        container_path="/tmp",  # noqa: S108  # in a container of its own
                        size=TMP_MIB,
                        mount_options=["noexec", "nosuid", "nodev"],
                    )
                ],
            ),
            stop_timeout=STOP_TIMEOUT_S,
            health_check=definition.HealthCheckProperty(
                command=list(HEALTH_COMMAND), interval=30, timeout=5, retries=3, start_period=START_S
            ),
            environment=[
                definition.KeyValuePairProperty(name=name, value=value)
                for name, value in sorted(self._environment(service).items())
            ],
            secrets=[
                definition.SecretProperty(name=name, value_from=cdk.Fn.join("", [arn, f":{key}::"]))
                for name, (arn, key) in sorted(secrets.items())
            ],
            log_configuration=definition.LogConfigurationProperty(
                log_driver="awslogs",
                options={
                    "awslogs-group": log.ref,
                    "awslogs-region": cdk.Aws.REGION,
                    "awslogs-stream-prefix": service.name,
                    "mode": "non-blocking",  # a service never waits for its log
                    "max-buffer-size": LOG_BUFFER,
                },
            ),
            **more,
        )

    def _environment(self, service: Service) -> dict[str, str]:
        settings = {
            **COMMON,
            **service.settings,
            "REDIS_HOST": self._valkey.replication_group.attr_primary_end_point_address,
            "REDIS_USER": valkey_users().user_of[service.name],
        }
        if service.is_kept_running:
            settings["SERVICE"] = service.name
            settings["EMF_DEPLOYMENT"] = cdk.Aws.STACK_NAME  # metrics of two stacks do not add up
        if service.asks_alpaca:
            settings["ALPACA_SANDBOX"] = cdk.Fn.ref(SANDBOX.name)
            settings["ALPACA_DATA_FEED"] = cdk.Fn.ref(DATA_FEED.name)
        if service.is_server:
            networks = cloudflare_networks()
            orange = ",".join([VPC_NETWORK, *networks.ipv4, *networks.ipv6])
            settings["ALLOWED_ORIGINS"] = cdk.Fn.ref(ORIGINS.name)
            settings["TRUSTED_PROXIES"] = cdk.Token.as_string(
                cdk.Fn.condition_if(self._behind_cloudflare.logical_id, orange, VPC_NETWORK)
            )
        return settings

    def _secrets(self, service: Service) -> dict[str, tuple[str, str]]:
        """Setting -> the secret's ARN, and the key of its JSON."""
        password = self._valkey.secrets[valkey_users().user_of[service.name]].ref
        found = {VALKEY_KEY: (password, VALKEY_KEY)}
        for owner, keys in service.secrets.items():
            arn = imported(f"{owner.capitalize()}SecretArn")
            found.update({key: (arn, key) for key in keys})
        return found

    def _execution_role(self, service: Service, log: logs.CfnLogGroup, secrets: list[str]) -> iam.Role:
        """Starts this task and no other; the task itself has no role, for the services ask AWS nothing."""
        statements = [
            iam.PolicyStatement(actions=["secretsmanager:GetSecretValue"], resources=secrets),
            iam.PolicyStatement(
                actions=["logs:CreateLogStream", "logs:PutLogEvents"],
                resources=[log.attr_arn],  # which ends in :*
            ),
            iam.PolicyStatement(
                actions=[
                    "ecr:BatchCheckLayerAvailability",
                    "ecr:BatchGetImage",
                    "ecr:GetDownloadUrlForLayer",
                ],
                resources=[imported("RepositoryArn")],
            ),
            # This action knows no resource.
            iam.PolicyStatement(actions=["ecr:GetAuthorizationToken"], resources=["*"]),
        ]
        return iam.Role(
            self,
            f"{title(service.name)}Starter",
            assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"),
            inline_policies={"start": iam.PolicyDocument(statements=statements)},
        )
