"""Write the files that are made from the code: `python -m portfolio_realtime.cli.write_api_documents`.

They are the API documents in docs/schema, the front end's message types, and the tables of settings in
docs/configuration.md. A test fails when a file does not match the code; this command writes them again.
"""

import sys
from pathlib import Path
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry

from portfolio_realtime import config
from portfolio_realtime.cli.reference import settings_tables
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.state import open_state
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.http_api.account_queries import AccountQueries
from portfolio_realtime.websocket_server.http_api.api_documents import (
    Schema,
    asyncapi,
    json_schema,
    typescript,
)
from portfolio_realtime.websocket_server.http_api.front import page_files
from portfolio_realtime.websocket_server.http_api.operations import Operations
from portfolio_realtime.websocket_server.http_api.routes import build_app

FOLDER: Final = Path("docs/schema")
TYPES_OF_PACKAGE: Final = Path("frontend-app/packages/live-portfolio/src/messages.ts")
CONFIGURATION: Final = Path("docs/configuration.md")
SETTINGS_BEGIN, SETTINGS_END = "<!-- settings -->\n", "<!-- /settings -->\n"
NOWHERE: Final = "redis://127.0.0.1:1/0"  # a state that is never used


def openapi() -> Schema:
    """The OpenAPI document of a server with default settings."""
    chosen: Any = {"_env_file": None}
    settings = config.Settings(**chosen)
    state = open_state(NOWHERE, holder="documents", shards=1, lease_ms=1000)
    gateway = Gateway(settings, state, SystemClock(), CollectorRegistry())
    queries = AccountQueries(state, settings, SystemClock())
    return build_app(gateway, Operations(gateway, "documents"), queries, page_files()).openapi()


def all_documents() -> dict[str, str]:
    """All API documents: file name -> content."""
    return {
        "messages.schema.json": _pretty(json_schema()),
        "messages.ts": typescript(),
        "asyncapi.json": _pretty(asyncapi()),
        "openapi.json": _pretty(openapi()),
    }


def with_settings(page: str) -> str:
    """The page with new tables of settings between its two markers."""
    before, _, rest = page.partition(SETTINGS_BEGIN)
    _, _, after = rest.partition(SETTINGS_END)
    return f"{before}{SETTINGS_BEGIN}\n{settings_tables()}\n{SETTINGS_END}{after}"


def _pretty(document: Schema) -> str:
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def main(folder: Path) -> None:
    """Write all API documents into a folder; into FOLDER, the other generated files as well."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in all_documents().items():
        (folder / name).write_text(text)
        print(folder / name)
    if folder == FOLDER:
        TYPES_OF_PACKAGE.write_text(typescript())
        print(TYPES_OF_PACKAGE)
        CONFIGURATION.write_text(with_settings(CONFIGURATION.read_text()))
        print(CONFIGURATION)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
