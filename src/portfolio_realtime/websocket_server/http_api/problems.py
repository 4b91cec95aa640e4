"""An error that routes raise, and its answer: `{"detail": …, "code": …}`."""

from typing import Any, Final

from fastapi import FastAPI, HTTPException, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteException
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


def add_problem_handlers(app: FastAPI) -> None:
    """Let every refusal of an app carry its code, whoever refuses."""

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, StarletteException)
        if isinstance(error, RequestRefused):
            return answer(error.problem)
        headers = dict(error.headers or {})
        known = BY_STATUS.get(error.status_code)
        if known is not None:
            return answer(known, headers)
        return JSONResponse({"detail": error.detail, "code": "refused"}, error.status_code, headers)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        body: dict[str, Any] = {"detail": jsonable_encoder(error.errors()), "code": HttpProblem.INVALID.code}
        return JSONResponse(body, HttpProblem.INVALID.status)

    app.add_exception_handler(StarletteException, refused)
    app.add_exception_handler(RequestValidationError, invalid)
