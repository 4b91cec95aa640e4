"""What stands before every HTTP route: TLS where it is required, who asks, what is only for operators."""

import hmac
from typing import Annotated, Final

from fastapi import Depends, HTTPException, Request, Response
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from portfolio_realtime.websocket.gateway import Gateway
from portfolio_realtime.websocket.identity import Identity, Unauthorized, Unverifiable
from portfolio_realtime.websocket.places import is_local, joined

RETRY_AFTER_S: Final = 2
OPERATORS_ONLY: Final = "only from this machine, with X-API-Key or with METRICS_TOKEN"
TLS_REQUIRED: Final = "TLS is required: use https"
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
    if path in DOCUMENTS and not gateway.settings.public_docs and not is_operator(gateway, request):
        return JSONResponse({"detail": OPERATORS_ONLY}, 403)
    return None


async def identify(request: Request) -> Identity:
    """Whose request this is. Raises HTTPException 401, or 503: nobody can tell now."""
    gateway: Gateway = request.app.state.gateway
    try:
        return await gateway.authenticator.by_headers(_peer(request), headers_of(request))
    except Unverifiable as why:
        gateway.refused(why, address_of(request))
        raise HTTPException(
            503, "credentials cannot be checked now", {"Retry-After": str(RETRY_AFTER_S)}
        ) from None
    except Unauthorized as why:
        gateway.refused(why, address_of(request))
        raise HTTPException(401, "unauthorized", {"WWW-Authenticate": "Bearer"}) from None


Caller = Annotated[Identity, Depends(identify)]


def is_operator(gateway: Gateway, request: Request) -> bool:
    """Is it somebody on this very machine, or with API_KEY_SECRET or METRICS_TOKEN?"""
    headers = headers_of(request)
    token = gateway.settings.metrics_token.get_secret_value()
    shown = headers.get("authorization", "").partition(" ")[2].strip()
    if token and shown and hmac.compare_digest(shown.encode(), token.encode()):
        return True
    if "x-api-key" not in headers:
        return is_local(_peer(request), headers)
    try:
        gateway.authenticator.by_api_key(headers["x-api-key"])
    except Unauthorized as why:
        gateway.refused(why, address_of(request))
        return False
    return True


def is_on_this_machine(request: Request) -> bool:
    """Does it come from this very machine and from nowhere else?"""
    return is_local(_peer(request), headers_of(request))


def headers_of(request: Request) -> dict[str, str]:
    """The request's headers by name in lower case."""
    return joined(request.headers.items())


def address_of(request: Request) -> str:
    """The client's address, behind trusted proxies."""
    gateway: Gateway = request.app.state.gateway
    return gateway.places.address(_peer(request), headers_of(request))


def _peer(request: Request) -> str:
    return request.client.host if request.client else ""
