"""A CloudFormation template as JSON, with what checks ask of it."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

ABSENT: Final = object()
_SEGMENT: Final = re.compile(r"([A-Za-z0-9_:-]+)|\[([A-Za-z]+)=([^\]]+)\]|\[(\d+)\]")


@dataclass(frozen=True)
class Resource:
    """One resource; `body` is part of the template and may be changed by a fault."""

    name: str
    kind: str
    body: dict[str, Any]

    @property
    def properties(self) -> dict[str, Any]:
        """Its properties."""
        return self.body.setdefault("Properties", {})

    def get(self, path: str) -> Any:
        """What stands at a path such as `Attributes[Key=idle].Value` or `Containers[0].Name`; else ABSENT."""
        found: Any = self.properties
        for segment in _segments(path):
            found = _step(found, segment)
            if found is ABSENT:
                return ABSENT
        return found

    def put(self, path: str, value: Any) -> None:
        """Set, or with ABSENT remove, what stands at a path; what leads to it must be there."""
        *way, last = list(_segments(path))
        holder: Any = self.properties
        for segment in way:
            holder = _step(holder, segment)
            assert holder is not ABSENT, f"{self.name}: nothing at {path}"
        if isinstance(last, tuple):
            holder, last = holder, holder.index(_step(holder, last))
        if value is ABSENT:
            del holder[last]
        else:
            holder[last] = value


class Template:
    """A template and its size; `base` is the template from which it imports."""

    def __init__(self, content: dict[str, Any], size: str, base: dict[str, Any]) -> None:
        self.content, self.size, self.base = content, size, base

    def copy(self) -> "Template":
        """Another one, to be changed."""
        return Template(copy.deepcopy(self.content), self.size, copy.deepcopy(self.base))

    def all(self, kind: str) -> list[Resource]:
        """The resources of a type, written with or without `AWS::`."""
        wanted = kind if kind.startswith("AWS::") else f"AWS::{kind}"
        return [
            Resource(name, wanted, body)
            for name, body in self.content["Resources"].items()
            if body["Type"] == wanted
        ]

    def one(self, kind: str) -> Resource:
        """The only resource of a type."""
        (found,) = self.all(kind)
        return found

    def named(self, name: str) -> Resource | None:
        """The resource of this logical id."""
        body = self.content["Resources"].get(name)
        return None if body is None else Resource(name, body["Type"], body)

    def everything(self) -> Iterator[Resource]:
        """All resources."""
        for name, body in self.content["Resources"].items():
            yield Resource(name, body["Type"], body)

    def task(self, service: str) -> Resource:
        """The task definition with a container of this name."""
        return next(task for task in self.all("ECS::TaskDefinition") if container(task)["Name"] == service)

    def service(self, name: str) -> Resource | None:
        """The ECS service that runs this task definition."""
        task = self.task(name).name
        return next(
            (one for one in self.all("ECS::Service") if refers(one.get("TaskDefinition")) == task), None
        )


def container(task: Resource) -> dict[str, Any]:
    """The only container of a task definition."""
    return task.properties["ContainerDefinitions"][0]


def refers(value: Any) -> str:
    """The logical id that a Ref or a GetAtt names; empty for anything else."""
    if isinstance(value, dict):
        if "Ref" in value:
            return str(value["Ref"])
        if "Fn::GetAtt" in value:
            return str(value["Fn::GetAtt"][0])
    return ""


def text_of(value: Any) -> str:
    """A value with its functions as text: `Fn::Join` and `Fn::Sub` are written out, references as `<name>`."""
    if not isinstance(value, dict):
        return str(value)
    ((function, argument),) = value.items()
    if function == "Fn::Join":
        return str(argument[0]).join(text_of(part) for part in argument[1])
    if function == "Fn::Sub":
        pattern, names = (argument, {}) if isinstance(argument, str) else argument
        for name, replacement in names.items():
            pattern = pattern.replace(f"${{{name}}}", text_of(replacement))
        return str(pattern)
    if function == "Fn::ImportValue":
        return f"<import {text_of(argument)}>"
    if function == "Ref":
        return f"<{argument}>"
    if function == "Fn::GetAtt":
        return f"<{'.'.join(argument)}>"
    return f"<{function} {argument}>"


def strings(value: Any) -> Iterator[str]:
    """Every text in a value, keys of objects aside."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def _segments(path: str) -> Iterator[str | int | tuple[str, str]]:
    for name, key, wanted, index in _SEGMENT.findall(path):
        yield name or (int(index) if index else (key, wanted))


def _step(holder: Any, segment: str | int | tuple[str, str]) -> Any:
    if isinstance(segment, tuple):
        key, wanted = segment
        listed: list[Any] = holder if isinstance(holder, list) else []
        return next((item for item in listed if item.get(key) == wanted), ABSENT)
    if isinstance(segment, int):
        return holder[segment] if isinstance(holder, list) and segment < len(holder) else ABSENT
    return holder.get(segment, ABSENT) if isinstance(holder, dict) else ABSENT
