"""The stack that comes first: what must be filled or answered before the services can start."""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct
from deploy.aws.parameters import DOMAIN, REPOSITORY
from deploy.aws.services import SECRETS
from deploy.aws.stack.common import add_parameter, export

IMAGES_KEPT = 30  # counted, never aged: the image of a running service must not go
UNTAGGED_DAYS = 7


class BaseStack(cdk.Stack):
    """Repository of images, certificate, and the secrets that people fill."""

    def __init__(self, scope: Construct, name: str, **options: Any) -> None:
        super().__init__(scope, name, **options)
        domain = add_parameter(self, DOMAIN)
        repository = self._repository(add_parameter(self, REPOSITORY))
        certificate = acm.CfnCertificate(
            self,
            "Certificate",
            domain_name=domain.value_as_string,
            validation_method="DNS",
            key_algorithm="EC_prime256v1",
        )
        export(self, "DomainName", domain.value_as_string, "Where clients connect")
        export(
            self, "CertificateArn", certificate.ref, "Of the load balancer; valid once its DNS record exists"
        )
        export(self, "RepositoryName", repository.ref, "Push the image here")
        export(self, "RepositoryArn", repository.attr_arn, "Each service may pull from it")
        cdk.CfnOutput(self, "RepositoryUri", value=repository.attr_repository_uri, description="docker push")
        for owner, keys in SECRETS.items():
            secret = secretsmanager.CfnSecret(
                self,
                f"{owner.capitalize()}Secret",
                name=cdk.Fn.sub("${AWS::StackName}/" + owner),
                description=f"JSON with the keys {', '.join(keys)}",
            )
            secret.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
            export(self, f"{owner.capitalize()}SecretArn", secret.ref, f"Holds {', '.join(keys)}")

    def _repository(self, name: cdk.CfnParameter) -> ecr.CfnRepository:
        rules = [
            _rule(1, "untagged", "sinceImagePushed", UNTAGGED_DAYS, {"countUnit": "days"}),
            _rule(2, "any", "imageCountMoreThan", IMAGES_KEPT, {}),
        ]
        repository = ecr.CfnRepository(
            self,
            "Repository",
            repository_name=name.value_as_string,
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration={"scanOnPush": True},
            lifecycle_policy={"lifecyclePolicyText": self.to_json_string({"rules": rules})},
        )
        repository.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
        return repository


def _rule(priority: int, status: str, kind: str, number: int, more: dict[str, Any]) -> dict[str, Any]:
    selection = {"tagStatus": status, "countType": kind, "countNumber": number, **more}
    return {"rulePriority": priority, "selection": selection, "action": {"type": "expire"}}
