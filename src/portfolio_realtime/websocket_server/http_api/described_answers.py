"""The answers of routes in the OpenAPI document: schemas, examples and errors."""

from typing import Any, Final

from portfolio_realtime.wire.http_problems import HttpProblem

Responses = dict[int | str, dict[str, Any]]


def json_content(schema: str, **examples: Any) -> dict[str, Any]:
    """The content of an answer: its schema, and examples by name."""
    named = {name: {"value": example} for name, example in examples.items()}
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}, "examples": named}}


def described_problem(description: str, *problems: HttpProblem) -> dict[str, Any]:
    """A refusal: what it means, its body in each case, and the header that comes with it."""
    names = sorted({name for problem in problems for name in problem.headers})
    headers = {"headers": {name: {"schema": {"type": "string"}} for name in names}} if names else {}
    examples = {problem.code: problem.body for problem in problems}
    return {"description": description, "content": json_content("Problem", **examples), **headers}


REFUSED: Final = described_problem("Missing, invalid or expired credentials", HttpProblem.UNAUTHORIZED)
PLAIN: Final = described_problem(
    "REQUIRE_TLS is set and the request did not come through TLS", HttpProblem.TLS_REQUIRED
)
UNKNOWN: Final = described_problem(HttpProblem.NO_SUCH_ACCOUNT.detail, HttpProblem.NO_SUCH_ACCOUNT)
TOO_OFTEN: Final = described_problem(HttpProblem.TOO_MANY.detail, HttpProblem.TOO_MANY)
FOREIGN: Final = described_problem(HttpProblem.NOT_IN_DOLLARS.detail, HttpProblem.NOT_IN_DOLLARS)
UNAVAILABLE: Final = described_problem(
    "Unavailable for now; see Retry-After",
    HttpProblem.NO_VALUE,
    HttpProblem.NOT_YET,
    HttpProblem.UNVERIFIABLE,
)
FULL: Final = described_problem(
    "Unavailable for now; see Retry-After",
    HttpProblem.NO_ROOM,
    HttpProblem.NO_VALUE,
    HttpProblem.UNVERIFIABLE,
)
GUARDED: Final[Responses] = {401: REFUSED, 403: PLAIN, 429: TOO_OFTEN}  # by the guard, before any account


def invalid(**wrong: Any) -> dict[str, Any]:
    """The answer to a missing or invalid parameter."""
    content = json_content("HTTPValidationError", usual={"detail": [wrong], "code": HttpProblem.INVALID.code})
    return {"description": "A parameter is missing or invalid", "content": content}


def no_such(parameter: str, given: str, expected: str) -> dict[str, Any]:
    """The same for a value that is none of those expected."""
    wrong = {"msg": f"Input should be {expected}", "input": given, "ctx": {"expected": expected}}
    return invalid(type="literal_error", loc=["query", parameter], **wrong)


NO_SUCH_DETAIL: Final = no_such("detail", "everything", "'value' or 'positions'")
NO_SUCH_RANGE: Final = no_such("range", "1h", "'1d', '1w', '1m', '3m', '1y' or 'all'")
NO_ACCOUNT_ID: Final = invalid(type="missing", loc=["query", "accountId"], msg="Field required", input=None)
SECURED: Final[dict[str, Any]] = {"security": [{"bearer": []}, {"apiKey": []}]}
SECURITY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def account_answers(schema: str, **examples: Any) -> Responses:
    """What a route of one account answers."""
    return {
        200: {"description": "The newest value", "content": json_content(schema, **examples)},
        **GUARDED,
        404: UNKNOWN,
        409: FOREIGN,
        503: UNAVAILABLE,
    }


def described(
    operation_id: str, summary: str, responses: Responses, *, tag: str = "portfolios", is_secured: bool = True
) -> dict[str, Any]:
    """The OpenAPI description of a route; every route is declared with it."""
    told: dict[str, Any] = {
        "operation_id": operation_id,
        "summary": summary,
        "responses": responses,
        "tags": [tag],
    }
    return told | {"openapi_extra": SECURED} if is_secured else told
