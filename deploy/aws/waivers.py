"""Rules of ready-made checkers that we do not follow, each with its reason."""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Waiver:
    """One rule of one tool, for the whole of every template."""

    tool: Literal["cdk-nag", "checkov"]
    rule: str
    reason: str


_ROTATION: Final = (
    "People rotate them: Alpaca's keys in its dashboard, Valkey's with a second password beside."
)
_INSIGHTS: Final = (
    "Container Insights is billed by the metric; AWS/ECS and the services' own metrics feed every alarm."
)
_ACCESS_LOG: Final = (
    "An access log would hold tickets and account ids from URLs; refusals are counted and logged without."
)
_OPEN: Final = "Browsers come from everywhere, until Cloudflare stands before it: then only its networks may."
_OWN_KEY: Final = "AWS encrypts with its own key; one of ours costs $1 a month and must never be lost."

WAIVERS: Final = (
    Waiver("cdk-nag", "AwsSolutions-SMG4", _ROTATION),
    Waiver("cdk-nag", "AwsSolutions-EC23", _OPEN),
    Waiver(
        "cdk-nag",
        "AwsSolutions-AEC6",
        "It does not look at user groups, where users with passwords and least rights stand.",
    ),
    Waiver("cdk-nag", "AwsSolutions-ECS4", _INSIGHTS),
    Waiver(
        "cdk-nag",
        "AwsSolutions-IAM5[Resource::*]",
        "ecr:GetAuthorizationToken knows no resource; nothing else has it.",
    ),
    Waiver(
        "cdk-nag",
        "AwsSolutions-ECS2",
        "Settings are no secrets; those stand under Secrets, which our own check proves.",
    ),
    Waiver("cdk-nag", "AwsSolutions-ELB2", _ACCESS_LOG),
    Waiver("checkov", "CKV_AWS_136", _OWN_KEY),
    Waiver("checkov", "CKV_AWS_149", _OWN_KEY),
    Waiver("checkov", "CKV_AWS_158", _OWN_KEY),
    Waiver("checkov", "CKV_AWS_26", "Alarms cannot use AWS's key for topics; their names are no secret."),
    Waiver("checkov", "CKV_AWS_65", _INSIGHTS),
    Waiver("checkov", "CKV_AWS_91", _ACCESS_LOG),
)


def waived(tool: str) -> dict[str, str]:
    """Rule -> reason, of one tool."""
    return {waiver.rule: waiver.reason for waiver in WAIVERS if waiver.tool == tool}
