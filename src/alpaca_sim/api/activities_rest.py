"""`GET /v1/accounts/activities`: rows sorted by id. A page begins after the row that `page_token` names."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alpaca_sim.api.web import (
    ApiError,
    csv_param,
    date_param,
    find_account,
    int_param,
    json_response,
    sim_of,
    time_param,
)
from alpaca_sim.core.clock import SECOND_NS
from alpaca_sim.core.ledger import Activity
from alpaca_sim.streams.activities_json import row_json, row_type
from alpaca_sim.streams.activity_index import Row, id_of, rows_of

PAGE_SIZE_MAX = 100
CATEGORIES = ("trade_activity", "non_trade_activity")
DATED_PAGE_SIZE_MAX = 1_000_000  # with `date`, a page has all rows of the day


@dataclass(frozen=True, slots=True)
class Filter:
    """The filters of a request; None is no restriction."""

    types: set[str] | None
    is_trade: bool | None
    day: date | None  # UTC
    after_ns: int | None
    until_ns: int | None

    def takes(self, activity: Activity) -> bool:
        """Whether the activity passes all filters."""
        return (
            (self.types is None or row_type(activity) in self.types)
            and (self.is_trade is None or (activity.activity_type == "TRD") == self.is_trade)
            and (
                self.day is None
                or datetime.fromtimestamp(activity.at_ns // SECOND_NS, UTC).date() == self.day
            )
            and (self.after_ns is None or activity.at_ns > self.after_ns)
            and (self.until_ns is None or activity.at_ns <= self.until_ns)
        )


async def list_activities(request: Request) -> Response:
    """`GET /v1/accounts/activities[/{activity_type}]`: of all accounts, or of `account_id`."""
    return json_response(activities_page(request, request.query_params.get("account_id")))


def activities_page(request: Request, account_id: str | None) -> list[dict[str, Any]]:
    """One page of rows. Raises ApiError for a query that Alpaca refuses.

    Reads `direction`, `page_size`, `page_token`, `date`, `after`, `until`, `activity_types` or `category`.
    """
    sim = sim_of(request)
    wanted = _read_filter(request)
    size_max = PAGE_SIZE_MAX if wanted.day is None else DATED_PAGE_SIZE_MAX
    limit = int_param(request, "page_size", size_max, 1, size_max)
    if account_id:
        rows = sorted(rows_of(find_account(sim, account_id).activities), key=id_of)
    else:
        rows = sim.activity_index.rows()
    hidden = sim.ledger.superseded | sim.ledger.untold
    found = (
        row_json(activity)
        for activity in _from_token(request, rows)
        if wanted.takes(activity) and not activity.is_void and activity.ref_id not in hidden
    )
    return list(islice(found, limit))


def _read_filter(request: Request) -> Filter:
    params = request.query_params
    in_path, category = request.path_params.get("activity_type"), params.get("category")
    types = {in_path} if in_path else set(csv_param(request, "activity_types")) or None
    if category is not None and category not in CATEGORIES:
        raise ApiError(422, f"category must be one of {', '.join(CATEGORIES)}")
    if category and types:
        raise ApiError(422, "activity types and category cannot be used together")
    return Filter(
        types=types,
        is_trade=None if category is None else category == CATEGORIES[0],
        day=date_param(request, "date", date.min) if "date" in params else None,
        after_ns=time_param(request, "after"),
        until_ns=time_param(request, "until"),
    )


def _from_token(request: Request, rows: list[Row]) -> Iterator[Activity]:
    """The activities after `page_token` in the requested direction; without a token, all."""
    token, direction = request.query_params.get("page_token"), request.query_params.get("direction", "desc")
    if direction not in ("asc", "desc"):
        raise ApiError(422, "direction must be asc or desc")
    if direction == "asc":
        start = bisect_right(rows, token, key=id_of) if token else 0
        return (activity for _, activity in islice(rows, start, None))
    end = bisect_left(rows, token, key=id_of) if token else len(rows)
    return (rows[index][1] for index in range(end - 1, -1, -1))


ROUTES = [
    Route("/v1/accounts/activities", list_activities),
    Route("/v1/accounts/activities/{activity_type}", list_activities),
]
