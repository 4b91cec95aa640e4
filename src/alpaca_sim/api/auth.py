"""Authentication (Basic, Bearer and Alpaca's key headers), the token endpoint, and the rate limit."""

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alpaca_sim.api.web import ApiError, error_response, json_response
from alpaca_sim.core.credentials import TOKEN_LIFE_S, Credentials, RateLimit, RateLimitedError

TOKEN_PATH = "/v1/oauth2/token"  # noqa: S105 - a path, not a secret
CONTROL_PREFIX = "/_sim"
TRADING_PREFIXES = ("/v2/account", "/v2/positions", "/v2/clock", "/v2/calendar", "/v2/assets")
MARKET_PREFIXES = ("/v2/stocks", "/v1beta1/options", "/v1beta3/crypto")
OPEN_PREFIXES = ("/v1beta3/crypto",)  # no credentials needed


async def token_endpoint(request: Request) -> Response:
    """`POST /v1/oauth2/token`: OAuth 2.0 client credentials. The token is valid for 15 minutes."""
    form = parse_qs((await request.body()).decode("utf-8", "replace"))
    client_id, secret, grant_type = (
        form.get(name, [""])[0] for name in ("client_id", "client_secret", "grant_type")
    )
    credentials: Credentials = request.app.state.sim.credentials
    if grant_type != "client_credentials":
        return json_response({"error": "unsupported_grant_type"}, 400)
    if not credentials.is_pair(client_id, secret):
        return json_response({"error": "invalid_client"}, 401)
    token = credentials.issue_token()
    return json_response({"access_token": token, "expires_in": TOKEN_LIFE_S, "token_type": "Bearer"})


class Guard:
    """ASGI middleware: authentication and rate limit of all paths except `/_sim` and the token endpoint."""

    def __init__(
        self,
        app: ASGIApp,
        credentials: Credentials,
        rate_limit: RateLimit,
        date: Callable[[], str] | None = None,
    ) -> None:
        """Wrap `app`. `date` returns the value of the Date header."""
        self.request_count = 0
        self.requests_per_second_max = 0
        self._second = (0, 0)  # the present second of the loop's clock, and the number of requests in it
        self._date = date
        self._app = app
        self._credentials = credentials
        self._rate_limit = rate_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, 403 or 429, or pass the request on and add the rate-limit headers to the response."""
        path: str = scope.get("path", "")
        if scope["type"] != "http" or path == TOKEN_PATH or path.startswith(CONTROL_PREFIX):
            await self._app(scope, receive, send)
            return
        self._count()
        try:
            headers = self._rate_limit.count_request(self._authenticate(path, Headers(scope=scope)))
        except ApiError as error:
            await (await error_response(Request(scope), error))(scope, receive, send)
            return
        except RateLimitedError as limited:
            response = await error_response(Request(scope), ApiError(429, "too many requests."))
            response.headers.update(limited.headers)
            await response(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                for name, value in headers.items():
                    sent.setdefault(name, value)  # the fault `rest.429` sets headers of its own
                if self._date is not None:
                    sent["Date"] = self._date()
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _count(self) -> None:
        self.request_count += 1
        second = int(asyncio.get_running_loop().time())
        self._second = (second, self._second[1] + 1 if second == self._second[0] else 1)
        self.requests_per_second_max = max(self.requests_per_second_max, self._second[1])

    def _authenticate(self, path: str, headers: Headers) -> str:
        is_market = path.startswith(MARKET_PREFIXES)
        if path.startswith(OPEN_PREFIXES) and not {"authorization", "apca-api-key-id"} & set(headers.keys()):
            return "anonymous"
        with_apca = is_market or path.startswith(TRADING_PREFIXES)
        holder = self._credentials.holder(headers, with_apca)
        if holder is None:
            raise ApiError(403, "forbidden.") if is_market else ApiError(401, "request is not authorized")
        return holder
