"""Nothing is wrong with the templates that are kept, and each check finds the faults that it is there for."""

import json
from pathlib import Path

import pytest
from deploy.aws import document
from deploy.aws.alarms import RUNBOOK, alarms
from deploy.aws.checks import CHECKS, examine
from deploy.aws.checks.template import Template
from deploy.aws.sizes import SIZES
from deploy.aws.task_definitions import FOLDER, task_definitions
from deploy.aws.valkey_users import USERS

from portfolio_realtime.state import rights

ROOT = Path(__file__).parents[2]
GUIDE_STEPS = {"1", "2", "3", "4", "5", "6", "8", "9", "10", "cost"}  # 7 is the page, 11 the load tests


def test_the_originals_are_not_blamed(template: Template) -> None:
    """Each check holds in both sizes."""
    assert examine(template) == []


@pytest.mark.parametrize("name", [*CHECKS])
def test_each_fault_is_found(name: str, standard: Template) -> None:
    """A check that a fault escapes, or that cannot be read with it, checks nothing."""
    check = CHECKS[name]
    for fault in check.faults:
        changed = standard.copy()
        fault.plant(changed)
        assert (changed.content, changed.base) != (standard.content, standard.base), fault.name
        assert list(check.examine(changed)), f"{name} does not find: {fault.name}"


def test_each_step_of_the_guide_has_checks() -> None:
    """No row is left out."""
    assert {check.step for check in CHECKS.values()} >= GUIDE_STEPS


def test_the_task_definitions_are_those_of_the_template() -> None:
    """What people register by hand is made from the same source: make aws-templates."""
    kept = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
    assert kept == task_definitions()


def test_the_page_shows_every_check() -> None:
    """docs/deploy/aws-checks.md: make aws-templates."""
    assert {check.step for check in CHECKS.values()} <= document.STEPS.keys()
    assert document.PAGE.read_text() == document.page()


def test_the_users_are_those_of_the_table_of_keys() -> None:
    """make aws-templates."""
    assert USERS.read_text() == rights.as_json()


def test_each_alarm_names_a_page_that_exists(template: Template) -> None:
    """Whoever is woken finds what to type."""
    for alarm in alarms(SIZES[template.size]):
        assert (ROOT / RUNBOOK / f"{alarm.page}.md").is_file(), alarm.name
