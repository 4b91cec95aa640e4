"""Alpaca's published OpenAPI files as validators of what the simulator answers."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "reference" / "openapi"

_FORMATS = jsonschema.FormatChecker(formats=[])
_PATTERNS = {
    "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "decimal": r"-?\d+(\.\d+)?",
    "ulid": r"[0-7][0-9A-HJKMNP-TV-Z]{25}",
    "date": r"\d{4}-\d\d-\d\d",
    "date-time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)",
}


def _matcher(pattern: str) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, str) or bool(re.fullmatch(pattern, value))


for name, pattern in _PATTERNS.items():
    _FORMATS.checks(name)(_matcher(pattern))


@functools.cache
def _document(file: str) -> dict[str, Any]:
    path = FOLDER / f"{file}.yaml"
    if not path.exists():
        pytest.skip("the OpenAPI files are not beside this repository")
    return _plain(yaml.load(path.read_text(), Loader=yaml.CSafeLoader))


def _components(file: str) -> dict[str, Any]:
    return _document(file)["components"]


def _plain(node: Any) -> Any:
    """OpenAPI to JSON Schema: `nullable`, and `oneOf` whose branches overlap without their discriminator."""
    if isinstance(node, list):
        return [_plain(item) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    plain = {key: _plain(value) for key, value in cast("dict[str, Any]", node).items() if key != "example"}
    if "oneOf" in plain and isinstance(plain["oneOf"], list):
        plain["anyOf"] = plain.pop("oneOf")
    if plain.pop("nullable", None) is True and isinstance(plain.get("type"), str):
        plain["type"] = [plain["type"], "null"]
    return plain


@functools.cache
def _validator(file: str, schema_name: str) -> jsonschema.Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{schema_name}", "components": _components(file)}
    return jsonschema.Draft202012Validator(schema, format_checker=_FORMATS)


def check(file: str, schema_name: str, value: Any, of_array: bool = False) -> None:
    """Fail unless the value (or each of an array) has the shape that Alpaca published."""
    if of_array:
        assert isinstance(value, list), f"not an array of {schema_name}"
    values = cast("list[Any]", value) if of_array else [value]
    validator = _validator(file, schema_name)
    errors = [
        f"{error.json_path}: {error.message[:300]}" for row in values for error in validator.iter_errors(row)
    ]
    assert not errors, f"{schema_name}: {errors}"


def published_path(file: str, path: str) -> str | None:
    """The path of the same shape that a file documents for GET; parameters may have other names."""
    shape = _shape(path)
    return next(
        (p for p, verbs in _document(file)["paths"].items() if "get" in verbs and _shape(p) == shape), None
    )


def _shape(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def check_answer(file: str, path: str, value: Any) -> None:
    """Fail unless the value is what a file documents as the JSON answer of `GET path`."""
    answer = _document(file)["paths"][path]["get"]["responses"]["200"]
    if "$ref" in answer:
        answer = _components(file)["responses"][answer["$ref"].rpartition("/")[2]]
    schema = {**answer["content"]["application/json"]["schema"], "components": _components(file)}
    validator = jsonschema.Draft202012Validator(schema, format_checker=_FORMATS)
    errors = [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(value)]
    assert not errors, f"{path}: {errors[:5]}"


def check_no_extra(file: str, schema_name: str, row: dict[str, Any]) -> None:
    """Fail on a key that Alpaca does not document for this object."""
    extra = set(row) - _keys(_components(file)["schemas"], schema_name)
    assert not extra, f"{schema_name} has no {extra}"


def _keys(schemas: dict[str, Any], name: str) -> set[str]:
    def walk(schema: dict[str, Any]) -> set[str]:
        if "$ref" in schema:
            return walk(schemas[schema["$ref"].rpartition("/")[2]])
        keys = set(schema.get("properties", {}))
        for part in [*schema.get("allOf", []), *schema.get("anyOf", [])]:
            keys |= walk(part)
        return keys

    return walk(schemas[name])
