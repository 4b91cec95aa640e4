"""What others make of our documents: AsyncAPI's own schema, and TypeScript's own compiler."""

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from portfolio_realtime.cli.write_api_documents import FOLDER
from portfolio_realtime.websocket_server.http_api.api_documents import ASYNCAPI_VERSION
from portfolio_realtime.wire.examples import EXAMPLES
from tests.interoperability.programs import need, node_modules

SCHEMAS = Path(__file__).parents[2] / FOLDER
TSC_S_MAX = 120


@pytest.fixture(scope="module")
def asyncapi_schema() -> dict[str, Any]:
    """AsyncAPI's JSON Schema of its own documents, of the version that ours names."""
    path = node_modules() / "@asyncapi" / "specs" / "schemas" / f"{ASYNCAPI_VERSION}.json"
    return json.loads(path.read_text())


@pytest.fixture
def document() -> dict[str, Any]:
    """Our AsyncAPI document, as it is written."""
    return json.loads((SCHEMAS / "asyncapi.json").read_text())


def test_the_asyncapi_document_is_valid_by_asyncapi_s_own_schema(
    asyncapi_schema: dict[str, Any], document: dict[str, Any]
) -> None:
    """3.0.0, as it says itself."""
    assert document["asyncapi"] == "3.0.0"
    jsonschema.validate(document, asyncapi_schema)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("asyncapi",), "2.6.0"),
        (("operations", "sendPortfolio", "action"), "publish"),
        (("channels", "portfolio", "bindings", "ws", "method"), "DELETE"),
        (("components", "messages", "Auth", "payload"), 7),
        (("servers", "local", "url"), "ws://127.0.0.1"),
    ],
)
def test_asyncapi_s_schema_would_notice(
    asyncapi_schema: dict[str, Any], document: dict[str, Any], path: tuple[str, ...], wrong: object
) -> None:
    """Also deep inside: in a channel, a binding, a message."""
    broken = copy.deepcopy(document)
    place = broken
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = wrong
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, asyncapi_schema)


def compiled(folder: Path, source: str) -> list[str]:
    """What `tsc --strict` says to this program beside our types: one error a line."""
    program = folder / "program.ts"
    program.write_text(f'import * as wire from "./messages";\n{source}')
    (folder / "messages.ts").write_text((SCHEMAS / "messages.ts").read_text())
    done = subprocess.run(
        (
            *(need("node"), str(node_modules() / "typescript" / "bin" / "tsc")),
            *("--strict", "--noEmit", "--target", "es2022", str(program)),
        ),
        capture_output=True,
        text=True,
        timeout=TSC_S_MAX,
        check=False,
    )
    errors = [line for line in done.stdout.splitlines() if "error TS" in line]
    assert (done.returncode == 0) == (not errors), done.stdout + done.stderr
    return errors


def test_the_typescript_types_compile_and_every_example_is_of_its_type(tmp_path: Path) -> None:
    """`tsc --strict`; and the union tells the messages apart by `type`."""
    examples = [
        f"export const example{number}: wire.{struct.__name__} = {json.dumps(example)};"
        for number, (struct, example) in enumerate(
            (struct, example) for struct, examples in EXAMPLES.items() for example in examples
        )
    ]
    use = """
export function equity(message: wire.ServerMessage): string | null {
  return message.type === "portfolio" ? message.equity : null;
}
export const why: string = wire.closeCodes[4001];
"""
    assert len(examples) >= 8
    assert compiled(tmp_path, "\n".join(examples) + use) == []


def test_tsc_would_notice(tmp_path: Path) -> None:
    """Money as a number, a field forgotten, a type that is none, null where it cannot be."""
    wrong = """
export const one: wire.HeartbeatAck = { type: "heartbeat", timestamp: 1 };
export const two: wire.Subscribe = { type: "subscribe" };
export const three = (message: wire.PortfolioMessage): number => message.cash;
export const four = (message: wire.PortfolioMessage): string => message.equity;
"""
    lines = {re.findall(r"program.ts\((\d+),", error)[0] for error in compiled(tmp_path, wrong)}
    assert lines == {"3", "4", "5", "6"}
