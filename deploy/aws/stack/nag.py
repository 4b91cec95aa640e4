"""cdk-nag's AwsSolutions as a plugin of synthesis, compared with the table of waivers in both directions.

`.venv-aws/bin/python -m deploy.aws.stack.nag FOLDER` prints what it says of each template in a folder.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import aws_cdk as cdk
from aws_cdk import cloudformation_include
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


def said_of(folder: Path) -> dict[str, list[list[str]]]:
    """Template -> rule and resource of each finding; resources that are only referred to are stood in for."""
    found: dict[str, list[list[str]]] = {}
    for path in sorted(folder.glob("*.json")):
        with TemporaryDirectory() as made:
            found[path.stem] = [*_said(json.loads(path.read_text()), Path(made))]
    return found


def _said(content: dict[str, Any], made: Path) -> Iterator[list[str]]:
    (made / "whole.json").write_text(json.dumps(_whole(content)))
    app = cdk.App(outdir=str(made), analytics_reporting=False, tree_metadata=False)
    add_nag(app)
    stack = cdk.Stack(app, "all", synthesizer=cdk.BootstraplessSynthesizer())
    try:
        cloudformation_include.CfnInclude(stack, "All", template_file=str(made / "whole.json"))
        app.synth()
    except RuntimeError as error:
        if "ValidationFailed" not in str(error):  # the CDK itself cannot take it
            yield ["refused", str(error)[:80]]
            return
    for report in json.loads((made / REPORT).read_text())["pluginReports"]:
        for violation in report.get("violations", []):
            for one in violation.get("violatingConstructs", []):
                yield [violation["ruleName"], one.get("constructPath", "")]


def _whole(content: dict[str, Any]) -> dict[str, Any]:
    known = {*content["Resources"], *content.get("Parameters", {})}
    stand_in = {"Type": "AWS::CloudFormation::WaitConditionHandle"}
    missing = {name: stand_in for name in _referred(content["Resources"]) if name not in known}
    return {**content, "Resources": {**content["Resources"], **missing}}


def _referred(content: Any) -> Iterator[str]:
    if isinstance(content, list):
        for part in content:
            yield from _referred(part)
    elif isinstance(content, dict):
        for name, part in content.items():
            if name == "Ref" and not str(part).startswith("AWS::"):
                yield part
            elif name == "Fn::GetAtt":
                yield part[0]
            elif name == "DependsOn":
                yield from part
            else:
                yield from _referred(part)


if __name__ == "__main__":
    print(json.dumps(said_of(Path(sys.argv[1]))))
