"""What routes depend on: who asks, and whether there is room for one more."""

from typing import Annotated

from fastapi import Depends, Request

from portfolio_realtime.websocket_server.access.identity import Unauthorized
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.http_api.guard import (
    Visitor,
    client_address_of,
    headers_of,
    peer_of,
    problem_of,
)
from portfolio_realtime.websocket_server.http_api.problems import RequestRefused


async def identify(request: Request) -> Visitor:
    """The identity behind a request. Raises RequestRefused (401, 429, or 503: cannot be checked now)."""
    gateway: Gateway = request.app.state.gateway
    address = client_address_of(gateway, request)
    try:
        identity = await gateway.authenticator.by_headers(peer_of(request), headers_of(request))
    except Unauthorized as why:
        raise RequestRefused(problem_of(why, gateway, address)) from None
    return Visitor(identity, address)


Caller = Annotated[Visitor, Depends(identify)]


async def let_in(request: Request) -> None:
    """For open routes: check capacity and the address's limit. Raises RequestRefused (429, 503)."""
    gateway: Gateway = request.app.state.gateway
    address = client_address_of(gateway, request)
    problem = gateway.refusal(address.limit_key)
    if problem is not None:
        gateway.count_refused_handshake(problem, address)
        raise RequestRefused(problem)
