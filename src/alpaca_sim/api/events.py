"""Routes of the server-sent event streams, and Alpaca's rules for their cursors."""

from collections.abc import Sequence
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from alpaca_sim.api.web import ApiError, find_account, json_response, sim_of
from alpaca_sim.core.books import READY, SystemEvent
from alpaca_sim.core.clock import parse_time_ns, rfc3339
from alpaca_sim.core.ledger import Activity
from alpaca_sim.core.statuses import status_json
from alpaca_sim.core.ulid import milliseconds
from alpaca_sim.streams.activities_json import event_json, fill_json, nta_json
from alpaca_sim.streams.event_streams import CONNECTIONS_MAX, Cursor, Encode, Published


def read_cursor(
    params: QueryParams, open_since: bool, is_inclusive: bool = False, suffix: str = "id"
) -> Cursor:
    """Read a stream's cursor. Raises ApiError (400 or 422) for a combination that Alpaca refuses.

    `open_since`: `since` is allowed without `until`. `suffix` is `ulid` for the older streams (`since_ulid`).
    """
    since, until = params.get("since"), params.get("until")
    since_id, until_id = params.get(f"since_{suffix}"), params.get(f"until_{suffix}")
    if (since or until) and (since_id or until_id):
        raise ApiError(422, "since/until and since_id/until_id cannot be mixed")
    if until and not since:
        raise ApiError(400, "until requires since")
    if until_id and not since_id:
        raise ApiError(400, "until_id requires since_id")
    if since and not until and not open_since:
        raise ApiError(400, "if you specify since, you also need to specify until")
    try:
        for ulid in filter(None, (since_id, until_id)):
            milliseconds(ulid)
        since_ns, until_ns = (parse_time_ns(text) if text else None for text in (since, until))
    except ValueError as error:
        raise ApiError(422, f"invalid cursor: {error}") from error
    return Cursor(since_ns, until_ns, since_id, until_id, is_inclusive)


def _open_stream(
    request: Request,
    name: str,
    log: Sequence[Published],
    encode: Encode,
    open_since: bool = True,
    suffix: str = "id",
) -> Response:
    sim = sim_of(request)
    streams = sim.events
    is_inclusive = sim.settings.switches.since_id == "inclusive"
    cursor = read_cursor(request.query_params, open_since, is_inclusive, suffix)
    if len(streams.readers) >= CONNECTIONS_MAX or sim.faults.is_on("events.refuse", name):
        raise ApiError(429, "Too many requests")
    if cursor.since_id is not None and sim.faults.is_on("events.stale_cursor", name):
        raise ApiError(400, "since_id is too old: events of that time are no longer kept")
    assert request.client is not None
    body = streams.stream((request.client.host, request.client.port), name, log, cursor, encode)
    return StreamingResponse(body, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def activity_stream(request: Request) -> Response:
    """`GET /v2beta1/events/activities`: every change of cash or positions."""
    sim = sim_of(request)
    switches = sim.settings.switches

    def encode(activity: Activity) -> dict[str, Any] | None:
        is_kept_back = switches.deposits == "rows_only" and activity.activity_type == "CSD"
        return None if is_kept_back else event_json(activity, switches)

    return _open_stream(request, "activities", sim.ledger.activities, encode, open_since=False)


async def trade_stream(request: Request) -> Response:
    """`GET /v2/events/trades`: fills, corrections and busts."""
    sim = sim_of(request)

    def encode(activity: Activity) -> dict[str, Any] | None:
        return fill_json(activity, sim.market) if activity.activity_type == "TRD" else None

    return _open_stream(request, "trades", sim.ledger.activities, encode)


async def system_stream(request: Request) -> Response:
    """`GET /v2/events/system`: end-of-day balances and positions are ready."""
    return _open_stream(request, "system", sim_of(request).books.events, system_json)


async def status_stream(request: Request) -> Response:
    """`GET /v1/events/accounts/status`: changes of account status."""
    return _open_stream(request, "status", sim_of(request).statuses.events, status_json, suffix="ulid")


async def nta_stream(request: Request) -> Response:
    """`GET /v1/events/nta`: the older stream of all activities except trades."""

    def encode(activity: Activity) -> dict[str, Any] | None:
        return None if activity.activity_type == "TRD" else nta_json(activity)

    return _open_stream(request, "nta", sim_of(request).ledger.activities, encode, suffix="ulid")


def system_json(event: SystemEvent) -> dict[str, Any]:
    """The object of `/v2/events/system`."""
    return {
        "at": rfc3339(event.at_ns),
        "description": READY[event.kind],
        "event_id": event.event_id,
        "system_date": event.system_date.isoformat(),
        "type": event.kind,
    }


async def one_event(request: Request) -> Response:
    """`GET /v2beta1/accounts/{id}/events/activities/{event_id}`."""
    account = find_account(sim_of(request), request.path_params["account_id"])
    for activity in account.activities:
        if activity.event_id == request.path_params["event_id"]:
            return json_response(event_json(activity, sim_of(request).settings.switches))
    raise ApiError(404, "activity not found")


ROUTES = [
    Route("/v2beta1/events/activities", activity_stream),
    Route("/v2beta1/accounts/{account_id}/events/activities/{event_id}", one_event),
    Route("/v2/events/trades", trade_stream),
    Route("/v2/events/system", system_stream),
    Route("/v1/events/accounts/status", status_stream),
    Route("/v1/events/nta", nta_stream),
]
