"""Step 5 of the guide, the load balancer, and who may reach whom."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from deploy.aws.checks.registry import is_between, is_exactly, rule, value
from deploy.aws.checks.template import ABSENT, Template, refers, text_of
from deploy.aws.services import SERVICES
from deploy.aws.sizes import SERVER_PORT, SIZES, VALKEY_PORT

BALANCER: Final = "ElasticLoadBalancingV2::LoadBalancer"
TARGETS: Final = "ElasticLoadBalancingV2::TargetGroup"
LISTENER: Final = "ElasticLoadBalancingV2::Listener"
INGRESS: Final = "EC2::SecurityGroupIngress"
EGRESS: Final = "EC2::SecurityGroupEgress"
KNOWN_BALANCER: Final = frozenset(
    {
        "deletion_protection.enabled",
        "idle_timeout.timeout_seconds",
        "routing.http.drop_invalid_header_fields.enabled",
        "routing.http2.enabled",
    }
)
KNOWN_TARGETS: Final = frozenset({"deregistration_delay.timeout_seconds", "load_balancing.algorithm.type"})


def _attribute(listed: str, name: str) -> str:
    return f"{listed}[Key={name}].Value"


value(
    "alb.type", "5", BALANCER, "Type", is_exactly("application"), ("network",), "an Application Load Balancer"
)
value(
    "alb.scheme", "5", BALANCER, "Scheme", is_exactly("internet-facing"), ("internal",), "browsers reach it"
)
value(
    "alb.idle",
    "5",
    BALANCER,
    _attribute("LoadBalancerAttributes", "idle_timeout.timeout_seconds"),
    is_between(120, 4000),
    ("60", "5000"),
    "at least 120 s as the guide says; 4,000 at most",
)
value(
    "alb.headers",
    "hardening",
    BALANCER,
    _attribute("LoadBalancerAttributes", "routing.http.drop_invalid_header_fields.enabled"),
    is_exactly("true"),
    ("false",),
    "malformed headers are dropped",
)
value(
    "alb.protected",
    "field",
    BALANCER,
    _attribute("LoadBalancerAttributes", "deletion_protection.enabled"),
    is_exactly("true"),
    ("false",),
    "nobody deletes the way in by mistake",
)
value("alb.port", "5", LISTENER, "Port", is_exactly(443), (80, 8443), "clients come to 443")
value("alb.protocol", "5", LISTENER, "Protocol", is_exactly("HTTPS"), ("HTTP",), "TLS ends here")
value(
    "alb.tls",
    "9",
    LISTENER,
    "SslPolicy",
    lambda found: found.startswith("ELBSecurityPolicy-TLS13-1-"),
    ("ELBSecurityPolicy-2016-08", ABSENT),
    "TLS 1.2 and 1.3 only",
)
value(
    "alb.certificate",
    "5",
    LISTENER,
    "Certificates",
    lambda found: (
        [text_of(one["CertificateArn"]) for one in found] == ["<import ${BaseStack}-CertificateArn>"]
    ),
    ([], ABSENT),
    "the certificate of the base stack",
)
value(
    "targets.health-path",
    "5",
    TARGETS,
    "HealthCheckPath",
    is_exactly("/health"),
    ("/ready", "/"),
    "/ready says no while Valkey is away, and ECS would end every server",
)
value(
    "targets.health-code", "5", TARGETS, "Matcher.HttpCode", is_exactly("200"), ("200-499",), "success is 200"
)
value(
    "targets.health-interval",
    "5",
    TARGETS,
    "HealthCheckIntervalSeconds",
    is_exactly(30),
    (5, 301),
    "every 30 s",
)
value("targets.health-timeout", "5", TARGETS, "HealthCheckTimeoutSeconds", is_exactly(5), (31,), "within 5 s")
value("targets.unhealthy", "5", TARGETS, "UnhealthyThresholdCount", is_exactly(2), (5,), "unhealthy after 2")
value("targets.healthy", "5", TARGETS, "HealthyThresholdCount", is_exactly(3), (1, 11), "healthy after 3")
value(
    "targets.type",
    "limits",
    TARGETS,
    "TargetType",
    is_exactly("ip"),
    ("instance",),
    "tasks of awsvpc are addresses",
)
value(
    "targets.protocol",
    "limits",
    TARGETS,
    "ProtocolVersion",
    is_exactly("HTTP1"),
    ("HTTP2",),
    "WebSockets need HTTP/1.1",
)
value(
    "targets.deregistration",
    "5",
    TARGETS,
    _attribute("TargetGroupAttributes", "deregistration_delay.timeout_seconds"),
    is_between(60, 300),
    ("4000", "0"),
    "connections may end with their task; 300 makes deployments slow",
)
value(
    "targets.spread",
    "field",
    TARGETS,
    _attribute("TargetGroupAttributes", "load_balancing.algorithm.type"),
    is_exactly("least_outstanding_requests"),
    ("round_robin",),
    "new servers get new connections first",
)


@rule(
    "alb.attributes",
    "limits",
    "attributes that exist",
    (
        "misspelled",
        lambda template: template.one(BALANCER).put(
            "LoadBalancerAttributes[Key=routing.http2.enabled].Key", "routing.http.2.enabled"
        ),
    ),
    (
        "of a target group",
        lambda template: (
            template.one(TARGETS)
            .get("TargetGroupAttributes")
            .append({"Key": "deregistration_delay.seconds", "Value": "1"})
        ),
    ),
)
def _attributes(template: Template) -> Iterator[tuple[str, str]]:
    for kind, listed, known in (
        (BALANCER, "LoadBalancerAttributes", KNOWN_BALANCER),
        (TARGETS, "TargetGroupAttributes", KNOWN_TARGETS),
    ):
        resource = template.one(kind)
        for one in resource.get(listed):
            if one["Key"] not in known:
                yield resource.name, f"{one['Key']} is no attribute that we know"


@rule(
    "alb.forwards",
    "5",
    "the listener sends to the servers' target group",
    (
        "elsewhere",
        lambda template: template.one(LISTENER).put("DefaultActions[0].TargetGroupArn", {"Ref": "Nobody"}),
    ),
    (
        "another listener",
        lambda template: template.content["Resources"].update(
            Plain={
                "Type": "AWS::ElasticLoadBalancingV2::Listener",
                "Properties": {"Port": 80, "Protocol": "HTTP"},
            }
        ),
    ),
)
def _forwards(template: Template) -> Iterator[tuple[str, str]]:
    if len(template.all(LISTENER)) != 1:
        yield "listeners", "there must be one listener: 443"
    for listener in template.all(LISTENER):
        if refers(listener.get("DefaultActions[0].TargetGroupArn")) != template.one(TARGETS).name:
            yield listener.name, "must forward to the target group"


@rule(
    "network.zones",
    "1",
    "two zones of the stack's own region, for the balancer, the tasks and Valkey",
    ("one subnet", lambda template: template.one(BALANCER).get("Subnets").pop()),
    (
        "one zone",
        lambda template: (
            [
                subnet.put("AvailabilityZone", {"Fn::Select": [0, {"Fn::GetAZs": ""}]})
                for subnet in template.all("EC2::Subnet")
            ]
        ),
    ),
)
def _zones(template: Template) -> Iterator[tuple[str, str]]:
    zones = {subnet.name: str(subnet.get("AvailabilityZone")) for subnet in template.all("EC2::Subnet")}
    used = {
        "balancer": template.one(BALANCER).get("Subnets"),
        "valkey": template.one("ElastiCache::SubnetGroup").get("SubnetIds"),
    }
    for what, subnets in used.items():
        if len({zones.get(refers(subnet)) for subnet in subnets}) < 2:
            yield what, "stands in one zone only"


@rule(
    "network.nat",
    "field",
    "tasks without public addresses have a NAT gateway",
    (
        "no route",
        lambda template: (
            [
                template.content["Resources"].pop(route.name)
                for route in template.all("EC2::Route")
                if route.get("NatGatewayId") is not ABSENT
            ]
        ),
    ),
)
def _nat(template: Template) -> Iterator[tuple[str, str]]:
    routes = [route for route in template.all("EC2::Route") if route.get("NatGatewayId") is not ABSENT]
    if bool(routes) != SIZES[template.size].has_private_tasks:
        yield "routes", "private subnets need a route to a NAT gateway, public ones none"


Edge = tuple[str, str, int, str]  # direction, group, port, who


def edges(template: Template) -> set[Edge]:
    """Every rule of every security group but those that allow nothing."""
    found: set[Edge] = set()
    for kind, direction, peers in (
        (INGRESS, "in", ("SourceSecurityGroupId", "SourcePrefixListId", "CidrIp", "CidrIpv6")),
        (EGRESS, "out", ("DestinationSecurityGroupId", "DestinationPrefixListId", "CidrIp", "CidrIpv6")),
    ):
        for one in template.all(kind):
            peer = next(one.get(name) for name in peers if one.get(name) is not ABSENT)
            port = one.get("FromPort") if one.get("FromPort") == one.get("ToPort") else -1
            if one.get("IpProtocol") != "tcp":
                port = -1
            condition = str(one.body.get("Condition", ""))
            found.add(
                (
                    direction,
                    refers(one.get("GroupId")),
                    port,
                    f"{refers(peer) or peer}{condition and ' if ' + condition}",
                )
            )
    return found


def wanted_edges(template: Template) -> set[Edge]:
    """Who may reach whom, and nothing beside."""
    (balancer,) = (refers(group) for group in template.one(BALANCER).get("SecurityGroups"))
    (valkey,) = (
        refers(group) for group in template.one("ElastiCache::ReplicationGroup").get("SecurityGroupIds")
    )
    listed = template.one("EC2::PrefixList").name
    found: set[Edge] = {
        ("in", balancer, 443, "0.0.0.0/0 if OpenToEverybody"),
        ("in", balancer, 443, f"{listed} if IsBehindCloudflare"),
    }
    for service in SERVICES:
        made = template.service(service.name)
        group = (
            _operator_group(template)
            if made is None
            else _group_of(made.get("NetworkConfiguration.AwsvpcConfiguration"))
        )
        found |= {
            ("out", group, 443, "0.0.0.0/0"),
            ("out", group, VALKEY_PORT, valkey),
            ("in", valkey, VALKEY_PORT, group),
        }
        if service.is_server:
            found |= {("out", balancer, SERVER_PORT, group), ("in", group, SERVER_PORT, balancer)}
    return found


def _group_of(network: dict[str, Any]) -> str:
    return refers(network["SecurityGroups"][0])


def _operator_group(template: Template) -> str:
    return next((group.name for group in template.all("EC2::SecurityGroup") if "Operator" in group.name), "")


def _rule_of(template: Template, kind: str, port: int) -> Any:
    return next(one for one in template.all(kind) if one.get("FromPort") == port)


def _open_valkey(template: Template) -> None:
    rule_of = _rule_of(template, INGRESS, VALKEY_PORT)
    rule_of.put("SourceSecurityGroupId", ABSENT)
    rule_of.put("CidrIp", "0.0.0.0/0")


def _without_condition(template: Template) -> None:
    next(one for one in template.all(INGRESS) if one.body.get("Condition") == "OpenToEverybody").body.pop(
        "Condition"
    )


def _change(kind: str, port: int, path: str, wrong: Any) -> Callable[[Template], None]:
    return lambda template: _rule_of(template, kind, port).put(path, wrong)


@rule(
    "groups.edges",
    "1",
    "443 to the balancer, 8001 to the servers, 6379 to Valkey from the services, and nothing else",
    ("6379 for everybody", _open_valkey),
    ("all ports", _change(INGRESS, VALKEY_PORT, "FromPort", 0)),
    ("all protocols", _change(EGRESS, VALKEY_PORT, "IpProtocol", "-1")),
    (
        "servers not reached",
        lambda template: template.content["Resources"].pop(_rule_of(template, INGRESS, SERVER_PORT).name),
    ),
    ("open although orange", _without_condition),
)
def _edges(template: Template) -> Iterator[tuple[str, str]]:
    found, wanted = edges(template), wanted_edges(template)
    for edge in sorted(found - wanted):
        yield edge[1], f"allows {edge[0]} {edge[2]} {edge[3]}, which nothing needs"
    for edge in sorted(wanted - found):
        yield edge[1], f"must allow {edge[0]} {edge[2]} {edge[3]}"


@rule(
    "groups.default-out",
    "9",
    "a group without rules of its own lets nothing out",
    ("everything", lambda template: template.all("EC2::SecurityGroup")[0].put("SecurityGroupEgress", ABSENT)),
    (
        "inline",
        lambda template: template.all("EC2::SecurityGroup")[0].put(
            "SecurityGroupIngress", [{"IpProtocol": "-1", "CidrIp": "0.0.0.0/0"}]
        ),
    ),
)
def _default_out(template: Template) -> Iterator[tuple[str, str]]:
    for group in template.all("EC2::SecurityGroup"):
        allowed = group.get("SecurityGroupEgress")
        if allowed is ABSENT or [one.get("CidrIp") for one in allowed] != ["255.255.255.255/32"]:
            yield group.name, "without this rule CloudFormation lets everything out"
        if group.get("SecurityGroupIngress") is not ABSENT:
            yield group.name, "its rules are resources of their own"


@rule(
    "groups.conditions",
    "6",
    "open to everybody exactly while Cloudflare does not stand before it",
    (
        "always open",
        lambda template: template.content["Conditions"].update(
            OpenToEverybody={"Fn::Equals": ["yes", "yes"]}
        ),
    ),
    (
        "never behind",
        lambda template: template.content["Conditions"].update(
            IsBehindCloudflare={"Fn::Equals": [{"Ref": "BehindCloudflare"}, "true"]}
        ),
    ),
)
def _conditions(template: Template) -> Iterator[tuple[str, str]]:
    wanted = {
        "IsBehindCloudflare": {"Fn::Equals": [{"Ref": "BehindCloudflare"}, "yes"]},
        "OpenToEverybody": {"Fn::Not": [{"Condition": "IsBehindCloudflare"}]},
    }
    for name, condition in wanted.items():
        if template.content["Conditions"].get(name) != condition:
            yield name, "must follow BehindCloudflare"


@rule(
    "prefix-list.size",
    "limits",
    "the prefix list has room for its entries, and fits into a group's 60 rules",
    ("too small", lambda template: template.one("EC2::PrefixList").put("MaxEntries", 3)),
    ("too large", lambda template: template.one("EC2::PrefixList").put("MaxEntries", 500)),
)
def _prefix_list(template: Template) -> Iterator[tuple[str, str]]:
    listed = template.one("EC2::PrefixList")
    if not len(listed.get("Entries")) <= listed.get("MaxEntries") <= 60:
        yield listed.name, "MaxEntries counts as so many rules of the group"


@rule(
    "network.refused",
    "9",
    "refused traffic of the network is logged",
    ("no log", lambda template: template.content["Resources"].pop(template.one("EC2::FlowLog").name)),
    ("accepted, too", lambda template: template.one("EC2::FlowLog").put("TrafficType", "ALL")),
)
def _refused(template: Template) -> Iterator[tuple[str, str]]:
    logs = template.all("EC2::FlowLog")
    if [log.get("TrafficType") for log in logs] != ["REJECT"]:
        yield "flow log", "must exist, for what is refused: all traffic would cost more than the services"
