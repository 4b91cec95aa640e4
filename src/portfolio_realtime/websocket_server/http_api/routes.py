"""The routes for clients: one value at a time, several, their history, tickets; and the document of all.

`front` imports this when the first of them is requested.
"""

from inspect import cleandoc
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.models import Example
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse

from portfolio_realtime import __version__
from portfolio_realtime.errors import StateError
from portfolio_realtime.state.keys import TICKET_TTL_S
from portfolio_realtime.valuation.closed_days import Range
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.http_api.account_queries import AccountQueries
from portfolio_realtime.websocket_server.http_api.api_documents import asyncapi, schemas
from portfolio_realtime.websocket_server.http_api.callers import Caller, let_in
from portfolio_realtime.websocket_server.http_api.described_answers import (
    FULL,
    GUARDED,
    NO_ACCOUNT_ID,
    NO_SUCH_DETAIL,
    NO_SUCH_RANGE,
    SECURITY_SCHEMES,
    TOO_OFTEN,
    UNAVAILABLE,
    UNKNOWN,
    Responses,
    account_answers,
    described,
    described_problem,
    json_content,
)
from portfolio_realtime.websocket_server.http_api.files import PageFiles, json_answer
from portfolio_realtime.websocket_server.http_api.many_accounts import add_many_accounts
from portfolio_realtime.websocket_server.http_api.operations import Operations
from portfolio_realtime.websocket_server.http_api.portfolios import (
    EventResponse,
    EventStream,
    Portfolios,
    seen_in,
)
from portfolio_realtime.websocket_server.http_api.problems import RequestRefused, refused
from portfolio_realtime.websocket_server.http_api.reference_page import render
from portfolio_realtime.websocket_server.http_api.responses import (
    ASSETS_EXAMPLE,
    EXPLANATION_EXAMPLE,
    HISTORY_EXAMPLE,
    MONTH_EXAMPLE,
    AccountList,
    Explanation,
    HeldAssets,
    History,
    PortfolioList,
    Problem,
)
from portfolio_realtime.wire.examples import (
    ACCOUNT_ID,
    PORTFOLIO_EXAMPLE,
    POSITIONS_EXAMPLE,
    UNPRICED_EXAMPLE,
)
from portfolio_realtime.wire.http_problems import HttpProblem
from portfolio_realtime.wire.messages import Detail

_DATE: Final = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
RFC3339: Final = rf"^{_DATE}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{{6}}Z$"
TAGS: Final = [
    {"name": "portfolios", "description": "Values, their history and how they are computed"},
    {"name": "access", "description": "Credentials for a WebSocket"},
    {"name": "operations", "description": "Probes and metrics"},
]
TICKET_EXAMPLE: Final = {"ticket": "Vp2vJ7c9Zq3mN1xK", "expires_in_s": TICKET_TTL_S}
METRICS_EXAMPLE: Final = 'portfolio_realtime_connections{service="websocket_server"} 3.0'
EVENTS_EXAMPLE: Final = (
    'event: portfolio\ndata: {"type":"portfolio","account_id":"0d18ae51-…","epoch":1763822405123,…}\n\n'
    ": still here\n\n"
    'event: close\ndata: {"code":4001,"reason":"shutdown"}\n\n'
)


ACCOUNT_IDS: Final[dict[str, Example]] = {"usual": {"value": ACCOUNT_ID}}
AccountId = Annotated[str, Path(description="The account", openapi_examples=ACCOUNT_IDS)]
LastEventId = Annotated[
    str | None,
    Header(
        description="The id of the newest `portfolio` event that the client has received, from any server: "
        "nothing older is sent. Browsers send it when they reconnect",
        openapi_examples={"epoch and sequence": {"value": "1763822405123-17"}},
    ),
]
WithDetail = Annotated[
    Detail,
    Query(
        description="`positions` adds a row for each position",
        openapi_examples={"value": {"value": "value"}, "positions": {"value": "positions"}},
    ),
]
RANGE: Final = Query(
    alias="range",
    description="The day so far, minute by minute; or closed days and the newest point of today",
    openapi_examples={"day": {"value": "1d"}, "month": {"value": "1m"}},
)
SINCE: Final = Query(
    pattern=RFC3339,
    description="Only points after this time; the `timestamp` of a point",
    openapi_examples={"usual": {"value": "2026-11-20T15:04:00.000000Z"}},
)
REVISION: Final = Query(
    max_length=64,
    description="`revision` of the client's last answer; if it has changed, all points are sent",
    openapi_examples={"usual": {"value": "1f0c2b7d9a3e4455"}},
)


class Ticket(BaseModel):
    """A ticket that is valid for one WebSocket connection."""

    ticket: str
    expires_in_s: int


class Health(BaseModel):
    """Whether the process runs, and whether it can serve."""

    status: Literal["ok", "draining", "waiting for the state", "nothing is published"]


def build_app(gateway: Gateway, operations: Operations, queries: AccountQueries, files: PageFiles) -> FastAPI:
    """The routes for clients, and the document of all routes."""
    app = FastAPI(
        title="Portfolio values, live",
        version=__version__,
        description="The live value of brokerage accounts. The WebSocket is at /ws/portfolio/{account_id}.",
        docs_url=None,
        redoc_url=None,
        openapi_tags=TAGS,
    )
    app.state.gateway = gateway
    _add_problem_handlers(app)
    _add_probes(app, operations)
    _add_portfolios(app, gateway)
    _add_explanations(app, gateway, queries)
    add_many_accounts(app, gateway)
    _add_reference(app)
    app.mount("/", files, "page")
    return app


def _add_problem_handlers(app: FastAPI) -> None:
    async def refuse(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return refused(error)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        body: dict[str, Any] = {"detail": jsonable_encoder(error.errors()), "code": HttpProblem.INVALID.code}
        return JSONResponse(body, HttpProblem.INVALID.status)

    app.add_exception_handler(HTTPException, refuse)
    app.add_exception_handler(RequestValidationError, invalid)


def _add_probes(app: FastAPI, operations: Operations) -> None:
    """The probes and metrics for the document; `front` answers them without this app."""

    @app.get(
        "/health",
        response_model=Health,
        **described(
            "getHealth",
            "Liveness: the process runs",
            {200: {"content": json_content("Health", alive={"status": "ok"})}},
            tag="operations",
            is_secured=False,
        ),
    )
    async def health(request: Request) -> Response:
        return await operations.health(request)

    @app.get(
        "/ready",
        response_model=Health,
        **described(
            "getReadiness",
            "Readiness: 503 while draining, without state, or while nothing is published",
            {
                200: {"content": json_content("Health", ready={"status": "ok"})},
                503: {
                    "description": "Not now",
                    "content": json_content(
                        "Health",
                        draining={"status": "draining"},
                        waiting={"status": "waiting for the state"},
                        silent={"status": "nothing is published"},
                    ),
                },
            },
            tag="operations",
            is_secured=False,
        ),
    )
    async def ready(request: Request) -> Response:
        return await operations.ready(request)

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        **described(
            "getMetrics",
            "Metrics of all services, in Prometheus text",
            {
                200: {"content": {"text/plain": {"example": METRICS_EXAMPLE}}},
                403: described_problem(
                    "Not from this machine and without X-API-Key or METRICS_TOKEN; or without TLS",
                    HttpProblem.OPERATORS_ONLY,
                    HttpProblem.TLS_REQUIRED,
                ),
                429: TOO_OFTEN,
            },
            tag="operations",
        ),
    )
    async def metrics(request: Request) -> Response:
        return await operations.metrics(request)


def _add_portfolios(app: FastAPI, gateway: Gateway) -> None:
    portfolios = Portfolios(gateway)
    answers = account_answers(
        "PortfolioMessage", value=PORTFOLIO_EXAMPLE, positions=POSITIONS_EXAMPLE, unpriced=UNPRICED_EXAMPLE
    )
    events: Responses = {
        200: {
            "description": "One event per message; comments keep the stream alive; `close` says why it ends",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": EVENTS_EXAMPLE}},
        },
        **GUARDED,
        404: UNKNOWN,
        422: NO_SUCH_DETAIL,
        503: FULL,
    }

    @app.get(
        "/v1/portfolio/{account_id}",
        **described("getPortfolio", "The newest value of an account", {**answers, 422: NO_SUCH_DETAIL}),
    )
    async def portfolio(
        request: Request, account_id: AccountId, caller: Caller, detail: WithDetail = "value"
    ) -> Response:
        return json_answer(request, await portfolios.read(caller, account_id, detail))

    @app.get(
        "/api/portfolio/value",
        **described(
            "getPortfolioForExistingClients",
            "The newest value of an account, for existing clients",
            {**answers, 422: NO_ACCOUNT_ID},
        ),
    )
    async def portfolio_value(
        request: Request,
        account_id: Annotated[str, Query(alias="accountId", openapi_examples=ACCOUNT_IDS)],
        caller: Caller,
    ) -> Response:
        return json_answer(request, await portfolios.read(caller, account_id, "value"))

    @app.get(
        "/v1/portfolio/{account_id}/stream",
        response_class=StreamingResponse,
        dependencies=[Depends(let_in)],
        **described("streamPortfolio", "The values of an account as server-sent events", events),
    )
    async def stream(
        request: Request,
        account_id: AccountId,
        caller: Caller,
        detail: WithDetail = "value",
        last_event_id: LastEventId = None,
    ) -> Response:
        identity = await portfolios.require(caller, account_id)
        source = EventStream(
            gateway,
            identity,
            caller.address,
            account_id,
            with_positions=detail == "positions",
            seen=seen_in(last_event_id),
            cut=request.state.cut,
        )
        return EventResponse(source.events())

    @app.post(
        "/v1/tickets",
        **described(
            "createTicket",
            "Issue a ticket for one WebSocket connection",
            {
                200: {"content": json_content("Ticket", usual=TICKET_EXAMPLE)},
                **GUARDED,
                503: UNAVAILABLE,
            },
            tag="access",
        ),
    )
    async def tickets(caller: Caller) -> Ticket:
        try:
            return Ticket(ticket=await gateway.issue_ticket(caller.identity), expires_in_s=TICKET_TTL_S)
        except StateError:
            raise RequestRefused(HttpProblem.NO_VALUE) from None


def _add_explanations(app: FastAPI, gateway: Gateway, queries: AccountQueries) -> None:
    portfolios = Portfolios(gateway)

    @app.get(
        "/v1/portfolio/{account_id}/explain",
        **described(
            "explainPortfolio",
            "Every leg of the value, and the arithmetic",
            account_answers("Explanation", usual=EXPLANATION_EXAMPLE),
        ),
    )
    async def explanation(request: Request, account_id: AccountId, caller: Caller) -> Response:
        return json_answer(request, await portfolios.ask(caller, account_id, queries.explanation))

    @app.get(
        "/v1/portfolio/{account_id}/assets",
        **described(
            "getAssets",
            "What the account holds, with names, asset classes and cost",
            account_answers("HeldAssets", usual=ASSETS_EXAMPLE),
        ),
    )
    async def assets(request: Request, account_id: AccountId, caller: Caller) -> Response:
        return json_answer(request, await portfolios.ask(caller, account_id, queries.assets))

    @app.get(
        "/v1/portfolio/{account_id}/history",
        **described(
            "getHistory",
            "What the account was worth: each minute since the last close, or each closed day and now",
            {
                **account_answers("History", day=HISTORY_EXAMPLE, month=MONTH_EXAMPLE),
                422: NO_SUCH_RANGE,
            },
        ),
    )
    async def past(
        request: Request,
        account_id: AccountId,
        caller: Caller,
        span: Annotated[Range, RANGE] = "1d",
        since: Annotated[str | None, SINCE] = None,
        revision: Annotated[str | None, REVISION] = None,
    ) -> Response:
        async def history(account_id: str) -> bytes | None:
            return await queries.history(account_id, span, since, revision)

        return json_answer(request, await portfolios.ask(caller, account_id, history))


def _add_reference(app: FastAPI) -> None:
    """Put the messages that FastAPI never sees into the OpenAPI document; serve the documents and `/docs`."""
    document = app.openapi()
    _restore_examples(app, document)
    components = document.setdefault("components", {})
    _, made = msgspec.json.schema_components(
        [Explanation, History, HeldAssets, Problem, PortfolioList, AccountList],
        ref_template="#/components/schemas/{name}",
    )
    components.setdefault("schemas", {}).update(schemas("#/components/schemas/{name}") | made)
    for schema in components["schemas"].values():
        if "description" in schema:  # before Python 3.13 a docstring keeps its indentation
            schema["description"] = cleandoc(schema["description"])
    components["securitySchemes"] = SECURITY_SCHEMES
    app.openapi = lambda: document
    text = render(document)
    events = asyncapi()

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(text)

    @app.get("/asyncapi.json", include_in_schema=False)
    async def asyncapi_document() -> JSONResponse:
        return JSONResponse(events)


def _restore_examples(app: FastAPI, document: dict[str, Any]) -> None:
    """FastAPI drops every null of an example, and a null says what is not known.

    And it tells of a 422 at every route with parameters, also where any text is one.
    """
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                told = document["paths"][route.path_format][method.lower()]["responses"]
                if 422 not in route.responses:
                    told.pop("422", None)
                for status, answer in route.responses.items():
                    told[str(status)]["content"] = answer["content"]
