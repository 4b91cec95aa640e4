"""Makes pages of the documentation, as Markdown: settings, HTTP API, WebSocket messages."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, get_args, get_origin

import msgspec
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from portfolio_realtime.config import Settings
from portfolio_realtime.config.meanings import MEANINGS

Schema = Mapping[str, Any]

GROUPS: Final = {  # the first setting of a group -> its heading
    "broker_api_key": "Alpaca: keys",
    "alpaca_sandbox": "Alpaca: hosts and feeds",
    "redis_url": "Valkey or Redis",
    "symbol_collection_interval": "Intervals, in seconds",
    "websocket_host": "Server",
    "jwt_secret": "Credentials and access",
    "allowed_origins": "Browsers, proxies and operators",
    "connections_per_user": "Limits",
    "demo_page": "Demo",
    "shards": "Inside",
}
METHODS: Final = ("get", "post", "put", "delete")


def settings_tables() -> str:
    """Tables of all settings by group: name, default, allowed values, meaning."""
    lines: list[str] = []
    for name, field in Settings.model_fields.items():
        if name in GROUPS:
            lines += ["", f"## {GROUPS[name]}", "", "| setting | default | values | meaning |"]
            lines += ["| --- | --- | --- | --- |"]
        meaning = MEANINGS.get(name) or field.description or ""
        row = [f"`{name.upper()}`", _default(field), _values(field), meaning]
        lines.append(_row(row))
    return "\n".join(lines).strip() + "\n"


def _default(field: FieldInfo) -> str:
    value = field.get_default()
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, bool):
        return f"`{str(text).lower()}`"
    return "" if text == "" else f"`{text}`"


def _values(field: FieldInfo) -> str:
    if field.annotation is SecretStr:
        return "secret"
    if field.annotation is bool:
        return "`true`, `false`"
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" if value else "empty" for value in get_args(field.annotation))
    limits = {type(part).__name__: part for part in field.metadata}
    low = next((getattr(limits[name], name.lower()) for name in ("Ge", "Gt") if name in limits), None)
    high = getattr(limits.get("Le"), "le", None)
    if low is None:
        return ""
    sign = ">" if "Gt" in limits else "≥"
    return (
        f"{low} to {high}"
        if high is not None and sign == "≥"
        else f"{sign} {low}" + (f", ≤ {high}" if high is not None else "")
    )


def http_reference(openapi: Schema) -> str:
    """A page of all routes with their parameters and responses, from the OpenAPI document."""
    lines = ["# HTTP reference", "", openapi["info"].get("description", ""), ""]
    for path, route in openapi["paths"].items():
        for method in (name for name in METHODS if name in route):
            operation = route[method]
            lines += [f"## `{method.upper()} {path}`", "", operation.get("summary", ""), ""]
            lines += [operation.get("description", ""), ""]
            lines += _parameters(operation.get("parameters", []))
            lines += _answers(operation["responses"])
    lines += ["## Objects", "", *_schemas(openapi["components"].get("schemas", {}))]
    return _page(lines)


def wire_reference(asyncapi: Schema) -> str:
    """A page of all WebSocket messages with their fields, from the AsyncAPI document."""
    lines = ["# WebSocket reference", "", asyncapi["info"].get("description", ""), ""]
    lines += ["Endpoints:", ""]
    for channel in asyncapi["channels"].values():
        lines.append(f"- `{channel['address']}`: {channel.get('description', '')}")
    lines += ["", "## Messages", ""]
    for name, message in asyncapi["components"]["messages"].items():
        lines += [f"### {message.get('title', name)}", "", message.get("summary", ""), ""]
        for example in message.get("examples", [])[:1]:
            text = msgspec.json.format(msgspec.json.encode(example["payload"]), indent=2).decode()
            lines += ["```json", text, "```", ""]
    lines += ["## Fields", "", *_schemas(asyncapi["components"].get("schemas", {}))]
    return _page(lines)


def _parameters(parameters: Sequence[Schema]) -> list[str]:
    if not parameters:
        return []
    rows = [
        _row(
            (
                f"`{one['name']}`",
                one["in"],
                "yes" if one.get("required") else "",
                _type(one.get("schema", {})),
                one.get("description", ""),
            )
        )
        for one in parameters
    ]
    return ["| parameter | in | required | type | meaning |", "| --- | --- | --- | --- | --- |", *rows, ""]


def _answers(responses: Schema) -> list[str]:
    rows = [
        _row((f"`{status}`", ", ".join(answer.get("content", {})), answer.get("description", "")))
        for status, answer in responses.items()
    ]
    return ["| status | content | meaning |", "| --- | --- | --- |", *rows, ""]


def _schemas(schemas: Schema) -> Iterable[str]:
    for name, schema in schemas.items():
        yield from (f"### {name}", "", schema.get("description", ""), "")
        fields = schema.get("properties")
        if not fields:
            yield from (_type(schema), "")
            continue
        required = schema.get("required", [])
        yield from ("| field | type | always there | meaning |", "| --- | --- | --- | --- |")
        for field, kind in fields.items():
            yield _row(
                (
                    f"`{field}`",
                    _type(kind),
                    "yes" if field in required else "",
                    kind.get("description", ""),
                )
            )
        yield ""


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(_type(one) for one in schema[several])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _page(lines: Iterable[str]) -> str:
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip() + "\n"
