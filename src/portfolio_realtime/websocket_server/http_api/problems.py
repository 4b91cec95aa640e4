"""What HTTP says where there is no answer: the status, the words, when to come again. Nothing of why."""

from typing import Final

from fastapi import HTTPException

RETRY_AFTER_S: Final = 2
TOO_MANY_RETRY_AFTER_S: Final = 10
UNAUTHORIZED: Final = "unauthorized"
OPERATORS_ONLY: Final = "only from this machine, with X-API-Key or with METRICS_TOKEN"
TLS_REQUIRED: Final = "TLS is required: use https"
UNVERIFIABLE: Final = "credentials cannot be checked now"
NO_SUCH_ACCOUNT: Final = "no such account, or not yours"
NO_VALUE: Final = "no value can be had now"
NO_ROOM: Final = "nobody more can be let in now"
TOO_BUSY: Final = "too many explanations and histories are asked for now; ask again in a moment"
TOO_MANY: Final = "too many connections or refused requests from your address; wait a little"


def unauthorized() -> HTTPException:
    """The one answer for no, bad, expired and revoked credentials."""
    return HTTPException(401, UNAUTHORIZED, {"WWW-Authenticate": "Bearer"})


def operators_only() -> HTTPException:
    """Whoever asks is no operator."""
    return HTTPException(403, OPERATORS_ONLY)


def unverifiable() -> HTTPException:
    """Nobody can tell now whether the credentials are good."""
    return _later(UNVERIFIABLE)


def no_such_account() -> HTTPException:
    """The one answer for an account that does not exist and for another's."""
    return HTTPException(404, NO_SUCH_ACCOUNT)


def no_value() -> HTTPException:
    """The state or the calculators are away."""
    return _later(NO_VALUE)


def no_room() -> HTTPException:
    """The server ends, or has as many clients as it can have."""
    return _later(NO_ROOM)


def too_busy() -> HTTPException:
    """As many questions wait as may."""
    return _later(TOO_BUSY)


def too_many() -> HTTPException:
    """One address comes too often, or was refused too often."""
    return HTTPException(429, TOO_MANY, {"Retry-After": str(TOO_MANY_RETRY_AFTER_S)})


def _later(what: str) -> HTTPException:
    return HTTPException(503, what, {"Retry-After": str(RETRY_AFTER_S)})
