"""Errors of HTTP and of the WebSocket handshake: status, code, detail, and when to retry.

The code is for programs, and its meaning never changes; the detail is for people. Neither says why
credentials are refused: as RFC 6750 allows, a client only learns whether they are missing, invalid or
expired.
"""

import enum
from http import HTTPStatus
from typing import Final, NamedTuple

RETRY_S: Final = 2
TOO_MANY_RETRY_S: Final = 10


class _Refusal(NamedTuple):
    status: HTTPStatus
    code: str
    detail: str
    retry_after_s: int | None = None
    challenge: str | None = None  # RFC 6750


class HttpProblem(enum.Enum):
    """Why a request is refused."""

    BAD_REQUEST = _Refusal(HTTPStatus.BAD_REQUEST, "bad_request", "the request is malformed")
    UNAUTHORIZED = _Refusal(HTTPStatus.UNAUTHORIZED, "unauthorized", "unauthorized", None, "Bearer")
    INVALID_TOKEN = _Refusal(
        HTTPStatus.UNAUTHORIZED, "unauthorized", "unauthorized", None, 'Bearer error="invalid_token"'
    )
    EXPIRED_TOKEN = _Refusal(
        HTTPStatus.UNAUTHORIZED,
        "unauthorized",
        "unauthorized",
        None,
        'Bearer error="invalid_token", error_description="expired"',
    )
    FORBIDDEN = _Refusal(HTTPStatus.FORBIDDEN, "forbidden", "the account does not exist, or it is not yours")
    ORIGIN_NOT_ALLOWED = _Refusal(
        HTTPStatus.FORBIDDEN, "origin_not_allowed", "the page's origin is not in ALLOWED_ORIGINS"
    )
    TLS_REQUIRED = _Refusal(HTTPStatus.FORBIDDEN, "tls_required", "TLS is required: use https")
    OPERATORS_ONLY = _Refusal(
        HTTPStatus.FORBIDDEN, "operators_only", "only from this machine, with X-API-Key or with METRICS_TOKEN"
    )
    NOT_FOUND = _Refusal(HTTPStatus.NOT_FOUND, "not_found", "there is nothing at this address")
    NO_SUCH_ACCOUNT = _Refusal(
        HTTPStatus.NOT_FOUND, "account_not_found", "the account does not exist, or it is not yours"
    )
    METHOD_NOT_ALLOWED = _Refusal(
        HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "this address does not support the method"
    )
    UPGRADE_REQUIRED = _Refusal(
        HTTPStatus.UPGRADE_REQUIRED, "upgrade_required", "this address is a WebSocket"
    )
    BODY_TOO_LARGE = _Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "body_too_large",
        "the body is too large: ask for fewer accounts at once",
    )
    INVALID = _Refusal(
        HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_parameter", "a parameter is missing or has an invalid value"
    )
    TOO_MANY = _Refusal(
        HTTPStatus.TOO_MANY_REQUESTS,
        "too_many_requests",
        "too many connections or refused requests from your address; retry later",
        TOO_MANY_RETRY_S,
    )
    CONNECTION_LIMIT = _Refusal(
        HTTPStatus.TOO_MANY_REQUESTS,
        "connection_limit",
        "this user has too many connections; retry later",
        TOO_MANY_RETRY_S,
    )
    UNVERIFIABLE = _Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "credentials_unverifiable",
        "the credentials cannot be checked now; retry later",
        RETRY_S,
    )
    NO_VALUE = _Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE, "value_unavailable", "no value is available now; retry later", RETRY_S
    )
    NOT_YET = _Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "account_not_ready",
        "the account exists but cannot be valued yet; retry later",
        RETRY_S,
    )
    NOT_IN_DOLLARS = _Refusal(
        HTTPStatus.CONFLICT, "account_not_in_dollars", "the account is in another currency than dollars"
    )
    NO_ROOM = _Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "at_capacity",
        "the server is at capacity or shutting down; retry later",
        RETRY_S,
    )
    TOO_BUSY = _Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "too_busy",
        "too many explanations and histories are being computed; retry later",
        RETRY_S,
    )

    @property
    def status(self) -> HTTPStatus:
        """The HTTP status."""
        return self.value.status

    @property
    def code(self) -> str:
        """The error code for programs."""
        return self.value.code

    @property
    def detail(self) -> str:
        """The explanation for people."""
        return self.value.detail

    @property
    def body(self) -> dict[str, str]:
        """The JSON object of the response."""
        return {"detail": self.detail, "code": self.code}

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the response: WWW-Authenticate or Retry-After, if any."""
        if self.value.challenge is not None:
            return {"WWW-Authenticate": self.value.challenge}
        retry_after_s = self.value.retry_after_s
        return {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
