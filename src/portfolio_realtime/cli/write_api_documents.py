"""Write what is made from the code: `python -m portfolio_realtime.cli.write_api_documents`.

The documents of the interface in docs/schema, and the tables of settings in docs/configuration.md.

A test fails when the files are not what the types say; this command makes them anew.
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
from portfolio_realtime.websocket_server.http_api.routes import build_app

FOLDER: Final = Path("docs/schema")
TYPES_OF_PACKAGE: Final = Path("frontend-app/packages/live-portfolio/src/messages.ts")
CONFIGURATION: Final = Path("docs/configuration.md")
SETTINGS_BEGIN, SETTINGS_END = "<!-- settings -->\n", "<!-- /settings -->\n"
NOWHERE: Final = "redis://127.0.0.1:1/0"  # a state that is never asked


def openapi() -> Schema:
    """The OpenAPI document of the HTTP side, as a server with default settings serves it."""

    chosen: Any = {"_env_file": None}
    settings = config.Settings(**chosen)
    state = open_state(NOWHERE, holder="documents", shards=1, lease_ms=1000)
    gateway = Gateway(settings, state, SystemClock(), CollectorRegistry())
    return build_app(gateway, "documents", AccountQueries(state, settings, SystemClock())).openapi()


def all_documents() -> dict[str, str]:
    """File name -> content."""
    return {
        "messages.schema.json": _pretty(json_schema()),
        "messages.ts": typescript(),
        "asyncapi.json": _pretty(asyncapi()),
        "openapi.json": _pretty(openapi()),
    }


def with_settings(page: str) -> str:
    """The page with the tables of settings between its two marks."""
    before, _, rest = page.partition(SETTINGS_BEGIN)
    _, _, after = rest.partition(SETTINGS_END)
    return f"{before}{SETTINGS_BEGIN}\n{settings_tables()}\n{SETTINGS_END}{after}"


def _pretty(document: Schema) -> str:
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def main(folder: Path) -> None:
    """Write all documents into a folder."""
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
