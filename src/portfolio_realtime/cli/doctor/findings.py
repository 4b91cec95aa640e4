"""The findings of checks, as a table for people and as JSON for programs."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from portfolio_realtime.redaction import clean


class Status(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARN = "warn"  # it works, but not as well as it should
    FAIL = "fail"  # it does not work
    SKIP = "skip"  # it could not be checked, for example because another check failed


@dataclass(frozen=True)
class Finding:
    """One line of the report; `remedy` says what to do, if anything."""

    check: str
    status: Status
    found: str
    remedy: str = ""


_STYLES: Final = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red", Status.SKIP: "dim"}


def is_healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing failed."""
    return all(finding.status is not Status.FAIL for finding in findings)


def redacted(findings: Iterable[Finding]) -> list[Finding]:
    """The findings without any secret, even if an error text repeats one."""
    return [replace(one, found=clean(one.found), remedy=clean(one.remedy)) for one in findings]


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as a JSON object: `healthy`, and `checks` with the fields of Finding."""
    return {"healthy": is_healthy(findings), "checks": [asdict(finding) for finding in findings]}


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print the findings as a table."""
    table = Table(show_edge=False, pad_edge=False, row_styles=["", ""])
    for name in ("", "check", "found", "what to do"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        status = Text(finding.status.value, style=_STYLES[finding.status])
        table.add_row(status, Text(finding.check), Text(finding.found), Text(finding.remedy))
    console.print(table)
    failed = sum(finding.status is Status.FAIL for finding in findings)
    console.print(Text(f"{failed} of {len(findings)} checks failed" if failed else "nothing failed"))
