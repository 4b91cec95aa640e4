"""What ready-made checkers find of the planted faults: `.venv/bin/python -m benchmarks.aws.checkers`.

Every fault of every check is a template of its own: the resources that it changes, and those that they refer
to; beside it the same resources without it. A checker finds a fault when it says something of the one
that it does not say of the other. cfn-lint, checkov and AWS's validator are fetched by uv, each at its
version here. Prints a table, and with --json which checker found which fault.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from deploy.aws.checks import CHECKS
from deploy.aws.checks.template import Template
from deploy.aws.files import TEMPLATES, read
from deploy.aws.waivers import waived

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PINNED: Final = {
    "cfn-lint": "cfn-lint==1.58.0",
    "checkov": "checkov==3.3.30",
    "cloudformation-validate": "cloudformation-validate==1.14.0",
}
VALIDATE: Final = """
import json, pathlib, sys
from cloudformation_validate import CompositeEngine
engine = CompositeEngine()
found = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
    report = engine.validate_template(path)
    found[path.stem] = [[one.rule_id, getattr(one.entity, "logical_id", None) or str(one.entity), one.message]
                        for one in report.diagnostics if one.severity.name != "INFO"]
print(json.dumps(found))
"""
Said = Mapping[str, set[tuple[str, ...]]]  # template -> what a checker says of it


@dataclass(frozen=True)
class Planted:
    """One fault, in the file `name`; the same without it is in `name`-without."""

    name: str
    check: str
    fault: str


def plant_all(folder: Path) -> list[Planted]:
    """Write two templates for each fault."""
    standard = Template(read("standard"), "standard", read("base"))
    planted: list[Planted] = []
    for check in CHECKS.values():
        for fault in check.faults:
            changed = standard.copy()
            fault.plant(changed)
            is_base = changed.base != standard.base
            before = standard.base if is_base else standard.content
            after = changed.base if is_base else changed.content
            name = f"fault-{len(planted):03d}"
            names = _concerned(before, after)
            for suffix, content in (("", after), ("-without", before)):
                kept = {one: body for one, body in content["Resources"].items() if one in names}
                (folder / f"{name}{suffix}.json").write_text(
                    json.dumps({**content, "Resources": kept}, indent=1)
                )
            planted.append(Planted(name, check.name, fault.name))
    return planted


def _concerned(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """What was changed, or one resource where it was something else, and what that refers to."""
    old, new = before["Resources"], after["Resources"]
    changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)} or {
        next(iter(new))
    }
    text = json.dumps([old.get(name, new.get(name)) for name in changed])
    return changed | {name for name in old if f'"{name}"' in text}


def by_validator(folder: Path) -> Said:
    """AWS's own validator, errors and warnings."""
    command = ("uv", "run", "--quiet", "--no-project", "--with", PINNED["cloudformation-validate"], "python")
    found = json.loads(_output([*command, "-c", VALIDATE, str(folder)]))
    return {name: {tuple(one) for one in said} for name, said in found.items()}


def by_cfn_lint(folder: Path) -> Said:
    """cfn-lint, errors and warnings."""
    found: dict[str, set[tuple[str, ...]]] = {}
    files = sorted(map(str, folder.glob("*.json")))
    command = ("uvx", "--quiet", "--from", PINNED["cfn-lint"], "cfn-lint", "--format", "json")
    for one in json.loads(_output([*command, *files])):
        where = ".".join(map(str, one["Location"]["Path"]))
        found.setdefault(Path(one["Filename"]).stem, set()).add((one["Rule"]["Id"], where, one["Message"]))
    return found


def by_checkov(folder: Path) -> Said:
    """checkov, all its policies for CloudFormation."""
    command = (
        "uvx",
        "--quiet",
        PINNED["checkov"],
        "--directory",
        str(folder),
        "--framework",
        "cloudformation",
    )
    report = json.loads(_output([*command, "--output", "json", "--quiet", "--compact", "--skip-download"]))
    found: dict[str, set[tuple[str, ...]]] = {}
    for one in report["results"]["failed_checks"]:
        found.setdefault(Path(one["file_path"]).stem, set()).add((one["check_id"], one["resource"]))
    for name in report["results"].get("parsing_errors", []):
        found.setdefault(Path(name).stem, set()).add(("unreadable",))
    return found


def _output(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise SystemExit(f"{' '.join(command[:6])}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def by_nag(folder: Path) -> Said:
    """cdk-nag's AwsSolutions, over the templates as the CDK includes them."""
    found = json.loads(
        _output([str(ROOT / ".venv-aws/bin/python"), "-m", "deploy.aws.stack.nag", str(folder)])
    )
    return {name: {tuple(one) for one in said} for name, said in found.items()}


def disagreements() -> list[str]:
    """checkov's findings that are not waived, and waivers of what it does not find."""
    found = {rule for said in by_checkov(TEMPLATES).values() for rule, *_ in said}
    known = waived("checkov").keys()
    return [
        *(f"checkov: {rule} is found, and not waived" for rule in sorted(found - known)),
        *(f"checkov: {rule} is waived, and nothing breaks it" for rule in sorted(known - found)),
    ]


CHECKERS: Final[Mapping[str, Callable[[Path], Said]]] = {
    "cloudformation-validate 1.14.0": by_validator,
    "cfn-lint 1.58.0": by_cfn_lint,
    "checkov 3.3.30": by_checkov,
    "cdk-nag 3.0.2, AwsSolutions": by_nag,
}


def judge(planted: list[Planted], said: Said) -> set[str]:
    """The faults that a checker has found."""
    nothing: set[tuple[str, ...]] = set()
    return {
        one.name for one in planted if said.get(one.name, nothing) - said.get(f"{one.name}-without", nothing)
    }


def main() -> None:
    """Plant, ask each checker, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write which checker found which fault")
    parser.add_argument("--only", help="one of the checkers, by the beginning of its name")
    asked = parser.parse_args()
    chosen = {name: run for name, run in CHECKERS.items() if name.startswith(asked.only or "")}
    if not chosen:
        parser.error(f"--only {asked.only!r} is no checker: choose from {', '.join(CHECKERS)}")
    with TemporaryDirectory(prefix="faults-") as folder:
        planted = plant_all(Path(folder))
        results: dict[str, set[str]] = {}
        for name, run in chosen.items():
            results[name] = judge(planted, run(Path(folder)))
            print(f"{name}: {len(results[name])} of {len(planted)}", file=sys.stderr, flush=True)
    _tell(planted, results)
    if "checkov".startswith(asked.only or "") and (wrong := disagreements()):
        sys.exit("\n".join(wrong))
    if asked.json:
        asked.json.write_text(json.dumps(_as_json(planted, results), indent=1) + "\n")


def _tell(planted: list[Planted], results: Mapping[str, set[str]]) -> None:
    print(f"| {len(CHECKS)} checks, {len(planted)} planted faults | found |\n| --- | ---: |")
    print(f"| our checks, as tests/aws proves | {len(planted)} |")
    for name, found in results.items():
        print(f"| {name} | {len(found)} |")
    print(f"| all ready-made ones together | {len(set[str]().union(*results.values()))} |")


def _as_json(planted: list[Planted], results: Mapping[str, set[str]]) -> list[dict[str, Any]]:
    return [
        {
            "check": one.check,
            "fault": one.fault,
            "found_by": [name for name, found in results.items() if one.name in found],
        }
        for one in planted
    ]


if __name__ == "__main__":
    main()
