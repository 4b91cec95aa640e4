"""Checks and the faults that each must find."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from deploy.aws.checks.template import ABSENT, Resource, Template

Plant = Callable[[Template], object]


@dataclass(frozen=True)
class Finding:
    """What is wrong, and with which resource."""

    check: str
    resource: str
    says: str


@dataclass(frozen=True)
class Fault:
    """A change that makes a good template wrong."""

    name: str
    plant: Plant


@dataclass(frozen=True)
class Check:
    """One thing that must hold: `step` is the guide's, or says what kind of rule it is."""

    name: str
    step: str
    why: str
    find: Callable[[Template], Iterable[tuple[str, str]]]
    faults: list[Fault] = field(default_factory=list[Fault])

    def examine(self, template: Template) -> Iterator[Finding]:
        """What this check finds."""
        for resource, says in self.find(template):
            yield Finding(self.name, resource, says)


CHECKS: Final[dict[str, Check]] = {}
Of = Callable[[Resource], bool]


def examine(template: Template) -> list[Finding]:
    """What all checks find."""
    return [finding for check in CHECKS.values() for finding in check.examine(template)]


def value(
    name: str,
    step: str,
    kind: str,
    path: str,
    holds: Callable[[Any], bool],
    wrong: Sequence[Any],
    why: str,
    of: Of = lambda resource: True,
) -> None:
    """Check one property of every resource of a type; each wrong value is a fault, ABSENT removes it."""

    def find(template: Template) -> Iterator[tuple[str, str]]:
        for resource in filter(of, template.all(kind)):
            found = resource.get(path)
            if not _safely(holds, found):
                yield resource.name, f"{path} is {'absent' if found is ABSENT else repr(found)[:80]}: {why}"

    def planted(wrong_value: Any) -> Plant:
        def plant(template: Template) -> None:
            [*filter(of, template.all(kind))][-1].put(path, wrong_value)

        return plant

    shown = {id(ABSENT): "absent"}
    faults = [Fault(f"{path}={shown.get(id(each), each)!s:.60}", planted(each)) for each in wrong]
    _register(Check(name, step, why, find, faults))


def rule(
    name: str, step: str, why: str, *faults: tuple[str, Plant]
) -> Callable[
    [Callable[[Template], Iterable[tuple[str, str]]]], Callable[[Template], Iterable[tuple[str, str]]]
]:
    """Register a function that yields (resource, what is wrong), with the faults that it must find."""

    def register(
        find: Callable[[Template], Iterable[tuple[str, str]]],
    ) -> Callable[[Template], Iterable[tuple[str, str]]]:
        _register(Check(name, step, why, find, [Fault(*fault) for fault in faults]))
        return find

    return register


def _register(check: Check) -> None:
    assert check.name not in CHECKS, check.name
    assert check.faults, f"{check.name} needs a fault that it finds"
    CHECKS[check.name] = check


def _safely(holds: Callable[[Any], bool], found: Any) -> bool:
    """A value of another type than expected does not hold."""
    try:
        return bool(holds(found))
    except (TypeError, ValueError, AttributeError, KeyError):
        return False


def is_exactly(wanted: Any) -> Callable[[Any], bool]:
    """Is it this value and of this type (`True` is not 1)?"""
    return lambda found: found == wanted and type(found) is type(wanted)


def is_between(least: float, most: float) -> Callable[[Any], bool]:
    """Is it a number between these?"""
    return lambda found: not isinstance(found, bool) and least <= float(found) <= most
