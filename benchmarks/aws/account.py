"""An emulated AWS account (ministack): `.venv-aws/bin/python -m benchmarks.aws.account`.

Makes the base stack, fills its secrets with the JSON on standard input (owner -> key -> value), makes the
stack of services and a second one beside it, and reads back what was made. Prints one line of JSON for
whoever runs the services: the values of Ref and GetAtt, the exports, what was read back wrongly. Ends when
standard input does.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError
from deploy.aws.alarms import alarms as alarm_rows
from deploy.aws.files import read
from deploy.aws.preflight import INDEXES, Wanted, outputs, refused_main
from deploy.aws.sizes import SIZES

START_S_MAX: Final = 60.0
STACK_S_MAX: Final = 60.0
REGION: Final = "eu-north-1"  # none that is written anywhere
DOMAIN: Final = "realtime.example.com"
STACK: Final = "portfolio"
SECOND: Final = "second"
DIGEST: Final = "sha256:" + "0" * 64
# What ministack 1.5.33 does not know how to make; our checks judge these from the JSON.
UNKNOWN: Final = frozenset(
    {
        "AWS::ApplicationAutoScaling::ScalableTarget",
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        "AWS::EC2::EIP",
        "AWS::EC2::FlowLog",
        "AWS::EC2::NatGateway",
        "AWS::EC2::PrefixList",
        "AWS::EC2::SecurityGroupEgress",
        "AWS::EC2::SecurityGroupIngress",
    }
)
PARAMETERS: Final = {
    "ImageDigest": DIGEST,
    "AlertEmail": "oncall@example.com",
    "AllowedOrigins": "https://app.example.com",
}
PSEUDO: Final = {
    "AWS::AccountId": "0" * 12,
    "AWS::Region": REGION,
    "AWS::StackName": STACK,
    "AWS::URLSuffix": "amazonaws.com",
}


class Account:
    """Clients of an emulated account."""

    def __init__(self, url: str) -> None:
        session = botocore.session.Session()
        session.set_credentials("test", "test")
        self._session, self._url = session, url

    def client(self, service: str) -> Any:
        """A client of one service."""
        return self._session.create_client(service, region_name=REGION, endpoint_url=self._url)


@contextlib.contextmanager
def emulator(port: int) -> Iterator[str]:
    """Start ministack on this loopback port; its URL."""
    environment = {
        **os.environ,
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_REGION": REGION,
    }
    command = [str(Path(sys.executable).parent / "ministack")]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(Account(url))
            yield url
        finally:
            process.terminate()


def _wait_until_ready(account: Account) -> None:
    give_up_s = time.monotonic() + START_S_MAX
    while True:
        try:
            account.client("sts").get_caller_identity()
            return
        except (BotoCoreError, ClientError):
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.1)


def without_unknown(content: dict[str, Any]) -> dict[str, Any]:
    """The template less what the emulator cannot make, and what depended on that."""
    kept = {name: body for name, body in content["Resources"].items() if body["Type"] not in UNKNOWN}
    gone = content["Resources"].keys() - kept.keys()
    resources: dict[str, Any] = {}
    for name, body in kept.items():
        if any(f'"{other}"' in json.dumps(body.get("Properties", {})) for other in gone):
            gone = gone | {name}
            continue
        after = [other for other in body.get("DependsOn", []) if other not in gone]
        resources[name] = {
            **{key: part for key, part in body.items() if key != "DependsOn"},
            "DependsOn": after,
        }
    return {**content, "Resources": resources}


def create(
    account: Account, name: str, content: dict[str, Any], parameters: dict[str, str]
) -> dict[str, str]:
    """Make a stack from a template in S3; its outputs by export name, else by output."""
    s3, formation = account.client("s3"), account.client("cloudformation")
    with contextlib.suppress(ClientError):
        s3.create_bucket(Bucket="templates", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="templates", Key=f"{name}.json", Body=json.dumps(content).encode())
    formation.create_stack(
        StackName=name,
        TemplateURL=f"{s3.meta.endpoint_url}/templates/{name}.json",
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    give_up_s = time.monotonic() + STACK_S_MAX
    while (stack := formation.describe_stacks(StackName=name)["Stacks"][0])[
        "StackStatus"
    ] == "CREATE_IN_PROGRESS":
        assert time.monotonic() < give_up_s, f"{name} is not made"
        time.sleep(0.1)
    if stack["StackStatus"] != "CREATE_COMPLETE":
        events = formation.describe_stack_events(StackName=name)["StackEvents"]
        failed = [event for event in events if "FAILED" in event["ResourceStatus"]]
        raise SystemExit(f"{name}: {failed or stack}")
    return {
        output.get("ExportName", output["OutputKey"]): output["OutputValue"]
        for output in stack.get("Outputs", [])
    }


def turn_orange(account: Account, name: str) -> Iterator[str]:
    """Update a stack with BehindCloudflare=yes: what its servers are told then, where it is wrong."""
    formation, ecs = account.client("cloudformation"), account.client("ecs")
    stack = formation.describe_stacks(StackName=name)["Stacks"][0]
    kept = [one for one in stack["Parameters"] if one["ParameterKey"] != "BehindCloudflare"]
    formation.update_stack(
        StackName=name,
        UsePreviousTemplate=True,
        Parameters=[*kept, {"ParameterKey": "BehindCloudflare", "ParameterValue": "yes"}],
        Capabilities=["CAPABILITY_IAM"],
    )
    give_up_s = time.monotonic() + STACK_S_MAX
    while (
        status := formation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
    ) != "UPDATE_COMPLETE":
        if time.monotonic() > give_up_s or "FAILED" in status or "ROLLBACK" in status:
            yield f"{name}: {status} instead of an update"
            return
        time.sleep(0.1)
    task = ecs.describe_task_definition(taskDefinition=f"{name}-websocket-server")["taskDefinition"]
    told = {one["name"]: one["value"] for one in task["containerDefinitions"][0]["environment"]}
    if not told["TRUSTED_PROXIES"].startswith("10.42.0.0/16,1"):
        yield f"{name}: orange, and TRUSTED_PROXIES is {told['TRUSTED_PROXIES']}"


def names(account: Account, stack: str, content: dict[str, Any]) -> dict[str, str]:
    """What a Ref (`Id`) or a GetAtt (`Id.Attribute`) of the stack gives."""
    formation = account.client("cloudformation")
    pages = formation.get_paginator("list_stack_resources").paginate(StackName=stack)
    listed = [one for page in pages for one in page["StackResourceSummaries"]]
    found = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in listed}
    found["AWS::StackId"] = formation.describe_stacks(StackName=stack)["Stacks"][0]["StackId"]
    for name, body in content["Resources"].items():
        if body["Type"] == "AWS::SecretsManager::Secret":  # the emulator gives the name, AWS the ARN
            found[name] = account.client("secretsmanager").describe_secret(SecretId=found[name])["ARN"]
        if body["Type"] == "AWS::ElastiCache::ReplicationGroup":
            groups = account.client("elasticache").describe_replication_groups(ReplicationGroupId=found[name])
            endpoint = groups["ReplicationGroups"][0]["NodeGroups"][0]["PrimaryEndpoint"]
            found[f"{name}.PrimaryEndPoint.Address"] = endpoint["Address"]
    return found


def read_back(account: Account, stack: str, size: str) -> Iterator[str]:
    """Rows of the guide that the account shows otherwise."""
    seen: dict[str, Any] = {}
    ecs, balancing = account.client("ecs"), account.client("elbv2")
    cluster = next(arn for arn in ecs.list_clusters()["clusterArns"] if f"/{stack}-" in arn)
    services = ecs.describe_services(
        cluster=cluster, services=ecs.list_services(cluster=cluster)["serviceArns"]
    )
    seen["4 services"] = len(services["services"])
    seen["4 rollback"] = {
        one["deploymentConfiguration"]["deploymentCircuitBreaker"]["rollback"] for one in services["services"]
    }
    balancers = balancing.describe_load_balancers()["LoadBalancers"]
    (arn,) = (
        one["LoadBalancerArn"] for one in balancers if one["LoadBalancerName"].startswith(stack.lower())
    )
    attributes = balancing.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
    seen["5 idle"] = next(one["Value"] for one in attributes if one["Key"] == "idle_timeout.timeout_seconds")
    (listener,) = balancing.describe_listeners(LoadBalancerArn=arn)["Listeners"]
    seen["5 listener"] = (listener["Port"], listener["Protocol"])
    (target,) = balancing.describe_target_groups(LoadBalancerArn=arn)["TargetGroups"]
    seen["5 health"] = tuple(
        target[name]
        for name in (
            "HealthCheckPath",
            "HealthCheckIntervalSeconds",
            "HealthCheckTimeoutSeconds",
            "UnhealthyThresholdCount",
            "HealthyThresholdCount",
        )
    )
    caches = account.client("elasticache").describe_replication_groups()["ReplicationGroups"]
    (cache,) = (one for one in caches if one["ReplicationGroupId"].startswith(stack.lower()))
    seen["1 cache"] = (cache["MultiAZ"], cache["AutomaticFailover"], cache["AtRestEncryptionEnabled"])
    seen["10 snapshots"] = cache["SnapshotRetentionLimit"]
    (repository,) = account.client("ecr").describe_repositories()["repositories"]
    seen["3 tags"] = repository["imageTagMutability"]
    alarms = account.client("cloudwatch").describe_alarms(AlarmNamePrefix=f"{stack}-", MaxRecords=100)
    seen["8 alarms"] = len(alarms["MetricAlarms"])
    wanted = {
        "4 services": 4,
        "4 rollback": {True},
        "5 idle": "300",
        "5 listener": (443, "HTTPS"),
        "5 health": ("/health", 30, 5, 2, 3),
        "1 cache": ("enabled", "enabled", True),
        "10 snapshots": 7,
        "3 tags": "IMMUTABLE",
        "8 alarms": len([*alarm_rows(SIZES[size])]),
    }
    for row, value in wanted.items():
        if seen[row] != value:
            yield f"{stack}: {row} is {seen[row]!r}, not {value!r}"


def fill(account: Account, base: str, secrets: dict[str, dict[str, str]]) -> None:
    """What people do by hand: aws secretsmanager put-secret-value."""
    manager = account.client("secretsmanager")
    for owner, values in secrets.items():
        manager.put_secret_value(SecretId=f"{base}/{owner}", SecretString=json.dumps(values))


def rehearse(account: Account, base: str, secrets: dict[str, dict[str, str]]) -> Iterator[str]:
    """Each thing that preflight must find, in the order in which somebody would mend it."""
    wanted = Wanted(STACK, REGION, PARAMETERS)
    repository = account.client("ecr")

    def expect(what: str, *parts: str) -> Iterator[str]:
        found = [*refused_main(wanted, account.client)]
        parts = (*parts, "has no Valkey 9.1")  # this emulator knows 8.1
        if len(found) != len(parts) or not all(part in one for part, one in zip(parts, found, strict=True)):
            yield f"preflight, {what}: {found}"

    yield from expect("secrets empty", "alpaca is not filled", "clients is not filled", "has no image")
    fill(account, base, {**secrets, "alpaca": {**secrets["alpaca"], "BROKER_API_KEY": "your_production_key"}})
    yield from expect("sample of the guide", "sample for BROKER_API_KEY", "has no image")
    fill(account, base, {**secrets, "alpaca": {"BROKER_API_KEY": "k"}})
    yield from expect(
        "keys missing", "lacks BROKER_SECRET_KEY, MARKET_API_KEY, MARKET_SECRET_KEY", "has no image"
    )
    fill(account, base, secrets)
    name = outputs(account.client, base)["RepositoryNameValue"]
    for tag, architecture, said in (
        ("intel", "amd64", ["built for amd64, not for ARM64"]),
        ("arm", "arm64", []),
    ):
        manifest = {
            "schemaVersion": 2,
            "mediaType": INDEXES[0],
            "manifests": [{"platform": {"architecture": architecture}}],
        }
        put = repository.put_image(
            repositoryName=name,
            imageTag=tag,
            imageManifest=json.dumps(manifest),
            imageManifestMediaType=INDEXES[0],
        )
        wanted = Wanted(STACK, REGION, {**PARAMETERS, "ImageDigest": put["image"]["imageId"]["imageDigest"]})
        yield from expect(f"image for {architecture}", *said)


def set_up(account: Account, secrets: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Make everything, twice, and read it back."""
    base = f"{STACK}-base"
    exports = create(account, base, read("base"), {"DomainName": DOMAIN})
    wrong = [*rehearse(account, base, secrets)]
    manager = account.client("secretsmanager")
    for owner in secrets:
        exports[f"{base}-{owner.capitalize()}SecretArn"] = manager.describe_secret(
            SecretId=f"{base}/{owner}"
        )["ARN"]
    for stack, size in ((STACK, "standard"), (SECOND, "small")):
        create(account, stack, without_unknown(read(size)), {**PARAMETERS, "BaseStack": base})
        wrong += read_back(account, stack, size)
    wrong += turn_orange(account, SECOND)
    found = [*refused_main(Wanted(STACK, REGION, PARAMETERS), account.client)]
    if not any("exists (CREATE_COMPLETE)" in one for one in found):
        wrong.append(f"preflight, name in use: {found}")
    return {
        "exports": exports,
        "names": names(account, STACK, read("standard")),
        "parameters": {**_defaults(read("standard")), **PARAMETERS, "BaseStack": base, **PSEUDO},
        "wrong": wrong,
    }


def _defaults(content: dict[str, Any]) -> dict[str, str]:
    return {name: one["Default"] for name, one in content["Parameters"].items() if "Default" in one}


def tear_down(account: Account) -> None:
    """Delete both stacks of services and the base."""
    formation = account.client("cloudformation")
    for stack in (SECOND, STACK, f"{STACK}-base"):
        formation.delete_stack(StackName=stack)


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=4566)
    asked = parser.parse_args()
    secrets = json.loads(sys.stdin.readline())
    with emulator(asked.port) as url:
        account = Account(url)
        print(json.dumps(set_up(account, secrets)), flush=True)
        sys.stdin.read()
        tear_down(account)


if __name__ == "__main__":
    main()
