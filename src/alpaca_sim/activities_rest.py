"""`GET /v1/accounts/activities`: a list sorted by id, paged by the id of the last row the client has."""

from bisect import bisect_left, bisect_right
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alpaca_sim.activities_json import row_id, row_json, row_type
from alpaca_sim.broker_rest import find_account, sim_of
from alpaca_sim.clock import SECOND_NS
from alpaca_sim.ledger import Activity, Ledger
from alpaca_sim.web import ApiError, csv_param, date_param, int_param, json_response, time_param

PAGE_SIZE_MAX = 100
DATED_PAGE_SIZE_MAX = 1_000_000  # with `date` there is no maximum but the whole ledger


class ActivityIndex:
    """All activities sorted by their REST id, brought up to date when asked."""

    def __init__(self, ledger: Ledger) -> None:
        """Reads the ledger's activities, which only grow."""
        self._ledger = ledger
        self._rows: list[tuple[str, Activity]] = []

    def rows(self) -> list[tuple[str, Activity]]:
        """(id, activity), ascending."""
        new = self._ledger.activities[len(self._rows) :]
        if new:
            self._rows += [(row_id(activity), activity) for activity in new]
            self._rows.sort(key=lambda row: row[0])  # nearly sorted already: cheap
        return self._rows


async def list_activities(request: Request) -> Response:
    """All paging rules: direction, page_size, page_token, date, after, until, types or category."""
    sim = sim_of(request)
    account_id = request.query_params.get("account_id")
    if account_id:
        find_account(sim, account_id)
    rows = sim.activity_index.rows()
    types = _wanted_types(request)
    day = (
        date_param(request, "date", datetime.min.replace(tzinfo=UTC).date())
        if "date" in request.query_params
        else None
    )
    after_ns, until_ns = time_param(request, "after"), time_param(request, "until")
    limit = int_param(
        request,
        "page_size",
        DATED_PAGE_SIZE_MAX if day else PAGE_SIZE_MAX,
        1,
        DATED_PAGE_SIZE_MAX if day else PAGE_SIZE_MAX,
    )
    page: list[object] = []
    for activity in _from_token(request, rows):
        if (
            (not account_id or activity.account_id == account_id)
            and (types is None or row_type(activity) in types)
            and (day is None or datetime.fromtimestamp(activity.at_ns // SECOND_NS, UTC).date() == day)
            and (after_ns is None or activity.at_ns > after_ns)
            and (until_ns is None or activity.at_ns <= until_ns)
            and _is_category(request, activity)
        ):
            page.append(row_json(activity))
            if len(page) == limit:
                break
    return json_response(page)


def _wanted_types(request: Request) -> set[str] | None:
    in_path = request.path_params.get("activity_type")
    wanted = set(csv_param(request, "activity_types"))
    if wanted and request.query_params.get("category"):
        raise ApiError(422, "activity_types and category cannot be used together")
    return {in_path} if in_path else (wanted or None)


def _is_category(request: Request, activity: Activity) -> bool:
    category = request.query_params.get("category")
    if category not in (None, "trade_activity", "non_trade_activity"):
        raise ApiError(422, "category must be trade_activity or non_trade_activity")
    return category is None or (category == "trade_activity") == (activity.activity_type == "TRD")


def _from_token(request: Request, rows: list[tuple[str, Activity]]) -> list[Activity]:
    token, direction = request.query_params.get("page_token"), request.query_params.get("direction", "desc")
    if direction not in ("asc", "desc"):
        raise ApiError(422, "direction must be asc or desc")
    if direction == "asc":
        start = bisect_right(rows, token, key=lambda row: row[0]) if token else 0
        return [activity for _, activity in rows[start:]]
    end = bisect_left(rows, token, key=lambda row: row[0]) if token else len(rows)
    return [activity for _, activity in reversed(rows[:end])]


ROUTES = [
    Route("/v1/accounts/activities", list_activities),
    Route("/v1/accounts/activities/{activity_type}", list_activities),
    Route("/v2/account/activities", list_activities),
]
