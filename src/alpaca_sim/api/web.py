"""Shared by all HTTP routes: the simulator of a request, JSON, Alpaca's error body, query parameters."""

from datetime import date
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from alpaca_sim.core.clock import parse_time_ns
from alpaca_sim.core.ledger import Account
from alpaca_sim.simulator import Simulator

JSON_TYPE = "application/json"


def sim_of(request: Request) -> Simulator:
    """The simulator that serves a request."""
    return request.app.state.sim


class ApiError(Exception):
    """An error response in Alpaca's shape: HTTP status, a code (the status and five digits), a message."""

    def __init__(self, status: int, message: str, code: int | None = None) -> None:
        """`code` defaults to the status followed by 10000."""
        super().__init__(message)
        self.status = status
        self.code = code or status * 100_000 + 10_000
        self.message = message


def find_account(sim: Simulator, account_id: str) -> Account:
    """The account. Raises ApiError for an unknown one: 404, or 401 by the switch `unknown_account`."""
    account = sim.ledger.accounts.get(account_id)
    if account is None:
        status = int(sim.settings.switches.unknown_account)
        raise ApiError(status, f"account not found for {account_id}")
    return account


def json_response(value: object, status: int = 200) -> Response:
    """A JSON response. Decimals must be strings or floats already."""
    return Response(msgspec.json.encode(value), status, media_type=JSON_TYPE)


async def error_response(_request: Request, error: Exception) -> Response:
    """The response of an `ApiError`: the application's exception handler."""
    assert isinstance(error, ApiError)
    return json_response({"code": error.code, "message": error.message}, error.status)


async def not_found(_request: Request, _error: Exception) -> Response:
    """The response for an unknown path: Alpaca's 404."""
    return json_response({"code": 40410000, "message": "endpoint not found."}, 404)


def csv_param(request: Request, name: str) -> list[str]:
    """A comma-separated query parameter as a list; empty when the parameter is absent or empty."""
    return [part.strip() for part in request.query_params.get(name, "").split(",") if part.strip()]


def int_param(request: Request, name: str, default: int, low: int, high: int) -> int:
    """An integer query parameter from `low` to `high`. Raises ApiError (422)."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.lstrip("-").isdigit() or not low <= int(text) <= high:
        raise ApiError(422, f"{name} must be an integer from {low} to {high}")
    return int(text)


def time_param(request: Request, name: str) -> int | None:
    """A time query parameter in ns since the epoch; None when absent. Raises ApiError (422)."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        return parse_time_ns(text)
    except ValueError as error:
        raise ApiError(422, f"invalid {name}: {error}") from error


def date_param(request: Request, name: str, default: date) -> date:
    """A date query parameter. Raises ApiError (422).

    Alpaca's SDK sends a date or a time; of a time only the date counts.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        return date.fromisoformat(text[:10])
    except ValueError as error:
        raise ApiError(422, f"invalid {name}: {error}") from error


async def json_body(request: Request) -> dict[str, Any]:
    """The JSON object in the request's body. Raises ApiError (422)."""
    try:
        body = msgspec.json.decode(await request.body())
    except msgspec.DecodeError as error:
        raise ApiError(422, f"body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ApiError(422, "body must be a JSON object")
    return body
