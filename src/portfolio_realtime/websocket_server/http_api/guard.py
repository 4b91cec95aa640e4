"""Checks before every HTTP route: TLS if it is required, credentials, and operator-only routes."""

import hmac
from typing import Final, NamedTuple

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from portfolio_realtime.websocket_server.access.client_address import (
    ClientAddress,
    is_local,
    joined,
    plain_address,
)
from portfolio_realtime.websocket_server.access.identity import (
    FORBIDDEN,
    Identity,
    Unauthorized,
    Unverifiable,
)
from portfolio_realtime.websocket_server.clients import handshake
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.http_api import cross_origin
from portfolio_realtime.websocket_server.http_api.problems import answer
from portfolio_realtime.wire.http_problems import HttpProblem

PROBES: Final = ("/health", "/ready")  # a load balancer asks without TLS
ENDLESS: Final = "/stream"  # an answer that has no length
DOCUMENTS: Final = ("/docs", "/openapi.json", "/asyncapi.json")

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
STRICT_TRANSPORT: Final = "max-age=31536000; includeSubDomains"


class Guard:
    """Runs before all routes of an app. A route's answer is passed on as it comes, at the client's pace."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway
        strict = {"Strict-Transport-Security": STRICT_TRANSPORT} if gateway.settings.require_tls else {}
        self._headers = {**SECURITY_HEADERS, **strict}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: refuse it, or hand it on; with the security headers."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        if scope["method"] == "HEAD" and not scope["path"].endswith(ENDLESS):
            scope = {**scope, "method": "GET"}  # the server leaves the body out
        request = Request(scope)
        is_opened = cross_origin.is_opened(request.url.path)
        headers_for_page = (
            cross_origin.shared_with(self._gateway.network, peer_of(request), headers_of(request))
            if is_opened
            else {}
        )

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers.update(headers_for_page)
                if is_opened:
                    headers.add_vary_header(cross_origin.VARY)
            await send(message)

        app = _refusal(self._gateway, request) or self._app
        return await app(scope, receive, send_secured)


def _refusal(gateway: Gateway, request: Request) -> Response | None:
    """The error to answer instead of the route, or None."""
    path = request.url.path
    if path not in PROBES and gateway.network.is_refused_as_plain(peer_of(request), headers_of(request)):
        return answer(HttpProblem.TLS_REQUIRED)
    if handshake.PATH.fullmatch(path):  # as a WebSocket it would not have come here
        return answer(HttpProblem.UPGRADE_REQUIRED, handshake.REFUSAL_HEADERS[HttpProblem.UPGRADE_REQUIRED])
    if path in DOCUMENTS and not gateway.settings.public_docs:
        refusal = operator_refusal(gateway, request)
        if refusal is not None:
            return answer(refusal)
    if cross_origin.is_opened(path):
        return cross_origin.preflight(request.method, gateway.network, peer_of(request), headers_of(request))
    return None


class Visitor(NamedTuple):
    """The identity behind a request, and its address."""

    identity: Identity
    address: ClientAddress


BY_REASON: Final = {
    FORBIDDEN: HttpProblem.NO_SUCH_ACCOUNT,
    "missing": HttpProblem.UNAUTHORIZED,
    "expired": HttpProblem.EXPIRED_TOKEN,
}
"""What is answered to refused credentials; all others are INVALID_TOKEN."""


def problem_of(why: Unauthorized, gateway: Gateway, address: ClientAddress) -> HttpProblem:
    """The error for refused credentials, after counting and logging them."""
    is_bearable = gateway.count_refused_credentials(why, address)
    if isinstance(why, Unverifiable):
        return HttpProblem.UNVERIFIABLE
    if not is_bearable:
        return HttpProblem.TOO_MANY
    return BY_REASON.get(why.reason, HttpProblem.INVALID_TOKEN)


def operator_refusal(gateway: Gateway, request: Request) -> HttpProblem | None:
    """Why this is nobody on this very machine, nor with API_KEY_SECRET or METRICS_TOKEN; None: it is."""
    headers = headers_of(request)
    token = gateway.settings.metrics_token.get_secret_value()
    shown = headers.get("authorization", "").partition(" ")[2].strip()
    if token and shown and hmac.compare_digest(shown.encode(), token.encode()):
        return None
    why = Unauthorized("metrics_token" if shown else "missing")
    if "x-api-key" in headers:
        try:
            gateway.authenticator.by_api_key(headers["x-api-key"])
        except Unauthorized as found:
            why = found
        else:
            return None
    elif is_on_this_machine(request):
        return None
    address = client_address_of(gateway, request)
    return (
        HttpProblem.OPERATORS_ONLY
        if gateway.count_refused_credentials(why, address)
        else HttpProblem.TOO_MANY
    )


def is_on_this_machine(request: Request) -> bool:
    """Does it come from this very machine and from nowhere else?"""
    return is_local(peer_of(request), headers_of(request))


def headers_of(request: Request) -> dict[str, str]:
    """The request's headers by name in lower case."""
    return joined(request.headers.items())


def client_address_of(gateway: Gateway, request: Request) -> ClientAddress:
    """Where a request comes from, behind trusted proxies."""
    return gateway.network.client_address(peer_of(request), headers_of(request))


def peer_of(request: Request) -> str:
    """The address of the other end of a request's connection."""
    return plain_address(request.client.host) if request.client else ""
