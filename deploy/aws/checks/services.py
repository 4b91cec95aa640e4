"""Step 4 of the guide, the services, and step 9: the roles that start them."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from deploy.aws.checks.environment import secrets_of
from deploy.aws.checks.registry import is_between, is_exactly, rule, value
from deploy.aws.checks.template import ABSENT, Resource, Template, container, refers, text_of
from deploy.aws.services import KEPT_RUNNING
from deploy.aws.sizes import SIZES

SERVICE: Final = "ECS::Service"
PULL: Final = frozenset(
    {"ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}
)
WRITE: Final = frozenset({"logs:CreateLogStream", "logs:PutLogEvents"})

value(
    "service.circuit-breaker",
    "field",
    SERVICE,
    "DeploymentConfiguration.DeploymentCircuitBreaker",
    is_exactly({"Enable": True, "Rollback": True}),
    ({"Enable": True, "Rollback": False}, ABSENT),
    "a broken image is rolled back",
)
value(
    "service.healthy-percent",
    "field",
    SERVICE,
    "DeploymentConfiguration.MinimumHealthyPercent",
    is_exactly(100),
    (50, 0),
    "a deployment never leaves fewer than wanted",
)
value(
    "service.maximum-percent",
    "limits",
    SERVICE,
    "DeploymentConfiguration.MaximumPercent",
    is_exactly(200),
    (100,),
    "with 100 and 100 a deployment can never move",
)
value(
    "service.launch-type",
    "limits",
    SERVICE,
    "LaunchType",
    lambda found: found is ABSENT,
    ("FARGATE",),
    "a launch type and a strategy exclude each other",
)
value(
    "service.platform",
    "limits",
    SERVICE,
    "PlatformVersion",
    lambda found: found in ("LATEST", "1.4.0"),
    ("1.3.0",),
    "JSON keys of secrets need 1.4.0",
)
value(
    "cluster.providers",
    "limits",
    "ECS::Cluster",
    "CapacityProviders",
    lambda found: set(found) == {"FARGATE", "FARGATE_SPOT"},
    (["FARGATE-SPOT", "FARGATE"], ["FARGATE"], ABSENT),
    "both providers exist before a service asks for them",
)


def _service(template: Template, name: str) -> Resource:
    found = template.service(name)
    assert found is not None
    return found


def _put(name: str, path: str, wrong: Any) -> Callable[[Template], None]:
    return lambda template: _service(template, name).put(path, wrong)


@rule(
    "service.each",
    "4",
    "a service for each of the four task definitions",
    (
        "none for the consumer",
        lambda template: template.content["Resources"].pop(_service(template, "market_data_consumer").name),
    ),
)
def _each(template: Template) -> Iterator[tuple[str, str]]:
    for service in KEPT_RUNNING:
        if template.service(service.name) is None:
            yield service.name, "no service runs it"


@rule(
    "service.counts",
    "4",
    "1 collector, 1 consumer, 1 to 2 calculators; how many servers, scaling says",
    ("no collector", _put("symbol_collector", "DesiredCount", 0)),
    ("five calculators", _put("portfolio_calculator", "DesiredCount", 5)),
    ("servers fixed", _put("websocket_server", "DesiredCount", 1)),
)
def _counts(template: Template) -> Iterator[tuple[str, str]]:
    for service in KEPT_RUNNING:
        made = template.service(service.name)
        wanted = ABSENT if service.is_server else SIZES[template.size].counts[service.name]
        if made is not None and made.get("DesiredCount") != wanted:
            shown = (
                "left out: each deployment would take back what scaling chose"
                if service.is_server
                else wanted
            )
            yield service.name, f"DesiredCount must be {shown}"


@rule(
    "service.spot",
    "cost",
    "the collector runs on Spot, servers never do",
    (
        "server on Spot",
        _put("websocket_server", "CapacityProviderStrategy[0].CapacityProvider", "FARGATE_SPOT"),
    ),
    ("collector not", _put("symbol_collector", "CapacityProviderStrategy[0].CapacityProvider", "FARGATE")),
    (
        "unknown provider",
        _put("symbol_collector", "CapacityProviderStrategy[0].CapacityProvider", "FARGATE-SPOT"),
    ),
)
def _spot(template: Template) -> Iterator[tuple[str, str]]:
    for service in KEPT_RUNNING:
        made = template.service(service.name)
        wanted = "FARGATE_SPOT" if service.is_on_spot else "FARGATE"
        if made is not None and made.get("CapacityProviderStrategy[0].CapacityProvider") != wanted:
            yield service.name, f"must run on {wanted}"


@rule(
    "service.network",
    "4",
    "in the tasks' subnets, with a public address only where there is no NAT",
    (
        "no address",
        _put("websocket_server", "NetworkConfiguration.AwsvpcConfiguration.AssignPublicIp", "MAYBE"),
    ),
    (
        "Valkey's subnets",
        lambda template: _service(template, "websocket_server").put(
            "NetworkConfiguration.AwsvpcConfiguration.Subnets",
            template.one("ElastiCache::SubnetGroup").get("SubnetIds"),
        ),
    ),
    (
        "another's group",
        lambda template: _service(template, "websocket_server").put(
            "NetworkConfiguration.AwsvpcConfiguration.SecurityGroups",
            _service(template, "symbol_collector").get(
                "NetworkConfiguration.AwsvpcConfiguration.SecurityGroups"
            ),
        ),
    ),
)
def _network(template: Template) -> Iterator[tuple[str, str]]:
    is_private = SIZES[template.size].has_private_tasks
    valkey = {refers(subnet) for subnet in template.one("ElastiCache::SubnetGroup").get("SubnetIds")}
    public = {
        refers(subnet) for subnet in template.one("ElasticLoadBalancingV2::LoadBalancer").get("Subnets")
    }
    groups: list[str] = []
    for service in KEPT_RUNNING:
        made = template.service(service.name)
        if made is None:
            continue
        network = made.get("NetworkConfiguration.AwsvpcConfiguration")
        subnets = {refers(subnet) for subnet in network["Subnets"]}
        groups += [refers(group) for group in network["SecurityGroups"]]
        if network["AssignPublicIp"] != ("DISABLED" if is_private else "ENABLED"):
            yield service.name, "AssignPublicIp must fit the subnets, or nothing can be pulled"
        if subnets & valkey or len(subnets) < 2 or bool(subnets & public) == is_private:
            yield service.name, "stands in the wrong subnets"
    if len(set(groups)) != len(KEPT_RUNNING):
        yield "services", "each needs one security group of its own"


@rule(
    "service.balancer",
    "5",
    "the servers' container and port stand behind the target group",
    ("another name", _put("websocket_server", "LoadBalancers[0].ContainerName", "server")),
    ("another port", _put("websocket_server", "LoadBalancers[0].ContainerPort", 8000)),
    ("none", _put("websocket_server", "LoadBalancers", ABSENT)),
)
def _balancer(template: Template) -> Iterator[tuple[str, str]]:
    made, task = template.service("websocket_server"), template.task("websocket_server")
    ports = {mapping["ContainerPort"] for mapping in container(task).get("PortMappings", [])}
    target = template.one("ElasticLoadBalancingV2::TargetGroup")
    listed = made.properties.get("LoadBalancers", []) if made is not None else []
    if not listed:
        yield "websocket_server", "must stand behind the balancer"
    for one in listed:
        if one["ContainerName"] != container(task)["Name"] or one["ContainerPort"] not in ports:
            yield "websocket_server", "container name and port must be those of the task definition"
        if refers(one["TargetGroupArn"]) != target.name or target.get("Port") != one["ContainerPort"]:
            yield "websocket_server", "must stand behind the target group, at its port"


value(
    "service.grace",
    "5",
    SERVICE,
    "HealthCheckGracePeriodSeconds",
    is_between(30, 600),
    (0, ABSENT),
    "a server is not ended while it starts",
    of=lambda service: service.get("LoadBalancers") is not ABSENT,
)
value(
    "service.zones",
    "field",
    SERVICE,
    "AvailabilityZoneRebalancing",
    is_exactly("ENABLED"),
    ("DISABLED", ABSENT),
    "servers spread over the zones again after one was lost",
    of=lambda service: service.get("LoadBalancers") is not ABSENT,
)


@rule(
    "service.after-listener",
    "pitfalls",
    "the servers are made after the listener, or ECS refuses the target group",
    ("no dependency", lambda template: _service(template, "websocket_server").body.pop("DependsOn")),
)
def _after_listener(template: Template) -> Iterator[tuple[str, str]]:
    made = template.service("websocket_server")
    listener = template.one("ElasticLoadBalancingV2::Listener").name
    if made is not None and listener not in made.body.get("DependsOn", []):
        yield made.name, "must depend on the listener"


@rule(
    "service.after-route",
    "pitfalls",
    "services are made after their way out, or the first tasks cannot pull",
    ("no dependency", lambda template: _service(template, "symbol_collector").body.pop("DependsOn")),
)
def _after_route(template: Template) -> Iterator[tuple[str, str]]:
    routes = {route.name for route in template.all("EC2::Route")}
    for made in template.all(SERVICE):
        if not routes & set(made.body.get("DependsOn", [])):
            yield made.name, "must depend on the route of its subnets"


def role_of(template: Template, task: Resource) -> Resource | None:
    """The execution role of a task definition."""
    return template.named(refers(task.get("ExecutionRoleArn")))


def statements(role: Resource) -> Iterator[tuple[set[str], set[str]]]:
    """Actions and resources (as text) of each statement of a role's own policies."""
    for policy in role.properties.get("Policies", []):
        for statement in policy["PolicyDocument"]["Statement"]:
            actions, resources = statement["Action"], statement["Resource"]
            yield (
                {actions} if isinstance(actions, str) else set(actions),
                {text_of(one) for one in (resources if isinstance(resources, list) else [resources])},
            )


def _first_statement(template: Template, service: str) -> dict[str, Any]:
    role = role_of(template, template.task(service))
    assert role is not None
    return role.properties["Policies"][0]["PolicyDocument"]["Statement"][0]


@rule(
    "role.own",
    "9",
    "each task definition has an execution role of its own",
    (
        "shared",
        lambda template: template.task("operator").put(
            "ExecutionRoleArn", template.task("symbol_collector").get("ExecutionRoleArn")
        ),
    ),
    ("none", lambda template: template.task("operator").put("ExecutionRoleArn", ABSENT)),
)
def _own(template: Template) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for task in template.all("ECS::TaskDefinition"):
        role = role_of(template, task)
        if role is None or role.name in seen:
            yield task.name, "needs an execution role of its own: it pulls, reads secrets and writes the log"
        else:
            seen.add(role.name)


@rule(
    "role.secrets",
    "9",
    "a role reads exactly the secrets of its task",
    ("one missing", lambda template: _first_statement(template, "websocket_server")["Resource"].pop()),
    ("all of them", lambda template: _first_statement(template, "websocket_server").update(Resource="*")),
    (
        "another's",
        lambda template: _first_statement(template, "websocket_server")["Resource"].append(
            {"Fn::ImportValue": {"Fn::Sub": "${BaseStack}-AlpacaSecretArn"}}
        ),
    ),
)
def _role_secrets(template: Template) -> Iterator[tuple[str, str]]:
    for task in template.all("ECS::TaskDefinition"):
        role = role_of(template, task)
        if role is None:
            continue
        wanted = {origin.split(">:")[0] + ">" for origin in secrets_of(task).values()}
        found = {
            resource
            for actions, resources in statements(role)
            if "secretsmanager:GetSecretValue" in actions
            for resource in resources
        }
        if wanted != found:
            yield role.name, "may read other secrets than those of its task"


def _act(actions: Any) -> Callable[[Template], None]:
    return lambda template: _first_statement(template, "websocket_server").update(Action=actions)


@rule(
    "role.actions",
    "9",
    "a role pulls, reads its secrets and writes its log, and nothing else",
    ("all secrets", _act("secretsmanager:*")),
    ("everything", _act("*")),
    ("one more", _act(["secretsmanager:GetSecretValue", "kms:Decrypt"])),
)
def _actions(template: Template) -> Iterator[tuple[str, str]]:
    allowed = PULL | WRITE | {"secretsmanager:GetSecretValue", "ecr:GetAuthorizationToken"}
    for task in template.all("ECS::TaskDefinition"):
        role = role_of(template, task)
        for actions, resources in statements(role) if role is not None else ():
            if actions - allowed:
                yield task.name, f"its role may do {', '.join(sorted(actions - allowed))}"
            if "*" in resources and actions != {"ecr:GetAuthorizationToken"}:
                yield task.name, "its role may do that to every resource"


def _log(template: Template) -> None:
    role = role_of(template, template.task("websocket_server"))
    assert role is not None
    role.properties["Policies"][0]["PolicyDocument"]["Statement"][1]["Resource"] = {
        "Fn::GetAtt": [template.all("Logs::LogGroup")[0].name, "Arn"]
    }


@rule("role.log", "9", "a role writes its own log and pulls from the one repository", ("another's log", _log))
def _role_log(template: Template) -> Iterator[tuple[str, str]]:
    for task in template.all("ECS::TaskDefinition"):
        role = role_of(template, task)
        log = refers(container(task)["LogConfiguration"]["Options"]["awslogs-group"])
        for actions, resources in statements(role) if role is not None else ():
            if actions & WRITE and resources != {f"<{log}.Arn>"}:
                yield task.name, "its role writes another log"
            if actions & PULL and resources != {"<import ${BaseStack}-RepositoryArn>"}:
                yield task.name, "its role pulls from another repository"


@rule(
    "role.trust",
    "9",
    "only ECS takes on a role that starts tasks",
    ("anybody", lambda template: _anybody(template)),
)
def _trust(template: Template) -> Iterator[tuple[str, str]]:
    for task in template.all("ECS::TaskDefinition"):
        role = role_of(template, task)
        if role is None:
            continue
        for statement in role.get("AssumeRolePolicyDocument")["Statement"]:
            if statement["Principal"] != {"Service": "ecs-tasks.amazonaws.com"}:
                yield role.name, "may be taken on by others than ECS"


def _anybody(template: Template) -> None:
    role = role_of(template, template.task("websocket_server"))
    assert role is not None
    role.get("AssumeRolePolicyDocument")["Statement"][0]["Principal"] = {"AWS": "*"}
