"""Machine-readable documents of the messages, made from the types: JSON Schema, AsyncAPI 3, TypeScript.

`cli/write_api_documents.py` writes them to `docs/schema`.
"""

from typing import Any, Final

import msgspec

from portfolio_realtime import __version__
from portfolio_realtime.websocket_server.clients.handshake import SUBPROTOCOL
from portfolio_realtime.wire.examples import EXAMPLES
from portfolio_realtime.wire.messages import (
    ACCOUNT_ID,
    FROM_CLIENT,
    FROM_SERVER,
    MESSAGE_BYTES_MAX,
    Disconnect,
)

ASYNCAPI_VERSION: Final = "3.0.0"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
DESCRIPTION: Final = (
    "The live value of brokerage accounts: one JSON text message per frame. The first portfolio message is "
    "complete, and each later one replaces it; (epoch, sequence) only grows. Money is a decimal string in "
    "dollars, a ratio is a number, a time is RFC 3339 in UTC. What is not known is null; in text for people "
    'it is "—".'
)
DELTA: Final = {
    "type": "integer",
    "minimum": 0,
    "description": "Send what changed as `delta` messages, which call the account by this number",
}
SUBPROTOCOL_HEADER: Final = "Sec-WebSocket-Protocol"
OFFERED: Final = f"`{SUBPROTOCOL}, <JWT>`, which browsers can send; the server answers `{SUBPROTOCOL}`"
API_KEY: Final = "X-API-Key"
BACK_END: Final = "API_KEY_SECRET, for a trusted back end: access to every account"
Schema = dict[str, Any]
Message = type[msgspec.Struct]


def schemas(ref_template: str) -> dict[str, Schema]:
    """JSON Schema of each message and of what it contains, by name, with clean descriptions."""
    _, components = msgspec.json.schema_components([*FROM_SERVER, *FROM_CLIENT], ref_template=ref_template)
    for schema in components.values():
        _clean(schema)
    return components


def _clean(schema: Schema) -> None:
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())


def json_schema() -> Schema:
    """One JSON Schema (2020-12) of all messages: `#/$defs/PortfolioMessage` and so on."""
    return {
        "$schema": DIALECT,
        "title": "Portfolio values, live: the messages",
        "description": DESCRIPTION,
        "oneOf": [{"$ref": f"#/$defs/{struct.__name__}"} for struct in (*FROM_SERVER, *FROM_CLIENT)],
        "$defs": schemas("#/$defs/{name}"),
    }


def asyncapi() -> Schema:
    """The AsyncAPI 3 document of the WebSocket."""
    everybody = (*FROM_SERVER, *FROM_CLIENT)
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {"title": "Portfolio values, live", "version": __version__, "description": DESCRIPTION},
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:8001",
                "protocol": "ws",
                "description": "python -m portfolio_realtime.websocket_server; 8000 with run_services",
                "security": [
                    {"$ref": "#/components/securitySchemes/ticket"},
                    {"$ref": "#/components/securitySchemes/bearer"},
                    {"$ref": "#/components/securitySchemes/subprotocol"},
                    {"$ref": "#/components/securitySchemes/apiKey"},
                ],
            }
        },
        "channels": {
            "portfolio": {
                "address": "/ws/portfolio/{account_id}",
                "title": "One account from the start",
                "parameters": {
                    "account_id": {"description": f"The account; matches {ACCOUNT_ID.pattern}"},
                },
                "messages": _channel_messages(everybody),
                "bindings": _binding({"detail": _detail(), "max_frequency_hz": _frequency(), "delta": DELTA}),
            },
            "accounts": {
                "address": "/ws",
                "title": "Accounts by subscribe messages",
                "messages": _channel_messages(everybody),
                "bindings": _binding({}),
            },
        },
        "operations": {
            f"{action}{channel.capitalize()}": {
                "action": action,
                "channel": {"$ref": f"#/channels/{channel}"},
                "title": title,
                "messages": [
                    {"$ref": f"#/channels/{channel}/messages/{struct.__name__}"} for struct in structs
                ],
            }
            for action, title, structs in (
                ("send", "The server sends", FROM_SERVER),
                ("receive", "The client sends", FROM_CLIENT),
            )
            for channel in ("portfolio", "accounts")
        },
        "components": {
            "messages": {struct.__name__: _message(struct) for struct in everybody},
            "schemas": schemas("#/components/schemas/{name}"),
            "securitySchemes": {
                "ticket": {
                    "type": "httpApiKey",
                    "name": "ticket",
                    "in": "query",
                    "description": "From POST /v1/tickets; valid once and for 30 s",
                },
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "Or in the first message, `auth`",
                },
                "subprotocol": {
                    "type": "httpApiKey",
                    "name": SUBPROTOCOL_HEADER,
                    "in": "header",
                    "description": OFFERED,
                },
                "apiKey": {"type": "httpApiKey", "name": API_KEY, "in": "header", "description": BACK_END},
            },
        },
        "x-message-bytes-max": MESSAGE_BYTES_MAX,
        "x-close-codes": [
            {"code": disconnect.code, "reason": disconnect.reason, "reconnect": disconnect.code < 4500}
            for disconnect in Disconnect
        ],
    }


def _channel_messages(structs: tuple[Message, ...]) -> Schema:
    return {struct.__name__: {"$ref": f"#/components/messages/{struct.__name__}"} for struct in structs}


def _message(struct: Message) -> Schema:
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    return {
        "name": str(info.tag),
        "title": struct.__name__,
        "summary": " ".join((struct.__doc__ or "").split()),
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{struct.__name__}"},
        "examples": [{"payload": example} for example in EXAMPLES[struct]],
    }


def _binding(query: Schema) -> Schema:
    ticket = {"type": "string", "description": "From POST /v1/tickets; valid once and for 30 s"}
    return {
        "ws": {
            "method": "GET",
            "query": {"type": "object", "properties": {**query, "ticket": ticket}},
            "headers": {
                "type": "object",
                "properties": {
                    SUBPROTOCOL_HEADER: {"type": "string", "description": OFFERED},
                    API_KEY: {"type": "string", "description": BACK_END},
                },
            },
            "bindingVersion": "0.1.0",
        }
    }


def _detail() -> Schema:
    return {"type": "string", "enum": ["value", "positions"], "default": "value"}


def _frequency() -> Schema:
    return {"type": "number", "exclusiveMinimum": 0, "description": "The maximum number of messages a second"}


def typescript() -> str:
    """The messages as TypeScript types."""
    parts = [
        "// Made from the Python types. Do not edit; write it again with:",
        "// python -m portfolio_realtime.cli.write_api_documents",
        "",
    ]
    for name, schema in schemas("{name}").items():
        parts += _interface(name, schema)
    for union, structs in (("ServerMessage", FROM_SERVER), ("ClientMessage", FROM_CLIENT)):
        parts += [f"export type {union} = {' | '.join(struct.__name__ for struct in structs)};", ""]
    parts += [
        "/** Close codes of this server; 4000-4499: reconnect, 4500-4999: do not. */",
        "export const closeCodes = {",
        *(
            f'  {disconnect.code}: "{disconnect.reason}",'
            for disconnect in sorted(Disconnect, key=lambda disconnect: disconnect.code)
        ),
        "} as const;",
        "",
    ]
    return "\n".join(parts)


def _interface(name: str, schema: Schema) -> list[str]:
    required = set(schema.get("required", ()))
    lines = [f"/** {schema.get('description', '')} */", f"export interface {name} {{"]
    for field, what in schema["properties"].items():
        optional = "" if field in required else "?"
        lines.append(f"  {field}{optional}: {_typescript(what)};")
    return [*lines, "}", ""]


def _typescript(schema: Schema) -> str:
    if "$ref" in schema:
        return schema["$ref"]
    if "enum" in schema:
        return " | ".join(f'"{choice}"' for choice in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_typescript(part) for part in schema["anyOf"]))
    match schema.get("type"):
        case "array":
            item = _typescript(schema["items"])
            return f"({item})[]" if " | " in item else f"{item}[]"
        case "object":
            of = schema.get("additionalProperties")
            return f"Record<string, {_typescript(of) if of else 'unknown'}>"
        case "integer" | "number":
            return "number"
        case "string":
            return "string"
        case "boolean":
            return "boolean"
        case "null":
            return "null"
        case other:
            raise ValueError(f"no TypeScript for {other!r}")
