"""CORS: exactly the origins of ALLOWED_ORIGINS, or on this very machine the pages of this machine.

Only the routes for clients are opened, and only without cookies: credentials travel in `Authorization`. What
a page may not read is not refused here; its browser keeps it from the page.
"""

from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from portfolio_realtime.websocket_server.access.client_address import NetworkRules
from portfolio_realtime.websocket_server.http_api.problems import answer
from portfolio_realtime.wire.http_problems import HttpProblem

OPENED: Final = ("/v1/", "/api/")
VARY: Final = "Origin"
PREFLIGHT_S: Final = 600  # an answer to a preflight request holds
ALLOWED_METHODS: Final = "GET, POST"
ALLOWED_HEADERS: Final = "Authorization, Content-Type, If-None-Match, Last-Event-ID"
EXPOSED_HEADERS: Final = "ETag, Retry-After"


def is_opened(path: str) -> bool:
    """Whether pages of other origins may request this route."""
    return path.startswith(OPENED)


def shared_with(network: NetworkRules, peer: str, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that let the requesting page read an answer; none if it may not."""
    origin = headers.get("origin")
    if origin is None or not network.is_origin_allowed(peer, headers):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED_HEADERS}


def preflight(method: str, network: NetworkRules, peer: str, headers: Mapping[str, str]) -> Response | None:
    """The answer to a preflight request; None if it is no preflight request."""
    if method != "OPTIONS" or "origin" not in headers or "access-control-request-method" not in headers:
        return None
    if not network.is_origin_allowed(peer, headers):
        return answer(HttpProblem.ORIGIN_NOT_ALLOWED)
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": ALLOWED_METHODS,
            "Access-Control-Allow-Headers": ALLOWED_HEADERS,
            "Access-Control-Max-Age": str(PREFLIGHT_S),
        },
    )
