"""Who may ask: Basic, Bearer and APCA headers, the token endpoint, and the rate limit with its headers."""

import asyncio
import base64
import binascii
import secrets
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alpaca_sim.api.web import ApiError, error_response, json_response
from alpaca_sim.core.clock import SECOND_NS, Clock

TOKEN_LIFE_S = 15 * 60
TOKENS_MAX = 1_000
WINDOW_S = 60
RATE_KEYS_MAX = 1_000
TOKEN_PATH = "/v1/oauth2/token"  # noqa: S105 - a path, not a secret
CONTROL_PREFIX = "/_sim"
TRADING_PREFIXES = ("/v2/account", "/v2/positions", "/v2/clock", "/v2/calendar", "/v2/assets")
MARKET_PREFIXES = ("/v2/stocks", "/v1beta1/options", "/v1beta3/crypto")
OPEN_PREFIXES = ("/v1beta3/crypto",)  # no credentials needed


class Credentials:
    """One accepted key and secret, and the tokens given out for them."""

    def __init__(self, key: str, secret: str, clock: Clock) -> None:
        """Nothing else is ever accepted."""
        self._key = key
        self._secret = secret
        self._clock = clock
        self._tokens: dict[str, int] = {}  # token → expiry, ns
        # whose account a Trading API pair is of; good for that API and market data, not for a broker's paths
        self.trading_account: Callable[[str, str], str | None] = lambda _key, _secret: None

    def is_pair(self, key: str, secret: str) -> bool:
        """Whether key and secret are the accepted ones."""
        return secrets.compare_digest(f"{key}:{secret}".encode(), f"{self._key}:{self._secret}".encode())

    def is_data_pair(self, key: str, secret: str) -> bool:
        """Whether market data is open to this pair: the accepted one, or that of an account."""
        return self.is_pair(key, secret) or self.trading_account(key, secret) is not None

    def issue_token(self) -> str:
        """A new bearer token; the oldest is dropped beyond the limit."""
        token = secrets.token_urlsafe(32)
        self._tokens[token] = self._clock.now_ns() + TOKEN_LIFE_S * SECOND_NS
        if len(self._tokens) > TOKENS_MAX:
            del self._tokens[next(iter(self._tokens))]
        return token

    def expire_tokens(self) -> None:
        """Let every token given out so far be worth nothing."""
        self._tokens.clear()

    def is_token(self, token: str) -> bool:
        """Whether the token was given out and has not expired."""
        return self._tokens.get(token, 0) > self._clock.now_ns()

    def holder(self, headers: Mapping[str, str], with_apca: bool) -> str | None:
        """The key behind a request's headers; None when they are wrong or absent."""
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._key if self.is_token(value.strip()) else None
        if scheme.lower() == "basic":
            return self._key if self._is_basic(value.strip()) else None
        if with_apca and "apca-api-key-id" in headers:
            pair = headers["apca-api-key-id"], headers.get("apca-api-secret-key", "")
            return pair[0] if self.is_data_pair(*pair) else None
        return None

    def _is_basic(self, encoded: str) -> bool:
        try:
            key, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        return self.is_pair(key, secret)


async def token_endpoint(request: Request) -> Response:
    """OAuth2 client credentials: `POST` a form, get a token of 15 minutes."""
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


class RateLimit:
    """Requests per key in the present minute."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        """`per_minute` requests are answered in each minute of the clock."""
        self.per_minute = per_minute
        self.rejected_count = 0
        self._clock = clock
        self._window = 0
        self._counts: dict[str, int] = {}

    def take(self, key: str) -> dict[str, str]:
        """Count one request and give the headers. Raises ApiError 429 with `headers` when the minute is
        used up.
        """
        window = self._clock.now_ns() // (WINDOW_S * SECOND_NS)
        if window != self._window or len(self._counts) > RATE_KEYS_MAX:
            self._window = window
            self._counts.clear()
        count = self._counts.get(key, 0) + 1
        headers = {
            "X-RateLimit-Limit": str(self.per_minute),
            "X-RateLimit-Remaining": str(max(0, self.per_minute - count)),
            "X-RateLimit-Reset": str((window + 1) * WINDOW_S),
        }
        if count > self.per_minute:
            self.rejected_count += 1
            raise RateLimitedError(headers)
        self._counts[key] = count
        return headers


class RateLimitedError(ApiError):
    """Too many requests in this minute."""

    def __init__(self, headers: dict[str, str]) -> None:
        """`headers` say when to come back."""
        super().__init__(429, "too many requests.")
        self.headers = headers


class Guard:
    """ASGI middleware: authentication and rate limit of everything but the control and token paths."""

    def __init__(
        self,
        app: ASGIApp,
        credentials: Credentials,
        rate_limit: RateLimit,
        date: Callable[[], str] | None = None,
    ) -> None:
        """Wrap `app`; `date` gives the Date header."""
        self.request_count = 0
        self.requests_per_second_max = 0
        self._second = (0, 0)  # the present second of the loop's clock, and the requests in it
        self._date = date
        self._app = app
        self._credentials = credentials
        self._rate_limit = rate_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, 403 or 429 itself, or pass on with rate-limit headers added."""
        path: str = scope.get("path", "")
        if scope["type"] != "http" or path == TOKEN_PATH or path.startswith(CONTROL_PREFIX):
            await self._app(scope, receive, send)
            return
        self._count()
        try:
            headers = self._rate_limit.take(self._authenticate(path, Headers(scope=scope)))
        except ApiError as error:
            response = await error_response(Request(scope), error)
            response.headers.update(getattr(error, "headers", {}))
            await response(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                for name, value in headers.items():  # a fault may have said otherwise already
                    sent.setdefault(name, value)
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
