"""What operators and the demo page ask for: probes, metrics, the demo's session."""

from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from portfolio_realtime import telemetry
from portfolio_realtime.errors import StateError
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.http_api.guard import is_on_this_machine, operator_refusal
from portfolio_realtime.websocket_server.http_api.problems import RequestRefused
from portfolio_realtime.wire.http_problems import HttpProblem

EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"
DEMO_TOKEN_S: Final = 900
DEMO_ACCOUNTS_MAX: Final = 1000


class Operations:
    """The probes, metrics and demo session of one server."""

    def __init__(self, gateway: Gateway, instance: str) -> None:
        self._gateway = gateway
        self._instance = instance

    async def health(self, _: Request) -> Response:
        """Whether the process runs."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        """Whether it can serve."""
        gateway = self._gateway
        if gateway.is_draining:
            return JSONResponse({"status": "draining"}, 503)
        if not await gateway.is_ready():
            is_silent = gateway.follower.is_following and not gateway.follower.is_hearing
            why = "nothing is published" if is_silent else "waiting for the state"
            return JSONResponse({"status": why}, 503)
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """Those of all services. Raises RequestRefused."""
        gateway = self._gateway
        refusal = operator_refusal(gateway, request)
        if refusal is not None:
            raise RequestRefused(refusal)
        gateway.bring_counts()
        own = telemetry.exposition(gateway.registry).decode()
        try:
            others = await gateway.state.metrics.read_all()
        except StateError:
            others = []
        sources = [source for source in others if source[1] != self._instance]
        merged = telemetry.merge([*sources, ("websocket_server", self._instance, own)])
        return Response(merged, media_type=EXPOSITION)

    async def demo_session(self, request: Request) -> Response:
        """What the demo page needs; `token` is null where authentication is off. Raises RequestRefused."""
        gateway = self._gateway
        if not is_on_this_machine(request):
            raise RequestRefused(HttpProblem.NOT_FOUND)
        try:
            accounts = await gateway.state.accounts.ids()
        except StateError:
            raise RequestRefused(HttpProblem.NO_VALUE) from None
        is_off = gateway.authenticator.is_off
        token = None if is_off else gateway.authenticator.issue("demo", ["*"], DEMO_TOKEN_S)
        return JSONResponse({"accounts": accounts[:DEMO_ACCOUNTS_MAX], "token": token})
