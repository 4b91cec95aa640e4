"""Many accounts in one request, for back ends and overviews: each with its status, and their total."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, Field

from portfolio_realtime.errors import StateError
from portfolio_realtime.model import ZERO
from portfolio_realtime.websocket_server.access.identity import FORBIDDEN, Unauthorized, Unverifiable
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.http_api.callers import Caller
from portfolio_realtime.websocket_server.http_api.described_answers import (
    GUARDED,
    UNAVAILABLE,
    described,
    invalid,
    json_content,
)
from portfolio_realtime.websocket_server.http_api.files import json_answer
from portfolio_realtime.websocket_server.http_api.guard import Visitor, problem_of
from portfolio_realtime.websocket_server.http_api.portfolios import Portfolios
from portfolio_realtime.websocket_server.http_api.problems import RequestRefused
from portfolio_realtime.websocket_server.http_api.responses import (
    ACCOUNT_LIST_EXAMPLE,
    PORTFOLIO_LIST_EXAMPLE,
)
from portfolio_realtime.wire.http_problems import HttpProblem
from portfolio_realtime.wire.messages import Detail, is_account_id

IDS_MAX: Final = 500  # of one request
URL_IDS_CHARACTERS_MAX: Final = 16_384
PAGE_MAX: Final = 1000
PAGE_DEFAULT: Final = 100
OK: Final = "ok"

_encode = msgspec.json.Encoder().encode


class AccountIds(BaseModel):
    """Account ids that do not fit into a URL."""

    ids: list[Annotated[str, Field(max_length=64)]] = Field(min_length=1, max_length=IDS_MAX)
    detail: Detail = "value"


class ManyAccounts:
    """Reads several accounts at the same time."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._portfolios = Portfolios(gateway)

    async def read(self, visitor: Visitor, ids: Sequence[str], detail: Detail) -> bytes:
        """The `PortfolioList`. Raises RequestRefused: 401, 503, and 429 for too many guessed accounts."""
        account_ids = list(dict.fromkeys(ids))
        may_see = await asyncio.gather(*(self._may_see(visitor, account_id) for account_id in account_ids))
        visible = [
            account_id for account_id, is_visible in zip(account_ids, may_see, strict=True) if is_visible
        ]
        if visitor.identity in self._gateway.revocations:  # while it was being asked
            raise RequestRefused(problem_of(Unauthorized("revoked"), self._gateway, visitor.address))
        messages, entries = await asyncio.gather(
            self._portfolios.read_each(visible, detail), self._entries(visible)
        )
        items: list[dict[str, Any]] = []
        for account_id in account_ids:
            found = messages.get(account_id, HttpProblem.NO_SUCH_ACCOUNT)
            entry = entries.get(account_id, {"account_id": account_id})
            if isinstance(found, bytes):
                items.append({**entry, "status": OK, "portfolio": msgspec.Raw(found)})
            else:
                items.append({**entry, "status": found.code})
        known = {name: found for name, found in messages.items() if isinstance(found, bytes)}
        return _encode({"portfolios": items, "total": total(account_ids, known)})

    async def _may_see(self, visitor: Visitor, account_id: str) -> bool:
        """Whoever tries accounts out is counted for each, as one after the other."""
        gateway = self._gateway
        try:
            if is_account_id(account_id) and await gateway.access.may_see(visitor.identity, account_id):
                return True
        except Unverifiable:
            raise RequestRefused(HttpProblem.UNVERIFIABLE) from None
        problem = problem_of(Unauthorized(FORBIDDEN), gateway, visitor.address)
        if problem is HttpProblem.TOO_MANY:
            raise RequestRefused(problem)
        return False

    async def _entries(self, account_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """What an account is called, by its id; nobody's value waits for a number that cannot be had."""
        try:
            numbers = await self._gateway.state.account_numbers.read(account_ids)
        except StateError:
            numbers = {}
        return {
            one: {"account_id": one, **({"account_number": numbers[one]} if one in numbers else {})}
            for one in account_ids
        }

    async def visible(self, visitor: Visitor, after: str, limit: int) -> dict[str, Any]:
        """A page of the accounts that the caller may see, by their ids. Raises RequestRefused."""
        identity, accounts = visitor.identity, self._gateway.state.accounts
        ids, is_complete = set(identity.accounts), not identity.is_asked
        try:
            if identity.is_for_every_account:
                ids, is_complete = await accounts.listed()
        except StateError:
            raise RequestRefused(HttpProblem.NO_VALUE) from None
        rest = sorted(account_id for account_id in ids if account_id > after)
        return {
            "accounts": list((await self._entries(rest[:limit])).values()),
            "next": rest[limit - 1] if len(rest) > limit else None,
            "is_complete": is_complete,
        }


class _Parts(msgspec.Struct):
    equity: str | None
    day_pnl: str | None
    known_equity: str | None = None


_parts = msgspec.json.Decoder(_Parts)


def total(account_ids: Sequence[str], messages: dict[str, bytes]) -> dict[str, Any]:
    """The total of these accounts if every part is known, else the known part.

    `missing` names the accounts whose equity is not known, in whole or in part.
    """
    parts = {name: _parts.decode(message) for name, message in messages.items()}
    known, gained = ZERO, ZERO
    for part in parts.values():
        known += Decimal(part.equity or part.known_equity or 0)
        gained += Decimal(part.day_pnl or 0)
    missing = [name for name in account_ids if name not in parts or parts[name].equity is None]
    is_gain_known = not missing and all(part.day_pnl is not None for part in parts.values())
    return {
        "equity": None if missing else format(known, ".2f"),
        "day_pnl": format(gained, ".2f") if is_gain_known else None,
        "known_equity": format(known, ".2f"),
        "missing": missing,
    }


def add_many_accounts(app: FastAPI, gateway: Gateway) -> None:
    """The routes."""
    many = ManyAccounts(gateway)
    answers = {
        200: {
            "description": "Each account with its own status",
            "content": json_content("PortfolioList", usual=PORTFOLIO_LIST_EXAMPLE),
        },
        **GUARDED,
        503: UNAVAILABLE,
    }
    too_short = {"min_length": 1}
    no_ids = invalid(type="missing", loc=["query", "ids"], msg="Field required", input=None)
    empty = invalid(
        type="too_short",
        loc=["body", "ids"],
        msg="List should have at least 1 item after validation, not 0",
        input=[],
        ctx={"field_type": "List", "actual_length": 0, **too_short},
    )

    @app.get(
        "/v1/portfolios",
        **described(
            "getPortfolios",
            "The newest values of several accounts, and their total",
            {**answers, 422: no_ids},
        ),
    )
    async def portfolios(
        request: Request,
        caller: Caller,
        ids: Annotated[
            str,
            Query(
                max_length=URL_IDS_CHARACTERS_MAX,
                description=f"Account ids separated by commas, {IDS_MAX} at most",
                openapi_examples={"usual": {"value": "0d18ae51-1,0d18ae51-2"}},
            ),
        ],
        detail: Annotated[Detail, Query(openapi_examples={"value": {"value": "value"}})] = "value",
    ) -> Response:
        wanted = [account_id for account_id in ids.split(",") if account_id]
        if not 0 < len(wanted) <= IDS_MAX:
            raise RequestRefused(HttpProblem.INVALID)
        return json_answer(request, await many.read(caller, wanted, detail))

    @app.post(
        "/v1/portfolios",
        **described("queryPortfolios", "The same for more ids than fit into a URL", {**answers, 422: empty}),
    )
    async def portfolios_by_body(wanted: AccountIds, caller: Caller) -> Response:
        return Response(await many.read(caller, wanted.ids, wanted.detail), media_type="application/json")

    @app.get(
        "/v1/accounts",
        **described(
            "listAccounts",
            "The accounts that the caller may see, page by page",
            {
                200: {
                    "description": "In the order of their ids",
                    "content": json_content("AccountList", usual=ACCOUNT_LIST_EXAMPLE),
                },
                **GUARDED,
                503: UNAVAILABLE,
            },
        ),
    )
    async def accounts(
        request: Request,
        caller: Caller,
        after: Annotated[
            str,
            Query(
                max_length=64,
                description="`next` of the previous page",
                openapi_examples={"first": {"value": ""}},
            ),
        ] = "",
        limit: Annotated[
            int, Query(ge=1, le=PAGE_MAX, openapi_examples={"usual": {"value": PAGE_DEFAULT}})
        ] = PAGE_DEFAULT,
    ) -> Response:
        return json_answer(request, _encode(await many.visible(caller, after, limit)))
