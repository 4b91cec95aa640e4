"""What stands before every HTTP route: TLS where it is required, who asks, what is only for operators."""

import hmac
from http import HTTPStatus
from typing import Annotated, Final, NamedTuple

from fastapi import Depends, HTTPException, Request, Response
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from portfolio_realtime.websocket_server.access.client_address import Whence, is_local, joined
from portfolio_realtime.websocket_server.access.identity import (
    FORBIDDEN,
    Identity,
    Unauthorized,
    Unverifiable,
)
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.http_api.problems import (
    TLS_REQUIRED,
    no_room,
    no_such_account,
    operators_only,
    too_many,
    unauthorized,
    unverifiable,
)

PROBES: Final = ("/health", "/ready")  # a load balancer asks without TLS
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
    """Before all routes of an app. What a route sends is passed on as it comes, at the client's pace."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway
        strict = {"Strict-Transport-Security": STRICT_TRANSPORT} if gateway.settings.require_tls else {}
        self._headers = {**SECURITY_HEADERS, **strict}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: refuse it, or hand it on; with the security headers."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = _refusal(self._gateway, Request(scope)) or self._app
        return await answer(scope, receive, send_secured)


def _refusal(gateway: Gateway, request: Request) -> Response | None:
    path = request.url.path
    if path not in PROBES and gateway.places.is_refused_as_plain(_peer(request), headers_of(request)):
        return JSONResponse({"detail": TLS_REQUIRED}, 403)
    if path in DOCUMENTS and not gateway.settings.public_docs:
        refusal = operator_refusal(gateway, request)
        if refusal is not None:
            return JSONResponse({"detail": refusal.detail}, refusal.status_code, refusal.headers)
    return None


class Visitor(NamedTuple):
    """Whose request this is, and where it comes from."""

    identity: Identity
    whence: Whence


async def identify(request: Request) -> Visitor:
    """Whose request this is. Raises HTTPException 401, 429, or 503: nobody can tell now."""
    gateway: Gateway = request.app.state.gateway
    whence = whence_of(gateway, request)
    try:
        identity = await gateway.authenticator.by_headers(_peer(request), headers_of(request))
    except Unauthorized as why:
        raise answer_to(why, gateway, whence) from None
    return Visitor(identity, whence)


Caller = Annotated[Visitor, Depends(identify)]


def answer_to(why: Unauthorized, gateway: Gateway, whence: Whence) -> HTTPException:
    """What is answered to refused credentials, once they are counted and logged."""
    is_bearable = gateway.refused(why, whence)
    if isinstance(why, Unverifiable):
        return unverifiable()
    if not is_bearable:
        return too_many()
    return no_such_account() if why.reason == FORBIDDEN else unauthorized()


async def let_in(request: Request) -> None:
    """For routes that stay open: is there room, and for this address? Raises HTTPException 429, 503."""
    gateway: Gateway = request.app.state.gateway
    whence = whence_of(gateway, request)
    refusal = gateway.refusal(whence.place)
    if refusal is not None:
        gateway.turned_away(refusal, whence.address)
        raise too_many() if refusal is HTTPStatus.TOO_MANY_REQUESTS else no_room()


def operator_refusal(gateway: Gateway, request: Request) -> HTTPException | None:
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
    return operators_only() if gateway.refused(why, whence_of(gateway, request)) else too_many()


def is_on_this_machine(request: Request) -> bool:
    """Does it come from this very machine and from nowhere else?"""
    return is_local(_peer(request), headers_of(request))


def headers_of(request: Request) -> dict[str, str]:
    """The request's headers by name in lower case."""
    return joined(request.headers.items())


def whence_of(gateway: Gateway, request: Request) -> Whence:
    """Where a request comes from, behind trusted proxies."""
    return gateway.places.whence(_peer(request), headers_of(request))


def _peer(request: Request) -> str:
    return request.client.host if request.client else ""
