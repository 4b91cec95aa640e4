"""Steps 2 and 6 of the guide, the environment of each service, and its secrets."""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from deploy.aws.checks.registry import rule
from deploy.aws.checks.template import ABSENT, Resource, Template, container, refers, text_of
from deploy.aws.services import SECRETS, SERVICES
from deploy.aws.sizes import STOP_TIMEOUT_S
from deploy.aws.valkey_users import valkey_users

from portfolio_realtime.config import Settings

TASK: Final = "ECS::TaskDefinition"
SETTINGS: Final = frozenset(name.upper() for name in Settings.model_fields)
ENTRYPOINT: Final = frozenset({"SERVICE"})  # which of the services the image becomes
SECRET_WORDS: Final = ("SECRET", "PASSWORD", "TOKEN", "API_KEY", "KEY_ID")


def _add(name: str, content: Any) -> Callable[[Template], None]:
    return lambda template: container(template.task("portfolio_calculator"))["Environment"].append(
        {"Name": name, "Value": content}
    )


@rule(
    "environment.names",
    "2",
    "each name is a setting of the product",
    ("unknown setting", _add("REDIS_HOSTNAME", "x")),
    (
        "unknown secret",
        lambda template: container(template.all(TASK)[-1])["Secrets"][0].update(Name="REDIS_PASS"),
    ),
)
def _names(template: Template) -> Iterator[tuple[str, str]]:
    for task in template.all(TASK):
        names = [one["Name"] for one in (*container(task)["Environment"], *container(task)["Secrets"])]
        for name in names:
            if name not in SETTINGS | ENTRYPOINT:
                yield task.name, f"{name} is no setting"
            if names.count(name) > 1:
                yield task.name, f"{name} is given twice"


@rule(
    "environment.plain-secrets",
    "9",
    "no secret is a plain environment variable",
    ("a password", _add("REDIS_PASSWORD", "x")),
    ("a key", _add("BROKER_API_KEY", "x")),
)
def _plain_secrets(template: Template) -> Iterator[tuple[str, str]]:
    for task in template.all(TASK):
        for one in container(task)["Environment"]:
            if any(word in one["Name"] for word in SECRET_WORDS):
                yield task.name, f"{one['Name']} must be under Secrets"


def environment(task: Resource) -> dict[str, Any]:
    """Name -> value of a task definition's environment."""
    return {one["Name"]: one["Value"] for one in container(task)["Environment"]}


def _set(service: str, name: str, wrong: Any) -> Callable[[Template], None]:
    def plant(template: Template) -> None:
        listed = container(template.task(service))["Environment"]
        listed[:] = [one for one in listed if one["Name"] != name]
        if wrong is not ABSENT:
            listed.append({"Name": name, "Value": wrong})

    return plant


@rule(
    "environment.values",
    "2",
    "each service is told what the guide and the product's documents say",
    ("guide's interval", _set("portfolio_calculator", "MIN_UPDATE_INTERVAL", "20")),
    ("plain Valkey", _set("symbol_collector", "REDIS_SSL", "false")),
    ("another service", _set("symbol_collector", "SERVICE", "all")),
    ("no metrics", _set("market_data_consumer", "EMF_DEPLOYMENT", ABSENT)),
    ("TLS not required", _set("websocket_server", "REQUIRE_TLS", ABSENT)),
)
def _values(template: Template) -> Iterator[tuple[str, str]]:
    wanted_common = {"REDIS_SSL": "true", "REDIS_PORT": "6379", "REDIS_DB": "0", "LOG_FORMAT": "json"}
    for service in SERVICES:
        found = environment(template.task(service.name))
        wanted = {**wanted_common, **service.settings}
        if service.is_kept_running:
            wanted["SERVICE"] = service.name
            if found.get("EMF_DEPLOYMENT") != {"Ref": "AWS::StackName"}:
                yield service.name, "EMF_DEPLOYMENT must be the stack's name, or no alarm has a metric"
        for name, setting in wanted.items():
            if found.get(name) != setting:
                yield service.name, f"{name} must be {setting}"


@rule(
    "environment.drain",
    "pitfalls",
    "a balancer that hears of a stop 5 s late, and the drain, fit into the stop timeout",
    ("grace of 2 s", _set("websocket_server", "DRAIN_GRACE_SECONDS", "2")),
    ("drain of 90 s", _set("websocket_server", "DRAIN_SECONDS", "90")),
)
def _drain(template: Template) -> Iterator[tuple[str, str]]:
    found = environment(template.task("websocket_server"))
    grace, drain = float(found.get("DRAIN_GRACE_SECONDS", 0)), float(found.get("DRAIN_SECONDS", 0))
    if grace < 10:
        yield "websocket_server", "DRAIN_GRACE_SECONDS must be 10 or more: an ALB hears late"
    if drain > 50 or grace + drain + 5 > STOP_TIMEOUT_S:
        yield "websocket_server", "DRAIN_SECONDS must be at most 50 and end before the stop timeout"


@rule(
    "environment.age",
    "8",
    "clients reconnect now and then, or new servers get none of them",
    ("half a day", _set("websocket_server", "MAX_CONNECTION_AGE_SECONDS", ABSENT)),
    ("all the time", _set("websocket_server", "MAX_CONNECTION_AGE_SECONDS", "60")),
)
def _age(template: Template) -> Iterator[tuple[str, str]]:
    age_s = float(environment(template.task("websocket_server")).get("MAX_CONNECTION_AGE_SECONDS", 43_200))
    if not 1800 <= age_s <= 7200:
        yield "websocket_server", "MAX_CONNECTION_AGE_SECONDS must be between half an hour and two hours"


@rule(
    "environment.valkey",
    "2",
    "each service logs in at the primary endpoint as its own user",
    ("another's user", _set("portfolio_calculator", "REDIS_USER", "server")),
    ("a fixed host", _set("portfolio_calculator", "REDIS_HOST", "localhost")),
)
def _valkey(template: Template) -> Iterator[tuple[str, str]]:
    group = template.one("ElastiCache::ReplicationGroup").name
    for service in SERVICES:
        found = environment(template.task(service.name))
        if found.get("REDIS_USER") != valkey_users().user_of[service.name]:
            yield service.name, "REDIS_USER must be its own user"
        if found.get("REDIS_HOST") != {"Fn::GetAtt": [group, "PrimaryEndPoint.Address"]}:
            yield service.name, "REDIS_HOST must be the primary endpoint"


@rule(
    "environment.proxies",
    "6",
    "the balancer's network is trusted, Cloudflare's only while it stands before it",
    ("everybody", _set("websocket_server", "TRUSTED_PROXIES", "0.0.0.0/0")),
    ("nobody", _set("websocket_server", "TRUSTED_PROXIES", ABSENT)),
    (
        "always Cloudflare",
        lambda template: _set(
            "websocket_server",
            "TRUSTED_PROXIES",
            environment(template.task("websocket_server"))["TRUSTED_PROXIES"]["Fn::If"][1],
        )(template),
    ),
)
def _proxies(template: Template) -> Iterator[tuple[str, str]]:
    network = template.one("EC2::VPC").get("CidrBlock")
    listed = [entry["Cidr"] for entry in template.one("EC2::PrefixList").get("Entries")]
    found = environment(template.task("websocket_server")).get("TRUSTED_PROXIES")
    branches = found.get("Fn::If", []) if isinstance(found, dict) else []
    if len(branches) != 3 or branches[0] != "IsBehindCloudflare" or branches[2] != network:
        yield "websocket_server", "TRUSTED_PROXIES must be the VPC, and with Cloudflare its networks, too"
    elif not {network, *listed} <= set(branches[1].split(",")):
        yield "websocket_server", "TRUSTED_PROXIES must hold the networks of the prefix list"


def secrets_of(task: Resource) -> dict[str, str]:
    """Setting -> where its secret is, as text."""
    return {one["Name"]: text_of(one["ValueFrom"]) for one in container(task)["Secrets"]}


def _secret(name: str, origin: Any) -> Callable[[Template], None]:
    def plant(template: Template) -> None:
        listed = container(template.task("websocket_server"))["Secrets"]
        next(one for one in listed if one["Name"] == name)["ValueFrom"] = origin

    return plant


@rule(
    "secrets.form",
    "2",
    "an ARN, a key of its JSON, and two empty parts: with fewer colons it is another thing",
    (
        "whole secret",
        _secret("JWT_SECRET", {"Fn::ImportValue": {"Fn::Sub": "${BaseStack}-ClientsSecretArn"}}),
    ),
    (
        "one colon missing",
        _secret(
            "JWT_SECRET",
            {
                "Fn::Join": [
                    "",
                    [{"Fn::ImportValue": {"Fn::Sub": "${BaseStack}-ClientsSecretArn"}}, ":JWT_SECRET:"],
                ]
            },
        ),
    ),
    (
        "unknown key",
        _secret(
            "JWT_SECRET",
            {"Fn::Join": ["", [{"Fn::ImportValue": {"Fn::Sub": "${BaseStack}-ClientsSecretArn"}}, ":JWT::"]]},
        ),
    ),
)
def _form(template: Template) -> Iterator[tuple[str, str]]:
    keys = {
        f"<import ${{BaseStack}}-{owner.capitalize()}SecretArn>": names for owner, names in SECRETS.items()
    }
    for secret in template.all("SecretsManager::Secret"):
        keys[f"<{secret.name}>"] = (str(secret.get("GenerateSecretString.GenerateStringKey")),)
    for task in template.all(TASK):
        for name, origin in secrets_of(task).items():
            match = re.fullmatch(r"(<[^>]+>):(\w+)::", origin)
            if match is None or match[2] not in keys.get(match[1], ()) or match[2] != name:
                yield task.name, f"{name} must come from ARN:{name}:: of a secret that has this key"


@rule(
    "secrets.where",
    "9",
    "each secret only where it is used",
    (
        "clients' at the collector",
        lambda template: container(template.task("symbol_collector"))["Secrets"].extend(
            container(template.task("websocket_server"))["Secrets"][:2]
        ),
    ),
    ("no password", lambda template: container(template.task("portfolio_calculator"))["Secrets"].clear()),
)
def _where(template: Template) -> Iterator[tuple[str, str]]:
    for service in SERVICES:
        wanted = {"REDIS_PASSWORD", *(key for keys in service.secrets.values() for key in keys)}
        for name in wanted ^ secrets_of(template.task(service.name)).keys():
            yield service.name, f"{name} is {'missing' if name in wanted else 'not its own'}"


@rule(
    "secrets.own-password",
    "9",
    "a service gets the password of its own user",
    (
        "another's",
        lambda template: next(
            one for one in container(template.task("portfolio_calculator"))["Secrets"]
        ).update(
            ValueFrom=next(
                one
                for one in container(template.task("symbol_collector"))["Secrets"]
                if one["Name"] == "REDIS_PASSWORD"
            )["ValueFrom"]
        ),
    ),
)
def _own_password(template: Template) -> Iterator[tuple[str, str]]:
    passwords = {
        user.get("UserName"): refers(_only(user.get("AuthenticationMode.Passwords")[0]))
        for user in template.all("ElastiCache::User")
    }
    for service in SERVICES:
        secret = passwords.get(valkey_users().user_of[service.name])
        if secrets_of(template.task(service.name)).get("REDIS_PASSWORD") != f"<{secret}>:REDIS_PASSWORD::":
            yield service.name, "REDIS_PASSWORD is not that of its own user"


def _only(password: Any) -> Any:
    """The value that `Fn::Sub` puts into the dynamic reference."""
    return next(iter(password["Fn::Sub"][1].values())) if isinstance(password, dict) else password
