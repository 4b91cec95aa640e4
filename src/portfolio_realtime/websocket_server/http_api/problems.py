"""An error that routes raise, and its answer: `{"detail": …, "code": …}`."""

from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from portfolio_realtime.wire.http_problems import HttpProblem

BY_STATUS: Final[dict[int, HttpProblem]] = {  # of what the router and the files refuse themselves
    problem.status: problem
    for problem in (HttpProblem.BAD_REQUEST, HttpProblem.NOT_FOUND, HttpProblem.METHOD_NOT_ALLOWED)
}


class RequestRefused(HTTPException):
    """Raised by a route instead of an answer."""

    def __init__(self, problem: HttpProblem) -> None:
        super().__init__(problem.status, problem.detail, problem.headers)
        self.problem = problem


def answer(problem: HttpProblem, headers: dict[str, str] | None = None) -> JSONResponse:
    """The response for an error."""
    return JSONResponse(problem.body, problem.status, {**(headers or {}), **problem.headers})


def refused(error: HTTPException) -> JSONResponse:
    """The response for a refusal, with its code, whoever refuses."""
    if isinstance(error, RequestRefused):
        return answer(error.problem)
    headers = dict(error.headers or {})
    known = BY_STATUS.get(error.status_code)
    if known is not None:
        return answer(known, headers)
    return JSONResponse({"detail": error.detail, "code": "refused"}, error.status_code, headers)
