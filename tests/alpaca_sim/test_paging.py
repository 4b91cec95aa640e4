"""Paging: account lists by inclusive time, activities by the last id, end-of-day positions by token."""

from typing import Any

import pytest

from alpaca_sim.core.clock import rfc3339
from tests.alpaca_sim.conftest import Running, Start


async def test_a_page_of_accounts_ends_at_a_thousand_and_the_next_repeats_its_last(
    start: Start,
) -> None:
    """created_after is inclusive: the last account comes again, and all pages together hold each one."""
    running = await start(account_count=2_300)
    seen: list[str] = []
    params: dict[str, str] = {}
    while True:
        page = await running.get("/v1/accounts", sort="asc", **params)
        assert len(page) <= 1_000
        if params:
            assert page[0]["id"] == seen[-1]
        seen += [row["id"] for row in page]
        if len(page) < 1_000:
            break
        params = {"created_after": page[-1]["created_at"]}
    assert len(seen) == len(set(seen)) + 2
    assert set(seen) == set(running.account_ids)


async def test_accounts_come_newest_first_unless_asked_otherwise(start: Start) -> None:
    """The default order is descending; created_before is inclusive too."""
    running = await start()
    rows = await running.get("/v1/accounts")
    assert [row["id"] for row in rows] == running.account_ids[::-1]
    until = await running.get("/v1/accounts", created_before=rows[1]["created_at"])
    assert until == rows[1:]


async def test_a_query_asks_for_all_of_its_words(start: Start) -> None:
    """Tokens are combined with AND, over number, name and e-mail."""
    running = await start(account_count=20)
    first = (await running.get("/v1/accounts", sort="asc"))[0]
    found = await running.get("/v1/accounts", query=f"{first['account_number']} ada")
    assert [row["id"] for row in found] == [first["id"]]
    assert await running.get("/v1/accounts", query=f"{first['account_number']} nobody") == []
    assert await running.get("/v1/accounts", status="ACCOUNT_CLOSED") == []


@pytest.fixture
async def busy(start: Start) -> Running:
    """260 activities over four accounts."""
    running = await start()
    for index in range(260):
        running.sim.trader.act(running.account_ids[index % 4])
    return running


async def page_through(running: Running, **params: Any) -> list[dict[str, Any]]:
    """All rows by page_token."""
    rows: list[dict[str, Any]] = []
    while page := await running.get("/v1/accounts/activities", **params):
        rows += page
        params["page_token"] = page[-1]["id"]
    return rows


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("size", [7, 100])
async def test_activity_pages_hold_each_row_once_and_in_order(
    busy: Running, direction: str, size: int
) -> None:
    """page_token is the id of the last row had, in both directions."""
    rows = await page_through(busy, direction=direction, page_size=size)
    ids = [row["id"] for row in rows]
    assert ids == sorted(ids, reverse=direction == "desc")
    assert len(ids) == len(set(ids)) == 260


async def test_activities_are_filtered_by_account_type_category_and_time(busy: Running) -> None:
    """Each filter alone, against the ledger."""
    account_id = busy.account_ids[2]
    mine = await page_through(busy, account_id=account_id)
    assert {row["account_id"] for row in mine} == {account_id}
    assert len(mine) == 65
    fills = await page_through(busy, activity_types="FILL")
    assert fills == await page_through(busy, category="trade_activity")
    others = await page_through(busy, category="non_trade_activity")
    assert len(fills) + len(others) == 260
    some = await page_through(busy, activity_types="CSD,CSW")
    assert {row["activity_type"] for row in some} == {"CSD", "CSW"}
    middle = busy.sim.ledger.activities[130]
    before = await page_through(busy, until=rfc3339(middle.at_ns))
    later = await page_through(busy, after=rfc3339(middle.at_ns))
    assert (len(before), len(later)) == (131, 129)


async def test_a_date_gives_all_rows_of_the_day_at_once(busy: Running) -> None:
    """With `date` there is no page limit; the day is of UTC."""
    days = {row["created_at"][:10] for row in await page_through(busy, category="non_trade_activity")}
    count = sum([len(await busy.get("/v1/accounts/activities", date=day)) for day in days])
    assert count == 260


async def test_impossible_activity_parameters_are_refused(busy: Running) -> None:
    """422 for each rule broken."""
    path = "/v1/accounts/activities"
    assert await busy.status(path, page_size=101) == 422
    assert await busy.status(path, direction="up") == 422
    assert await busy.status(path, category="trade_activity", activity_types="CSD") == 422
    assert await busy.status(path, after="then") == 422
    assert await busy.status(path, account_id="unknown") == 404


async def test_end_of_day_positions_are_paged_by_token(start: Start) -> None:
    """The token leads through all accounts and is null at the end; another day than the last is refused."""
    running = await start(account_count=25)
    found: dict[str, Any] = {}
    params: dict[str, Any] = {"limit": 10}
    for _ in range(3):
        page = await running.get("/v1/reporting/eod/positions", **params)
        found |= page["positions"]
        params["page_token"] = page["next_page_token"]
    assert params["page_token"] is None
    holders = {key for key, account in running.sim.ledger.accounts.items() if account.opening.positions}
    assert set(found) == holders
    one = next(iter(holders))
    only = await running.get("/v1/reporting/eod/positions", account_id=one)
    assert only["positions"] == {one: found[one]}
    symbol = found[one][0]["symbol"]
    of_symbol = (await running.get("/v1/reporting/eod/positions", asset=symbol))["positions"]
    assert {row["symbol"] for rows in of_symbol.values() for row in rows} == {symbol}
    assert one in of_symbol
    assert await running.status("/v1/reporting/eod/positions", asof="2020-01-02") == 422
