"""The stack that comes first, and what holds for whole templates."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from deploy.aws.checks.registry import rule
from deploy.aws.checks.template import Resource, Template, strings, text_of
from deploy.aws.parameters import BASE_PARAMETERS, MAIN_PARAMETERS
from deploy.aws.services import SECRETS

RESOURCES_MAX: Final = 500
BYTES_MAX: Final = 1_000_000  # through S3; 51,200 in the request itself
NAMES: Final = {  # type -> the property that is a name in the account
    "AWS::ECS::Service": "ServiceName",
    "AWS::ECS::Cluster": "ClusterName",
    "AWS::ECS::TaskDefinition": "Family",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::CloudWatch::Dashboard": "DashboardName",
    "AWS::SecretsManager::Secret": "Name",
    "AWS::IAM::Role": "RoleName",
    "AWS::ElasticLoadBalancingV2::LoadBalancer": "Name",
    "AWS::ElasticLoadBalancingV2::TargetGroup": "Name",
    "AWS::EC2::SecurityGroup": "GroupName",
    "AWS::EC2::PrefixList": "PrefixListName",
    "AWS::ElastiCache::ReplicationGroup": "ReplicationGroupId",
    "AWS::ElastiCache::SubnetGroup": "CacheSubnetGroupName",
    "AWS::SNS::Topic": "TopicName",
}


def _base(template: Template, kind: str) -> Resource:
    return Template(template.base, template.size, template.base).one(kind)


def _repository(path: str, wrong: Any) -> Callable[[Template], None]:
    return lambda template: _base(template, "ECR::Repository").put(path, wrong)


def _rules(template: Template) -> list[dict[str, Any]]:
    return json.loads(_base(template, "ECR::Repository").get("LifecyclePolicy.LifecyclePolicyText"))["rules"]


def _aged(template: Template) -> None:
    rules = _rules(template)
    rules[-1]["selection"] = {
        "tagStatus": "any",
        "countType": "sinceImagePushed",
        "countUnit": "days",
        "countNumber": 30,
    }
    _repository("LifecyclePolicy.LifecyclePolicyText", json.dumps({"rules": rules}))(template)


@rule(
    "ecr.repository",
    "3",
    "tags cannot be moved, images are scanned, the newest are kept by count",
    ("movable tags", _repository("ImageTagMutability", "MUTABLE")),
    ("not scanned", _repository("ImageScanningConfiguration.ScanOnPush", False)),
    ("by age", _aged),
    (
        "deleted with the stack",
        lambda template: _base(template, "ECR::Repository").body.pop("DeletionPolicy"),
    ),
)
def _ecr(template: Template) -> Iterator[tuple[str, str]]:
    repository = _base(template, "ECR::Repository")
    if repository.get("ImageTagMutability") != "IMMUTABLE":
        yield repository.name, "a tag must stay what it was"
    if repository.get("ImageScanningConfiguration.ScanOnPush") is not True:
        yield repository.name, "images must be scanned"
    for each in _rules(template):
        chosen = each["selection"]
        if chosen["tagStatus"] != "untagged" and chosen["countType"] != "imageCountMoreThan":
            yield repository.name, "the image of a running service could expire by age: keep by count"
    if repository.body.get("DeletionPolicy") != "Retain":
        yield repository.name, "images must outlive the stack"


@rule(
    "certificate",
    "5",
    "a certificate for the domain, validated by DNS",
    (
        "by mail",
        lambda template: _base(template, "CertificateManager::Certificate").put("ValidationMethod", "EMAIL"),
    ),
    (
        "another domain",
        lambda template: _base(template, "CertificateManager::Certificate").put("DomainName", "x.org"),
    ),
)
def _certificate(template: Template) -> Iterator[tuple[str, str]]:
    certificate = _base(template, "CertificateManager::Certificate")
    if certificate.get("ValidationMethod") != "DNS" or certificate.get("DomainName") != {"Ref": "DomainName"}:
        yield certificate.name, "must be for DomainName, validated by DNS"


@rule(
    "secrets.owners",
    "2",
    "an empty secret for each owner, named by the stack, which outlives it",
    ("value in the template", lambda template: _secret(template).put("SecretString", "{}")),
    ("fixed name", lambda template: _secret(template).put("Name", "alpaca")),
    ("deleted", lambda template: _secret(template).body.update(DeletionPolicy="Delete")),
)
def _owners(template: Template) -> Iterator[tuple[str, str]]:
    found = Template(template.base, template.size, template.base).all("SecretsManager::Secret")
    names = {text_of(secret.get("Name")) for secret in found}
    if names != {f"${{AWS::StackName}}/{owner}" for owner in SECRETS}:
        yield "secrets", "must be STACK/OWNER for each owner"
    for secret in found:
        if set(secret.properties) - {"Name", "Description"}:
            yield secret.name, "people fill it: nothing is written in the template"
        if secret.body.get("DeletionPolicy") != "Retain":
            yield secret.name, "must outlive the stack"


def _secret(template: Template) -> Resource:
    return Template(template.base, template.size, template.base).all("SecretsManager::Secret")[0]


@rule(
    "imports",
    "links",
    "what is imported is exported by the base stack",
    (
        "renamed",
        lambda template: template.base["Outputs"]["CertificateArnValue"]["Export"].update(
            Name={"Fn::Sub": "${AWS::StackName}-Certificate"}
        ),
    ),
)
def _imports(template: Template) -> Iterator[tuple[str, str]]:
    exported = {
        text_of(output["Export"]["Name"]).removeprefix("${AWS::StackName}-")
        for output in template.base["Outputs"].values()
        if "Export" in output
    }
    for name in sorted(set(_imported(template.content))):
        if name not in exported:
            yield "base", f"does not export {name}"


def _imported(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        if "Fn::ImportValue" in content:
            yield text_of(content["Fn::ImportValue"]).removeprefix("${BaseStack}-")
        for part in content.values():
            yield from _imported(part)
    elif isinstance(content, list):
        for part in content:
            yield from _imported(part)


@rule(
    "references",
    "links",
    "every Ref, GetAtt and DependsOn names something that is there",
    (
        "unknown group",
        lambda template: template.one("ElasticLoadBalancingV2::Listener").put(
            "DefaultActions[0].TargetGroupArn", {"Ref": "Servers"}
        ),
    ),
)
def _references(template: Template) -> Iterator[tuple[str, str]]:
    known = {*template.content["Resources"], *template.content.get("Parameters", {})}
    for resource in template.everything():
        for name in {*_referred(resource.body), *resource.body.get("DependsOn", [])}:
            if name not in known and not name.startswith("AWS::"):
                yield resource.name, f"names {name}, which is not there"


def _referred(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        if "Ref" in content:
            yield content["Ref"]
        if "Fn::GetAtt" in content:
            yield content["Fn::GetAtt"][0]
        for part in content.values():
            yield from _referred(part)
    elif isinstance(content, list):
        for part in content:
            yield from _referred(part)


@rule(
    "names",
    "two stacks",
    "a name in the account holds the stack's, or CloudFormation makes it",
    ("fixed cluster", lambda template: template.one("ECS::Cluster").put("ClusterName", "portfolio")),
    ("fixed log", lambda template: template.all("Logs::LogGroup")[0].put("LogGroupName", "/ecs/portfolio")),
)
def _names(template: Template) -> Iterator[tuple[str, str]]:
    for resource in template.everything():
        name = resource.properties.get(NAMES.get(resource.kind, ""), None)
        if name is not None and "AWS::StackName" not in text_of(name):
            yield resource.name, "a second stack could not have this name, too"


@rule(
    "parameters",
    "bad input",
    "each parameter is the one of deploy/aws/parameters.py, so what cannot be is refused before anything changes",
    ("no pattern", lambda template: template.content["Parameters"]["ImageDigest"].pop("AllowedPattern")),
    (
        "default image",
        lambda template: template.content["Parameters"]["ImageDigest"].update(Default="latest"),
    ),
    ("one missing", lambda template: template.content["Parameters"].pop("AlertEmail")),
    (
        "domain not asked for",
        lambda template: template.base["Parameters"]["DomainName"].update(Default="example.com"),
    ),
)
def _parameters(template: Template) -> Iterator[tuple[str, str]]:
    for content, wanted in ((template.content, MAIN_PARAMETERS), (template.base, BASE_PARAMETERS)):
        found = content.get("Parameters", {})
        if found.keys() != {parameter.name for parameter in wanted}:
            yield "parameters", "are not those of deploy/aws/parameters.py"
        for parameter in wanted:
            one = found.get(parameter.name, {})
            if (one.get("Default"), one.get("AllowedPattern", "")) != (parameter.default, parameter.pattern):
                yield parameter.name, "its default or pattern is another one"
            if one.get("AllowedValues", []) != list(parameter.allowed):
                yield parameter.name, "its allowed values are others"


@rule(
    "limits",
    "limits",
    "within CloudFormation's limits",
    ("too large", lambda template: template.content.update(Description="x" * 2000)),
    (
        "too many",
        lambda template: template.content["Resources"].update(
            {f"Topic{number}": {"Type": "AWS::SNS::Topic"} for number in range(500)}
        ),
    ),
)
def _limits(template: Template) -> Iterator[tuple[str, str]]:
    if len(template.content["Resources"]) > RESOURCES_MAX:
        yield "template", f"has more than {RESOURCES_MAX} resources"
    if len(json.dumps(template.content)) > BYTES_MAX:
        yield "template", f"is larger than {BYTES_MAX} bytes"
    if len(template.content.get("Description", "")) > 1024:
        yield "template", "its description is longer than 1,024"


@rule(
    "no-bootstrap",
    "agnostic",
    "nothing of the CDK is needed in the account",
    (
        "bootstrapped",
        lambda template: template.content["Parameters"].update(
            BootstrapVersion={
                "Type": "AWS::SSM::Parameter::Value<String>",
                "Default": "/cdk-bootstrap/hnb659fds/version",
            }
        ),
    ),
    (
        "metadata",
        lambda template: template.content["Resources"].update(
            CDKMetadata={"Type": "AWS::CDK::Metadata", "Properties": {}}
        ),
    ),
)
def _no_bootstrap(template: Template) -> Iterator[tuple[str, str]]:
    for text in strings(template.content.get("Parameters", {})):
        if "cdk-bootstrap" in text:
            yield "parameters", "asks for a bootstrapped account"
    for resource in template.everything():
        if re.match(r"AWS::CDK::|Custom::", resource.kind):
            yield resource.name, f"{resource.kind} needs the CDK's own functions"
