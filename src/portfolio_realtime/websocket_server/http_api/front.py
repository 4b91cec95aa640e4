"""The HTTP side of the server: probes, metrics and page without FastAPI, all other routes with it.

The routes are made before the server listens: made at the first request, they kept values back for seconds
on a busy machine.
"""

from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Final

from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.http_api.account_queries import AccountQueries
from portfolio_realtime.websocket_server.http_api.files import PageFiles
from portfolio_realtime.websocket_server.http_api.guard import DOCUMENTS, Guard
from portfolio_realtime.websocket_server.http_api.operations import Operations
from portfolio_realtime.websocket_server.http_api.problems import refused

COMPRESSED_BYTES_MIN: Final = 1024
COMPRESSION_LEVEL: Final = 5
OF_CLIENTS: Final = ("/v1/", "/api/")

Answer = Callable[[Request], Awaitable[Response]]


def build_front(gateway: Gateway, instance: str, queries: AccountQueries) -> ASGIApp:
    """The HTTP side of one server."""
    compressed = GZipMiddleware(
        Front(gateway, instance, queries),
        minimum_size=COMPRESSED_BYTES_MIN,
        compresslevel=COMPRESSION_LEVEL,
    )
    return Guard(compressed, gateway)


def page_files() -> PageFiles:
    """The files of the page."""
    folder = str(resources.files("portfolio_realtime.websocket_server") / "page")
    return PageFiles(directory=folder, html=True)


class Front:
    """Answers what needs no FastAPI, and hands the rest on."""

    def __init__(self, gateway: Gateway, instance: str, queries: AccountQueries) -> None:
        # Not with the module: settings that are wrong are told without FastAPI.
        from portfolio_realtime.websocket_server.http_api.routes import build_app

        operations = Operations(gateway, instance)
        self._answers: dict[str, Answer] = {
            "/health": operations.health,
            "/ready": operations.ready,
            "/metrics": operations.metrics,
        }
        if gateway.settings.demo_page:
            self._answers["/demo/session"] = operations.demo_session
        self._files = page_files()
        self._routes = build_app(gateway, operations, queries, self._files)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        if path.startswith(OF_CLIENTS) or path in DOCUMENTS:
            app: ASGIApp = self._routes
        else:
            app = self._answered
        await app(scope, receive, send)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answers.get(scope["path"]) if scope["method"] == "GET" else None
        try:
            response = self._files if answer is None else await answer(Request(scope, receive))
            await response(scope, receive, send)
        except HTTPException as error:
            await refused(error)(scope, receive, send)
