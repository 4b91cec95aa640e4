"""`/docs`: the HTTP routes, the messages and the close codes as one plain page, made from the types."""

import html
from collections.abc import Iterable
from typing import Any

import msgspec

from portfolio_realtime.wire.messages import FROM_CLIENT, FROM_SERVER, Disconnect


def render(document: dict[str, Any]) -> str:
    """The page for an OpenAPI document."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<title>Reference</title><link rel="stylesheet" href="reference.css"></head>',
        '<body><main class="reference"><h1>Reference</h1>',
        f"<p>{_text(document['info']['description'])}</p>",
        '<p><a href="openapi.json">OpenAPI</a> <a href="asyncapi.json">AsyncAPI</a></p>',
        "<h2>HTTP</h2>",
        *(
            _route(path, method, route)
            for path, routes in document["paths"].items()
            for method, route in routes.items()
        ),
        "<h2>Server to client</h2>",
        *(_message(struct) for struct in FROM_SERVER),
        "<h2>Client to server</h2>",
        *(_message(struct) for struct in FROM_CLIENT),
        "<h2>Close codes</h2><p>4000–4499: reconnect. 4500–4999: do not.</p>",
        _table((str(disconnect.code), disconnect.reason) for disconnect in Disconnect),
        "</main></body></html>",
    ]
    return "\n".join(parts)


def _route(path: str, method: str, route: dict[str, Any]) -> str:
    parameters = [
        (parameter["name"], f"{parameter['in']}{', required' if parameter.get('required') else ''}")
        for parameter in route.get("parameters", ())
    ]
    answers = [(status, answer.get("description", "")) for status, answer in route["responses"].items()]
    return (
        f"<section><h3><code>{method.upper()} {_text(path)}</code></h3>"
        f"<p>{_text(route['summary'])}</p>{_table(parameters)}{_table(answers)}</section>"
    )


def _message(struct: type[msgspec.Struct]) -> str:
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    schema = msgspec.json.schema(struct)["$defs"][struct.__name__]
    fields = [(field.encode_name, _type(schema["properties"][field.encode_name])) for field in info.fields]
    return (
        f"<section><h3><code>{_text(str(info.tag))}</code></h3><p>{_text(struct.__doc__ or '')}</p>"
        f"{_table(fields)}</section>"
    )


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f'"{choice}"' for choice in schema["enum"])
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[1]
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return str(schema.get("type", "any"))


def _table(rows: Iterable[tuple[str, str]]) -> str:
    lines = [f'<tr><th scope="row">{_text(name)}</th><td>{_text(what)}</td></tr>' for name, what in rows]
    return f"<table>{''.join(lines)}</table>" if lines else ""


def _text(text: str) -> str:
    return html.escape(text)
