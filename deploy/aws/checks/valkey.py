"""Step 1 of the guide: Valkey."""

import re
from collections.abc import Iterator
from datetime import time
from typing import Final

from deploy.aws.checks.registry import is_between, is_exactly, rule, value
from deploy.aws.checks.template import ABSENT, Resource, Template, refers, text_of
from deploy.aws.sizes import SIZES, VALKEY_PORT
from deploy.aws.valkey_users import valkey_users

GROUP: Final = "ElastiCache::ReplicationGroup"
USER: Final = "ElastiCache::User"
PASSWORDS: Final = "SecretsManager::Secret"
KNOWN_VERSIONS: Final = ("7.2", "8.0", "8.1", "8.2", "9.0", "9.1")
# Of New York, in UTC, summer and winter together: the overnight session is thin, all others are kept free.
BUSY_FROM, BUSY_UNTIL = time(8), time(1)

value(
    "valkey.engine",
    "1",
    GROUP,
    "Engine",
    is_exactly("valkey"),
    ("redis", "valkee", ABSENT),
    "the engine is Valkey",
)
value(
    "valkey.version",
    "1",
    GROUP,
    "EngineVersion",
    lambda found: found in KNOWN_VERSIONS,
    ("8.9", ABSENT),
    "a version that ElastiCache has; it cannot be lowered later",
)
value(
    "valkey.cluster-mode",
    "1",
    GROUP,
    "NumNodeGroups",
    is_exactly(1),
    (2,),
    "cluster mode is off, as in the guide",
)
value("valkey.multi-az", "1", GROUP, "MultiAZEnabled", is_exactly(True), (False, ABSENT), "Multi-AZ is on")
value(
    "valkey.failover",
    "1",
    GROUP,
    "AutomaticFailoverEnabled",
    is_exactly(True),
    (False,),
    "Multi-AZ needs failover",
)
value(
    "valkey.at-rest",
    "1",
    GROUP,
    "AtRestEncryptionEnabled",
    is_exactly(True),
    (False, ABSENT),
    "encrypted at rest; it can be set only at creation",
)
value(
    "valkey.in-transit",
    "1",
    GROUP,
    "TransitEncryptionEnabled",
    is_exactly(True),
    (False, ABSENT),
    "TLS is on",
)
value(
    "valkey.tls-required",
    "1",
    GROUP,
    "TransitEncryptionMode",
    is_exactly("required"),
    ("preferred",),
    "no plain connection is accepted",
)
value("valkey.port", "1", GROUP, "Port", is_exactly(VALKEY_PORT), (6380,), "the services look at 6379")
value(
    "valkey.snapshots",
    "10",
    GROUP,
    "SnapshotRetentionLimit",
    is_between(1, 35),
    (0, 99, ABSENT),
    "automatic backups are on, kept for 1 to 35 days",
)
value(
    "valkey.node",
    "1",
    GROUP,
    "CacheNodeType",
    lambda found: re.fullmatch(r"cache\.[tmr]\d\w*\.\w+", found) is not None,
    ("t3.small", "cache.small"),
    "a node type of ElastiCache",
)
value(
    "valkey.eviction",
    "field",
    "ElastiCache::ParameterGroup",
    "Properties.maxmemory-policy",
    is_exactly("noeviction"),
    ("volatile-lru", ABSENT),
    "the default evicts revocations, which have an expiry",
)
value(
    "valkey.user-engine",
    "limits",
    USER,
    "Engine",
    is_exactly("valkey"),
    ("redis",),
    "users are of the group's engine",
)
value(
    "valkey.user-password",
    "9",
    USER,
    "AuthenticationMode.Type",
    is_exactly("password"),
    ("no-password-required",),
    "a group of engine valkey takes only users with a password or IAM",
)
value(
    "valkey.group-engine",
    "limits",
    "ElastiCache::UserGroup",
    "Engine",
    is_exactly("valkey"),
    ("redis",),
    "the group is of the cache's engine",
)
value(
    "valkey.password-length",
    "limits",
    PASSWORDS,
    "GenerateSecretString.PasswordLength",
    is_between(32, 128),
    (12, 200),
    "ElastiCache takes 16 to 128 characters",
)
value(
    "valkey.password-signs",
    "limits",
    PASSWORDS,
    "GenerateSecretString.ExcludePunctuation",
    is_exactly(True),
    (False,),
    "ElastiCache refuses some signs",
)
value(
    "valkey.password-plain",
    "9",
    PASSWORDS,
    "SecretString",
    lambda found: found is ABSENT,
    ("hunter2",),
    "no secret stands in a template",
)


def _group(template: Template) -> Resource:
    return template.one(GROUP)


@rule(
    "valkey.replicas",
    "1",
    "the size's number of replicas: two in standard, as in the guide",
    ("one replica", lambda template: _group(template).put("ReplicasPerNodeGroup", 0)),
)
def _replicas(template: Template) -> Iterator[tuple[str, str]]:
    wanted = SIZES[template.size].replicas
    if _group(template).get("ReplicasPerNodeGroup") != wanted:
        yield _group(template).name, f"ReplicasPerNodeGroup must be {wanted}"


@rule(
    "valkey.family",
    "limits",
    "parameters of the engine's own major version",
    (
        "family of 8",
        lambda template: template.one("ElastiCache::ParameterGroup").put(
            "CacheParameterGroupFamily", "valkey8"
        ),
    ),
)
def _family(template: Template) -> Iterator[tuple[str, str]]:
    parameters = template.one("ElastiCache::ParameterGroup")
    major = str(_group(template).get("EngineVersion")).split(".")[0]
    if parameters.get("CacheParameterGroupFamily") != f"valkey{major}":
        yield parameters.name, f"CacheParameterGroupFamily must be valkey{major}"
    if refers(_group(template).get("CacheParameterGroupName")) != parameters.name:
        yield _group(template).name, "does not use the parameter group"


@rule(
    "valkey.known-parameters",
    "limits",
    "parameters that Valkey has",
    (
        "unknown parameter",
        lambda template: template.one("ElastiCache::ParameterGroup").put("Properties.max-memory-policy", "x"),
    ),
)
def _known_parameters(template: Template) -> Iterator[tuple[str, str]]:
    parameters = template.one("ElastiCache::ParameterGroup")
    for name in parameters.properties["Properties"]:
        if name not in {"maxmemory-policy", "timeout", "acl-pubsub-default", "notify-keyspace-events"}:
            yield parameters.name, f"{name} is no parameter that we know"


@rule(
    "valkey.windows",
    "limits",
    "snapshot and maintenance do not overlap, and both are outside the busy hours",
    ("overlapping", lambda template: _group(template).put("SnapshotWindow", "07:00-08:00")),
    ("while trading", lambda template: _group(template).put("SnapshotWindow", "15:00-16:00")),
)
def _windows(template: Template) -> Iterator[tuple[str, str]]:
    group = _group(template)
    snapshot = _hours(str(group.get("SnapshotWindow")))
    maintenance = _hours(re.sub(r"[a-z]{3}:", "", str(group.get("PreferredMaintenanceWindow"))))
    if snapshot is None or maintenance is None:
        yield group.name, "windows must be HH:MM-HH:MM and ddd:HH:MM-ddd:HH:MM"
    elif snapshot[0] < maintenance[1] and maintenance[0] < snapshot[1]:
        yield group.name, "the two windows overlap"
    elif not (snapshot[0] >= BUSY_UNTIL and snapshot[1] <= BUSY_FROM):
        yield group.name, "the snapshot falls into trading hours"


def _hours(window: str) -> tuple[time, time] | None:
    try:
        begin, end = window.split("-")
        return time.fromisoformat(begin), time.fromisoformat(end)
    except ValueError:
        return None


def _widen(template: Template) -> None:
    next(user for user in template.all(USER) if user.get("UserName") == "server").put(
        "AccessString", "on ~* +@all"
    )


@rule(
    "valkey.rights",
    "9",
    "each user has the rights of the table of keys, and the default user none",
    ("all rights", _widen),
    ("user missing", lambda template: template.content["Resources"].pop(template.all(USER)[-1].name)),
    ("default user on", lambda template: template.all(USER)[0].put("AccessString", "on ~* +@all")),
)
def _rights(template: Template) -> Iterator[tuple[str, str]]:
    found = {user.get("UserName"): user.get("AccessString") for user in template.all(USER)}
    wanted = {**valkey_users().rights, "default": "off resetchannels -@all"}
    for name in wanted.keys() | found.keys():
        if found.get(name) != wanted.get(name):
            yield str(name), "its access string is not that of deploy/valkey-users.json"


@rule(
    "valkey.group",
    "links",
    "the cache uses the group, and the group has every user",
    ("user left out", lambda template: template.one("ElastiCache::UserGroup").properties["UserIds"].pop()),
    ("no group", lambda template: _group(template).put("UserGroupIds", ABSENT)),
)
def _users(template: Template) -> Iterator[tuple[str, str]]:
    group = template.one("ElastiCache::UserGroup")
    listed = {refers(user) for user in group.get("UserIds")}
    if listed != {user.name for user in template.all(USER)}:
        yield group.name, "does not list every user"
    if [refers(one) for one in _group(template).properties.get("UserGroupIds", [])] != [group.name]:
        yield _group(template).name, "must use the user group"


@rule(
    "valkey.unique-names",
    "two stacks",
    "user and group ids are unique in an account: they hold the stack's id",
    ("fixed user id", lambda template: template.all(USER)[-1].put("UserId", "operator")),
    ("fixed group id", lambda template: template.one("ElastiCache::UserGroup").put("UserGroupId", "users")),
)
def _unique(template: Template) -> Iterator[tuple[str, str]]:
    for resource, path in [
        *((user, "UserId") for user in template.all(USER)),
        (template.one("ElastiCache::UserGroup"), "UserGroupId"),
    ]:
        if "AWS::StackId" not in text_of(resource.get(path)):
            yield resource.name, f"{path} must hold a part of the stack's id"


@rule(
    "valkey.passwords",
    "9",
    "each user's password comes from its own generated secret",
    (
        "shared secret",
        lambda template: template.all(USER)[-1].put(
            "AuthenticationMode", template.all(USER)[1].get("AuthenticationMode")
        ),
    ),
    (
        "written out",
        lambda template: template.all(USER)[-1].put(
            "AuthenticationMode.Passwords", ["a-password-in-the-template"]
        ),
    ),
)
def _passwords(template: Template) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for user in template.all(USER):
        (password,) = user.get("AuthenticationMode.Passwords")
        match = re.fullmatch(
            r"\{\{resolve:secretsmanager:<(\w+)>:SecretString:REDIS_PASSWORD\}\}", text_of(password)
        )
        if match is None or template.named(match[1]) is None or match[1] in seen:
            yield user.name, "its password must be resolved from a secret of its own"
        else:
            seen.add(match[1])


@rule(
    "valkey.subnets",
    "1",
    "Valkey stands in subnets without a route out",
    (
        "in public subnets",
        lambda template: template.one("ElastiCache::SubnetGroup").put(
            "SubnetIds", template.one("ElasticLoadBalancingV2::LoadBalancer").get("Subnets")
        ),
    ),
)
def _subnets(template: Template) -> Iterator[tuple[str, str]]:
    group = template.one("ElastiCache::SubnetGroup")
    with_way_out = {refers(route.get("RouteTableId")) for route in template.all("EC2::Route")}
    tables = {
        refers(one.get("SubnetId")): refers(one.get("RouteTableId"))
        for one in template.all("EC2::SubnetRouteTableAssociation")
    }
    names = [refers(subnet) for subnet in group.get("SubnetIds")]
    if len(set(names)) < 2:
        yield group.name, "needs subnets in two zones"
    for name in names:
        if tables.get(name) in with_way_out:
            yield group.name, f"{name} has a route out"


@rule(
    "valkey.last-snapshot",
    "10",
    "what deletes or replaces the cache leaves a snapshot",
    ("deleted", lambda template: _group(template).body.update(DeletionPolicy="Delete")),
    ("replaced", lambda template: _group(template).body.pop("UpdateReplacePolicy")),
)
def _last_snapshot(template: Template) -> Iterator[tuple[str, str]]:
    group = _group(template)
    if {group.body.get("DeletionPolicy"), group.body.get("UpdateReplacePolicy")} != {"Snapshot"}:
        yield group.name, "DeletionPolicy and UpdateReplacePolicy must be Snapshot"
