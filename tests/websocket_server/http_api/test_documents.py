"""The documents for machines: made from the types, written, served, and true of every example."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from portfolio_realtime.cli import write_api_documents
from portfolio_realtime.websocket_server.http_api.api_documents import asyncapi, json_schema
from portfolio_realtime.wire.examples import EXAMPLES
from portfolio_realtime.wire.messages import FROM_CLIENT, FROM_SERVER, Disconnect
from tests.support.publications import row, value
from tests.support.websocket_servers import bearer, serving

FOLDER = Path(__file__).parents[3] / write_api_documents.FOLDER
REMEDY = "write them again: python -m portfolio_realtime.cli.write_api_documents"
EVERYBODY = (*FROM_SERVER, *FROM_CLIENT)


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    """The OpenAPI document."""
    return write_api_documents.openapi()


def test_the_written_documents_are_what_the_types_say() -> None:
    """No drift between the code and what others generate their clients from."""
    made = write_api_documents.all_documents()
    written = {path.name: path.read_text() for path in FOLDER.iterdir()}

    assert written.keys() == made.keys(), REMEDY
    assert [name for name in made if made[name] != written[name]] == [], REMEDY


def test_the_package_for_pages_has_the_same_types() -> None:
    """What a page believes about a message is what the server sends."""
    written = Path(__file__).parents[3] / write_api_documents.TYPES_OF_PACKAGE

    assert written.read_text() == write_api_documents.all_documents()["messages.ts"], REMEDY


def test_writing_them_again_changes_nothing(tmp_path: Path) -> None:
    """The command writes each file."""
    write_api_documents.main(tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("struct", EVERYBODY, ids=lambda struct: struct.__name__)
def test_every_message_has_examples_that_are_such_messages(struct: type[msgspec.Struct]) -> None:
    """By the type, by the JSON Schema, and without a field that the type does not know."""
    schema = json_schema()
    for example in EXAMPLES[struct]:
        message = msgspec.convert(example, struct)
        told = msgspec.to_builtins(message)
        assert {name: told[name] for name in example} == example
        jsonschema.validate(example, {**schema, "oneOf": [{"$ref": f"#/$defs/{struct.__name__}"}]})


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("equity", 104211.37),
        ("equity", "104211.375"),
        ("equity", "104,211.37"),
        ("sequence", "17"),
        ("timestamp", "2026-11-20 15:04:05"),
        ("stale", None),
    ],
)
def test_the_schema_refuses_what_the_wire_never_says(field: str, wrong: object) -> None:
    """Money as a number, half cents, thousands' commas: a schema that takes all is worth nothing."""
    message = {**value("a", 1, 1), "positions": [row("AAPL", "1")], field: wrong}

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(message, json_schema())


def references(node: Any) -> Generator[str]:
    """All `$ref` of a document."""
    if isinstance(node, dict):
        for name, inner in node.items():
            if name == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references(inner)


def resolve(document: Any, reference: str) -> Any:
    """What a local `$ref` points to; KeyError when nothing is there."""
    for name in reference.removeprefix("#/").split("/"):
        document = document[name]
    return document


def test_the_asyncapi_document_is_whole() -> None:
    """Each reference leads somewhere, each message is in a channel and an operation, each code is named."""
    document = asyncapi()

    for reference in references(document):
        resolve(document, reference)
    names = {struct.__name__ for struct in EVERYBODY}
    assert set(document["components"]["messages"]) == names
    for channel in document["channels"].values():
        assert set(channel["messages"]) == names
    sent = {reference["$ref"] for reference in document["operations"]["sendPortfolio"]["messages"]}
    assert sent == {f"#/channels/portfolio/messages/{struct.__name__}" for struct in FROM_SERVER}
    assert {told["code"] for told in document["x-close-codes"]} == {one.code for one in Disconnect}


def test_every_answer_of_openapi_has_an_example_that_fits(openapi: dict[str, Any]) -> None:
    """Each route, each status, errors too."""
    for reference in references(openapi):
        resolve(openapi, reference)
    answers = [
        (path, method, status, answer)
        for path, routes in openapi["paths"].items()
        for method, route in routes.items()
        for status, answer in route["responses"].items()
    ]
    assert len(answers) > 20
    for path, method, status, answer in answers:
        where = f"{method} {path} {status}"
        assert answer.get("description"), where
        assert answer.get("content"), where
        for content in answer["content"].values():
            examples = [told["value"] for told in content.get("examples", {}).values()]
            assert examples or "example" in content, where
            for example in examples:
                jsonschema.validate(example, {**content["schema"], "components": openapi["components"]})


def test_every_parameter_of_openapi_has_an_example_that_fits(openapi: dict[str, Any]) -> None:
    """And says what it is."""
    parameters = [
        (f"{path} {parameter['name']}", parameter)
        for path, routes in openapi["paths"].items()
        for route in routes.values()
        for parameter in route.get("parameters", ())
    ]
    assert len(parameters) > 5
    for where, parameter in parameters:
        assert parameter["examples"], where
        for example in parameter["examples"].values():
            jsonschema.validate(example["value"], parameter["schema"])


async def test_the_422_of_openapi_is_what_is_answered(valkey_url: str, openapi: dict[str, Any]) -> None:
    """Word for word, and only where it is told."""
    wrong = {
        "/v1/portfolio/{account_id}": "?detail=everything",
        "/v1/portfolio/{account_id}/stream": "?detail=everything",
        "/v1/portfolio/{account_id}/history": "?range=1h",
        "/api/portfolio/value": "",
        "/v1/portfolios": "",
    }
    told = {
        path: route["responses"]["422"]["content"]["application/json"]["examples"]["usual"]["value"]
        for path, routes in openapi["paths"].items()
        for method, route in routes.items()
        if method == "get" and "422" in route["responses"]
    }
    assert told.keys() == wrong.keys()
    async with serving(valkey_url) as server:
        for path, query in wrong.items():
            answer = await server.http.get(path.format(account_id="a") + query, headers=bearer())
            assert (answer.status_code, answer.json()) == (422, told[path])
        answer = await server.http.post("/v1/portfolios", json={"ids": []}, headers=bearer())
    body = openapi["paths"]["/v1/portfolios"]["post"]["responses"]["422"]["content"]["application/json"]
    assert (answer.status_code, answer.json()) == (422, body["examples"]["usual"]["value"])


def test_the_asyncapi_document_names_every_way_to_say_who_one_is() -> None:
    """Also in the headers of the handshake."""
    document = asyncapi()
    schemes = document["components"]["securitySchemes"]
    assert {scheme.get("name") for scheme in schemes.values()} == {
        None,
        "ticket",
        "Sec-WebSocket-Protocol",
        "X-API-Key",
    }
    assert {told["$ref"].rpartition("/")[2] for told in document["servers"]["local"]["security"]} == set(
        schemes
    )
    for channel in document["channels"].values():
        assert set(channel["bindings"]["ws"]["headers"]["properties"]) == {
            "Sec-WebSocket-Protocol",
            "X-API-Key",
        }


def test_routes_that_need_credentials_say_so(openapi: dict[str, Any]) -> None:
    """Whoever generates a client from the document gets its authentication, too."""
    open_to_all = {"/health", "/ready"}
    for path, routes in openapi["paths"].items():
        for route in routes.values():
            assert bool(route.get("security")) == (path not in open_to_all), path
            if path not in open_to_all:
                assert {"403", "429"} <= set(route["responses"]), path
            if path not in open_to_all | {"/metrics"}:
                assert {"401", "503"} <= set(route["responses"]), path


async def test_a_server_serves_what_is_written(valkey_url: str) -> None:
    """`/openapi.json` and `/asyncapi.json` are the files."""
    async with serving(valkey_url) as server:
        for name in ("openapi.json", "asyncapi.json"):
            answer = await server.http.get(f"/{name}")

            assert answer.headers["content-type"] == "application/json"
            assert answer.json() == json.loads((FOLDER / name).read_text()), name
