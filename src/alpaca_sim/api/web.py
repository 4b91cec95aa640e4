"""What all HTTP routes share: the simulator, JSON, Alpaca's error body, and query parameters."""

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
    """The simulator behind a request."""
    return request.app.state.sim


class ApiError(Exception):
    """An answer in Alpaca's error shape: HTTP status, a code of status and five digits, a message."""

    def __init__(self, status: int, message: str, code: int | None = None) -> None:
        """`code` defaults to the status followed by 10000."""
        super().__init__(message)
        self.status = status
        self.code = code or status * 100_000 + 10_000
        self.message = message


def find_account(sim: Simulator, account_id: str) -> Account:
    """The account, or Alpaca's error for an unknown one."""
    account = sim.ledger.accounts.get(account_id)
    if account is None:
        status = int(sim.settings.switches.unknown_account)
        raise ApiError(status, f"account not found for {account_id}")
    return account


def json_response(value: object, status: int = 200) -> Response:
    """Encode as JSON; decimals must already be strings or floats."""
    return Response(msgspec.json.encode(value), status, media_type=JSON_TYPE)


async def error_response(_request: Request, error: Exception) -> Response:
    """Exception handler of the application for `ApiError`."""
    assert isinstance(error, ApiError)
    return json_response({"code": error.code, "message": error.message}, error.status)


async def not_found(_request: Request, _error: Exception) -> Response:
    """A path that Alpaca does not have either."""
    return json_response({"code": 40410000, "message": "endpoint not found."}, 404)


def csv_param(request: Request, name: str) -> list[str]:
    """A comma-separated query parameter; absent and empty are both the empty list."""
    return [part.strip() for part in request.query_params.get(name, "").split(",") if part.strip()]


def int_param(request: Request, name: str, default: int, low: int, high: int) -> int:
    """An integer query parameter within bounds, or 422."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.lstrip("-").isdigit() or not low <= int(text) <= high:
        raise ApiError(422, f"{name} must be an integer from {low} to {high}")
    return int(text)


def time_param(request: Request, name: str) -> int | None:
    """A time query parameter in ns, or 422."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        return parse_time_ns(text)
    except ValueError as error:
        raise ApiError(422, f"invalid {name}: {error}") from error


def date_param(request: Request, name: str, default: date) -> date:
    """A date query parameter, or 422. A time is cut to its date, as Alpaca's SDK sends either."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        return date.fromisoformat(text[:10])
    except ValueError as error:
        raise ApiError(422, f"invalid {name}: {error}") from error


async def json_body(request: Request) -> dict[str, Any]:
    """The request's JSON object, or 422."""
    try:
        body = msgspec.json.decode(await request.body())
    except msgspec.DecodeError as error:
        raise ApiError(422, f"body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ApiError(422, "body must be a JSON object")
    return body
