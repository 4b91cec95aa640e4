"""docs/deploy/aws-checks.md: every check, its step of the guide, and its planted faults."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deploy.aws.checks import CHECKS, Check
from deploy.aws.waivers import WAIVERS

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "deploy" / "aws-checks.md"
STEPS: Final = {
    "1": "Step 1: Valkey",
    "2": "Step 2: environment and secrets",
    "3": "Step 3: image and repository",
    "4": "Step 4: task definitions and services",
    "5": "Step 5: load balancer and certificate",
    "6": "Step 6: Cloudflare",
    "8": "Step 8: alarms, scaling, metrics",
    "9": "Step 9: hardening",
    "10": "Step 10: backups",
    "cost": "Appendix: cost",
    "hardening": "Beyond the guide: what a task may do",
    "field": "Beyond the guide: what people learned",
    "pitfalls": "Beyond the guide: pitfalls",
    "limits": "Limits of AWS",
    "links": "One part and another",
    "two stacks": "Two installations in one account",
    "agnostic": "Any account, any region",
    "bad input": "Bad input",
}


def page() -> str:
    """The whole page."""
    faults = sum(len(check.faults) for check in CHECKS.values())
    head = f"""\
# What is checked in the templates for AWS

{len(CHECKS)} checks, {faults} planted faults. Each fault is planted into the standard template, and its \
check must find it (`tests/aws/test_templates.py`); none may blame the original. The code is in \
`deploy/aws/checks`. This page is written by `make aws-templates`.
"""
    return "\n".join([head, *_tables(), *_waivers()]) + "\n"


def _tables() -> Iterator[str]:
    for step, title in STEPS.items():
        yield f"## {title}"
        yield "| check | holds | faults that it finds |"
        yield "| --- | --- | --- |"
        for check in CHECKS.values():
            if check.step == step:
                yield f"| `{check.name}` | {_cell(check.why)} | {_cell(_faults(check))} |"
        yield ""


def _faults(check: Check) -> str:
    return "; ".join(fault.name for fault in check.faults)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _waivers() -> Iterator[str]:
    yield "## Rules of ready-made checkers that are not followed"
    yield "| tool | rule | why |"
    yield "| --- | --- | --- |"
    for waiver in WAIVERS:
        yield f"| {waiver.tool} | {waiver.rule} | {waiver.reason} |"


def write() -> None:
    """Write the page."""
    PAGE.write_text(page())
