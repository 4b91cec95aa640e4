"""REST faults: ASGI middleware that delays, refuses, aborts or changes responses while a fault is active."""

import asyncio
import random
from collections.abc import Callable
from typing import Any, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alpaca_sim.api.auth import MARKET_PREFIXES
from alpaca_sim.api.web import json_response
from alpaca_sim.core.clock import SECOND_NS
from alpaca_sim.core.credentials import WINDOW_S
from alpaca_sim.simulator import Simulator

SERVER_ERRORS = (500, 502, 503, 504)
STREAM_PREFIXES = ("/v2beta1/events/", "/v2/events/", "/v1/events/")
# Keys that `rest.null_fields` keeps: without them a row could not be attributed to its account or security.
IDENTITIES = frozenset(
    {"id", "account_id", "symbol", "asset_id", "event_id", "next_page_token", "activity_type", "asset_class",
     "class", "T", "S", "code", "message"}
)  # fmt: skip
ENUMS = frozenset({"status", "crypto_status", "exchange", "account_type", "order_status", "borrow_status"})
# Keys that are not in the `required` lists of Alpaca's OpenAPI files: a client must work without them.
OPTIONAL_KEYS = frozenset(
    {"previous_close", "cash_withdrawable", "cash_transferable", "last_long_market_value",
     "last_short_market_value", "last_cash", "last_initial_margin", "last_regt_buying_power",
     "last_buying_power", "last_options_buying_power", "clearing_broker", "memoposts", "intraday_adjustments",
     "pending_transfer_out", "user_configurations", "account_name", "crypto_status", "description",
     "created_at", "currency", "attributes", "borrow_status", "vw", "n"}
)  # fmt: skip
SNAPSHOT_PARTS = ("latestTrade", "latestQuote", "minuteBar", "dailyBar", "prevDailyBar")
NEW_VALUE = "SOMETHING_NEW"
NEW_FIELD = {"x_added_later": {"kind": NEW_VALUE, "list": [1, "2", None]}}

Spoil = Callable[[Any, random.Random, float], Any]


def without_values(value: Any, rng: random.Random, share: float) -> Any:
    """Replace a share of the values by null, except those of `IDENTITIES`."""
    if isinstance(value, list):
        return [without_values(item, rng, share) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    spoilt: dict[str, Any] = {}
    for key, item in cast("dict[str, Any]", value).items():
        is_leaf = not isinstance(item, (dict, list))
        takes = is_leaf and key not in IDENTITIES and rng.random() < share
        spoilt[key] = None if takes else without_values(item, rng, share)
    return spoilt


def without_keys(value: Any, rng: random.Random, share: float) -> Any:
    """Leave out a share of the optional keys."""
    if isinstance(value, list):
        return [without_keys(item, rng, share) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    return {
        key: without_keys(item, rng, share)
        for key, item in cast("dict[str, Any]", value).items()
        if key not in OPTIONAL_KEYS or rng.random() >= share
    }


def with_news(value: Any, rng: random.Random, share: float) -> Any:
    """Give a share of the objects a new key and unknown enum values."""
    if isinstance(value, list):
        return [with_news(item, rng, share) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    fields = {key: with_news(item, rng, share) for key, item in cast("dict[str, Any]", value).items()}
    is_row = any(isinstance(item, str) for item in fields.values())
    if is_row and rng.random() < share:
        fields |= {key: NEW_VALUE for key in fields if key in ENUMS} | NEW_FIELD
    return fields


def without_parts(value: Any, rng: random.Random, share: float) -> Any:
    """Leave out a share of the parts of snapshots, and snapshots that lose all of their parts."""
    if not isinstance(value, dict):
        return value
    fields = cast("dict[str, Any]", value)
    if not any(part in fields for part in SNAPSHOT_PARTS):
        kept = {key: without_parts(item, rng, share) for key, item in fields.items()}
        return {key: item for key, item in kept.items() if item != {} or fields[key] == {}}
    return {key: item for key, item in fields.items() if key not in SNAPSHOT_PARTS or rng.random() >= share}


SPOILS: dict[str, Spoil] = {
    "rest.null_fields": without_values,
    "rest.missing_fields": without_keys,
    "rest.unknown_fields": with_news,
    "rest.missing_parts": without_parts,
}


class RestFaults:
    """ASGI middleware below the guard: its requests are authenticated and counted already."""

    def __init__(self, app: ASGIApp, sim: Simulator) -> None:
        self._app = app
        self._sim = sim

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with an error, abort the connection, or pass the request on and change the response."""
        faults, path = self._sim.faults, str(scope.get("path", ""))
        if scope["type"] != "http" or not faults.active or path.startswith("/_sim"):
            await self._app(scope, receive, send)
            return
        names = ("data" if path.startswith(MARKET_PREFIXES) else "broker", path)
        await asyncio.sleep(faults.level("rest.slow", *names) or 0.0)
        if faults.strikes("rest.cut", *names):
            self._sim.abort(tuple(scope["client"]))
            return
        refusal = self._refusal(names)
        if refusal is not None:
            await refusal(scope, receive, send)
        elif path.startswith(STREAM_PREFIXES):
            await self._app(scope, receive, send)
        else:
            await self._spoilt(Request(scope), names, receive, send)

    def _refusal(self, names: tuple[str, ...]) -> Response | None:
        faults = self._sim.faults
        if faults.is_on("rest.429", *names):
            self._sim.rate_limit.rejected_count += 1
            reset_s = self._sim.service_clock.now_ns() / SECOND_NS + faults.ends_in_s("rest.429")
            response = _error(429, "too many requests.")
            response.headers["X-RateLimit-Limit"] = str(self._sim.rate_limit.per_minute)
            response.headers["X-RateLimit-Remaining"] = "0"
            response.headers["X-RateLimit-Reset"] = str(int(reset_s) + 1)
            if self._sim.settings.switches.retry_after == "yes":
                response.headers["Retry-After"] = str(min(WINDOW_S, int(faults.ends_in_s("rest.429")) + 1))
            return response
        if faults.strikes("rest.5xx", *names):
            return _error(faults.rng.choice(SERVER_ERRORS), "internal server error occurred")
        return _error(401, "request is not authorized") if faults.strikes("rest.401", *names) else None

    async def _spoilt(self, request: Request, names: tuple[str, ...], receive: Receive, send: Send) -> None:
        """Collect the application's response, and send it as the active faults change it."""
        head: Message = {"type": "http.response.start", "status": 500, "headers": []}
        parts: list[bytes] = []

        async def collect(message: Message) -> None:
            nonlocal head
            if message["type"] == "http.response.start":
                head = message
            else:
                parts.append(message.get("body", b""))

        await self._app(request.scope, receive, collect)
        body = self._spoil(b"".join(parts), names) if head["status"] == 200 else b"".join(parts)
        headers = [pair for pair in head["headers"] if pair[0].lower() != b"content-length"]
        head["headers"] = [*headers, (b"content-length", str(len(body)).encode())]
        await send(head)
        await send({"type": "http.response.body", "body": body})

    def _spoil(self, body: bytes, names: tuple[str, ...]) -> bytes:
        faults = self._sim.faults
        shares = {kind: faults.level(kind, *names) for kind in SPOILS}
        if any(shares.values()):
            value = msgspec.json.decode(body)
            for kind, share in shares.items():
                value = SPOILS[kind](value, faults.rng, share) if share else value
            body = msgspec.json.encode(value)
        return body[: len(body) // 2] if faults.strikes("rest.malformed", *names) else body


def _error(status: int, message: str) -> Response:
    return json_response({"code": status * 100_000 + 10_000, "message": message}, status)
