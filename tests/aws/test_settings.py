"""What the task definitions tell the services is what the product understands."""

import os

import pytest
from deploy.aws.checks.template import Template, container
from deploy.aws.metrics import DEPLOYMENT, NAMESPACE, OWN, SERVICE
from deploy.aws.resolve import Account
from deploy.aws.services import SERVICES
from typer.testing import CliRunner

from portfolio_realtime import embedded_metrics
from portfolio_realtime.cli.app import app

STRONG = "kQ3vZ8mT1xW6rB9nL4cH7yF2sD5gJ0pA"
IN_AN_ACCOUNT = {
    "AWS::StackName": "portfolio",
    "AWS::AccountId": "1" * 12,
    "AWS::Region": "eu-north-1",
    "AWS::URLSuffix": "amazonaws.com",
    "BaseStack": "base",
    "ImageDigest": "sha256:" + "0" * 64,
    "AllowedOrigins": "https://app.example.com,https://www.example.com:8443",
    "AlpacaSandbox": "false",
    "AlpacaDataFeed": "sip",
    "CpuArchitecture": "ARM64",
}


@pytest.mark.parametrize("is_orange", [False, True])
@pytest.mark.parametrize("service", [service.name for service in SERVICES])
def test_check_config_is_content(
    template: Template, service: str, is_orange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With references filled in and strong secrets, the command that people run exits with 0."""
    account = Account(
        IN_AN_ACCOUNT,
        {f"base-{name}": name for name in ("RepositoryName", "AlpacaSecretArn", "ClientsSecretArn")},
        conditions={"IsBehindCloudflare": is_orange},
    )
    definition = account.value(container(template.task(service)))
    for name in [*os.environ]:
        if name.isupper() and name not in ("PATH", "HOME"):
            monkeypatch.delenv(name)
    monkeypatch.chdir("/")
    for one in definition["Environment"]:
        monkeypatch.setenv(one["Name"], one["Value"])
    for one in definition["Secrets"]:
        monkeypatch.setenv(one["Name"], STRONG)
    answer = CliRunner().invoke(app, ["check-config"])
    assert answer.exit_code == 0, answer.output


def test_the_metrics_that_are_used_are_written() -> None:
    """Alarms, scaling and the dashboard look at what the services list."""
    assert (NAMESPACE, (DEPLOYMENT, SERVICE)) == (embedded_metrics.NAMESPACE, embedded_metrics.DIMENSIONS)
    for service, used in OWN.items():
        assert set(used) <= {metric.name for metric in embedded_metrics.metrics_of(service)}, service
