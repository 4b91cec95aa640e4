"""Values of a template as they are in an account: functions worked out, references filled in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Account:
    """What CloudFormation would know: parameters, what the base stack exports, and names of resources.

    `name_of` gives the value of a Ref (`Id`) or a GetAtt (`Id.Attribute`).
    """

    parameters: Mapping[str, str]
    exports: Mapping[str, str]
    name_of: Callable[[str], str] = str
    conditions: Mapping[str, bool] = field(default_factory=dict[str, bool])

    def value(self, content: Any) -> Any:
        """This content without functions."""
        if isinstance(content, list):
            return [self.value(part) for part in content]
        if not isinstance(content, dict):
            return content
        if len(content) == 1:
            ((function, argument),) = content.items()
            if function == "Ref":
                return self._named(argument)
            if function.startswith("Fn::"):
                return self._function(function, argument)
        return {name: self.value(part) for name, part in content.items()}

    def _named(self, name: str) -> str:
        return self.parameters[name] if name in self.parameters else self.name_of(name)

    def _function(self, function: str, argument: Any) -> Any:
        if function == "Fn::GetAtt":
            return self.name_of(".".join(argument))
        if function == "Fn::Sub":
            return self._substituted(argument)
        if function == "Fn::ImportValue":
            return self.exports[self.value(argument)]
        if function == "Fn::If":
            condition, yes, no = argument
            return self.value(yes if self.conditions[condition] else no)
        if function == "Fn::Join":
            separator, parts = argument
            return separator.join(map(str, self.value(parts)))
        if function == "Fn::Select":
            index, listed = argument
            return self.value(listed)[int(index)]
        if function == "Fn::Split":
            separator, text = argument
            return self.value(text).split(separator)
        raise ValueError(f"{function} is not worked out here")

    def _substituted(self, argument: Any) -> str:
        pattern, names = (argument, {}) if isinstance(argument, str) else argument
        known = {name: self.value(part) for name, part in names.items()}
        while "${" in pattern:
            before, _, rest = pattern.partition("${")
            name, _, after = rest.partition("}")
            found = known[name] if name in known else self._named(name)
            pattern = f"{before}{found}{after}"
        return pattern
