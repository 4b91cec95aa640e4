"""What a request for a WebSocket wants, or why it is refused."""

from collections.abc import Mapping
from typing import NamedTuple

from portfolio_realtime.websocket_server.clients import handshake
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.wire.http_problems import HttpProblem
from portfolio_realtime.wire.messages import Subscribe


class Requested(NamedTuple):
    """The fields of the query, and the subscription that the path requests."""

    query: dict[str, str]
    wanted: Subscribe | None


def requested(
    gateway: Gateway,
    peer: str,
    limit_key: str | None,
    target: str,
    headers: Mapping[str, str],
    of_handshake: HttpProblem | None,
) -> Requested | HttpProblem:
    """Judge a request. It counts as an attempt of `limit_key`.

    `of_handshake`: why its method, version or headers are refused, if its path exists.
    """
    path, _, query = target.partition("?")
    match = handshake.PATH.fullmatch(path)
    if match is None:
        return HttpProblem.NOT_FOUND
    if of_handshake is not None:
        return of_handshake
    if gateway.network.is_refused_as_plain(peer, headers):
        return HttpProblem.TLS_REQUIRED
    if not gateway.network.is_origin_allowed(peer, headers):
        return HttpProblem.ORIGIN_NOT_ALLOWED
    if (problem := gateway.refusal(limit_key)) is not None:
        return problem
    try:
        fields = handshake.query_of(query)
        wanted = None if match[1] is None else handshake.requested_account(match[1], fields)
    except ValueError:
        return HttpProblem.BAD_REQUEST
    return Requested(fields, wanted)
