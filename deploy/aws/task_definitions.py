"""Task definitions as `aws ecs register-task-definition --cli-input-json` takes them."""

import json
from pathlib import Path
from typing import Any, Final

from deploy.aws.checks.template import Template
from deploy.aws.files import read
from deploy.aws.resolve import Account
from deploy.aws.services import SERVICES

FOLDER: Final = Path(__file__).resolve().parent / "task-definitions"
STACK: Final = "clera-portfolio-realtime"
# As in the guide: what stands here is replaced by your own.
PLACES: Final = {
    "AWS::AccountId": "your-account-id",
    "AWS::Region": "your-region",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": STACK,
    "BaseStack": "base",
    "ImageDigest": "sha256:your-image-digest",
    "CpuArchitecture": "ARM64",
    "AllowedOrigins": "https://app.your-domain",
    "AlpacaSandbox": "false",
    "AlpacaDataFeed": "iex",
}


def task_definitions() -> dict[str, dict[str, Any]]:
    """Service -> its task definition as the ECS API takes it, with placeholders such as `your-account-id`."""
    template = Template(read("standard"), "standard", read("base"))
    group = template.one("ElastiCache::ReplicationGroup").name
    names = {f"{group}.PrimaryEndPoint.Address": "your-redis-endpoint.cache.amazonaws.com"}
    for log in template.all("Logs::LogGroup"):
        names[log.name] = str(log.get("LogGroupName")["Fn::Sub"]).replace("${AWS::StackName}", STACK)
    for user in template.all("ElastiCache::User"):
        (secret,) = user.get("AuthenticationMode.Passwords")[0]["Fn::Sub"][1].values()
        names[secret["Ref"]] = _secret_arn(f"valkey-{user.get('UserName')}")
    for service in SERVICES:
        role = template.task(service.name).get("ExecutionRoleArn")["Fn::GetAtt"]
        names[".".join(role)] = f"arn:aws:iam::your-account-id:role/{STACK}-{service.name}"
    account = Account(PLACES, _exports(), lambda name: names[name], {"IsBehindCloudflare": False})
    return {
        service.name: _as_api(account.value(template.task(service.name).properties)) for service in SERVICES
    }


def _exports() -> dict[str, str]:
    return {
        "base-RepositoryName": "clera/portfolio-realtime",
        "base-AlpacaSecretArn": _secret_arn("alpaca"),
        "base-ClientsSecretArn": _secret_arn("clients"),
    }


def _secret_arn(name: str) -> str:
    return f"arn:aws:secretsmanager:your-region:your-account-id:secret:{STACK}/{name}"


def _as_api(value: Any) -> Any:
    """CloudFormation writes `StopTimeout`, the API `stopTimeout`; options of the log are free names."""
    if isinstance(value, list):
        return [_as_api(part) for part in value]
    if not isinstance(value, dict):
        return value
    return {
        name[0].lower() + name[1:]: dict(part) if name == "Options" else _as_api(part)
        for name, part in value.items()
    }


def write() -> None:
    """Write them to their folder."""
    FOLDER.mkdir(exist_ok=True)
    for name, definition in task_definitions().items():
        (FOLDER / f"{name}.json").write_text(json.dumps(definition, indent=2) + "\n")
