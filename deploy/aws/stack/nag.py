"""cdk-nag's AwsSolutions as a plugin of synthesis, compared with the table of waivers in both directions."""

import json
from pathlib import Path
from typing import Any, Final

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks
from deploy.aws.waivers import waived

REPORT: Final = "validation-report.json"
PLUGIN: Final = "AwsSolutions"


def add_nag(app: cdk.App) -> None:
    """Judge all stacks of this app; nothing is waived here, so synthesis fails where anything is found."""
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app, verbose=False))


def disagreements(folder: Path) -> list[str]:
    """What was found and is not waived, and waivers of what was not found, from the report of a synthesis."""
    reports: list[dict[str, Any]] = json.loads((folder / REPORT).read_text())["pluginReports"]
    found: dict[str, str] = {}
    for report in reports:
        for violation in report.get("violations", []):
            where = {one.get("constructPath", "?") for one in violation.get("violatingConstructs", [])}
            found[violation["ruleName"]] = f"{violation['description']} {', '.join(sorted(where))[:200]}"
    known = waived("cdk-nag")
    return [
        *(f"{rule}: {says}" for rule, says in sorted(found.items()) if rule not in known),
        *(
            f"{rule} is waived, and nothing breaks it: take it out"
            for rule in sorted(known.keys() - found.keys())
        ),
    ]
