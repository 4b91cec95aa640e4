"""`/v1/portfolio/{account_id}/history` beyond the day, and what is new since."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from decimal import Decimal
from typing import Any, NoReturn

import pytest

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import NS_PER_S, SystemClock
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.model import Account, Bookings, ClosedDay, ClosedDays
from portfolio_realtime.state import State
from portfolio_realtime.state.minutes import Minutes
from portfolio_realtime.websocket_server.http_api import account_queries
from portfolio_realtime.websocket_server.http_api.newer_points import newer_points
from tests.support.websocket_servers import Served, bearer

PATH = "/v1/portfolio/a/history"
DAYS = (
    ClosedDay("2026-11-18", Decimal(1000), Decimal(0)),
    ClosedDay("2026-11-19", Decimal(1210), Decimal(200)),
    ClosedDay("2026-11-20", Decimal("1220.005"), Decimal(0)),
)


async def write_record(state: State, last_equity: str = "1220.01", cash: str = "1300.00") -> None:
    """An account of cash only: 79.99 have come since the close, 50.00 of them as a deposit."""
    lease = await state.leases.acquire("symbol_collector")
    assert lease is not None
    now_ns = SystemClock().now_ns()
    numbers = Decimal(cash), Decimal(last_equity), "2026-11-20", Decimal("50.00")
    account = Account("a", 1, "ACTIVE", "USD", *numbers, (), now_ns)
    began_ns = now_ns - 600 * NS_PER_S
    await state.accounts.write(lease, [account], [Bookings("a", 1, began_ns, began_ns, ())])
    await state.leases.release(lease)


@contextlib.asynccontextmanager
async def collector(state: State, *answers: tuple[ClosedDay, ...]) -> AsyncGenerator[list[str]]:
    """Brings these days, one answer a wish, as the symbol collector does."""
    asked: list[str] = []

    async def serve() -> None:
        for days in answers:
            while not (wanted := await state.closed_days.take_wanted(4)):
                await asyncio.sleep(0.02)
            asked.extend(wanted)
            for account_id in wanted:
                await state.closed_days.write(ClosedDays(account_id, days, SystemClock().now_ns()))

    task = asyncio.create_task(serve())
    yield asked
    await cancel_until_ended([task])


async def get(server: Served, **query: str) -> Any:
    answer = await server.http.get(PATH, params=query, headers=bearer())
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_closed_days_and_today_are_one_line(server: Served, state: State) -> None:
    """Where today begins nothing jumps: the newest closed day is the account's own last equity."""
    await write_record(state)
    async with collector(state, DAYS) as asked:
        told = await get(server, range="1m")
        again = await get(server, range="all")
    assert asked == ["a"]  # the second answer had what the first had brought
    assert told["range"] == "1m"
    assert again["points"] == told["points"]
    assert told["base"] == "1000.00"
    shown = [
        (point["timestamp"][:10], point["equity"], point["external_cash_flow"], point["pnl"])
        for point in told["points"]
    ]
    assert shown[:3] == [
        ("2026-11-18", "1000.00", "0.00", "0.00"),
        ("2026-11-19", "1210.00", "200.00", "10.00"),
        ("2026-11-20", "1220.01", "200.00", "20.01"),
    ]
    assert shown[3][1:] == ("1300.00", "250.00", "50.00")
    assert told["points"][0]["timestamp"] == "2026-11-18T21:00:00.000000Z"


async def test_days_that_lack_the_newest_close_are_asked_for_again(
    server: Served, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the roll; where the broker is still behind, what it did not tell is null, and not made up."""
    monkeypatch.setattr(account_queries, "CLOSED_DAYS_FRESH_S", 0.0)
    await write_record(state)
    async with collector(state, DAYS[:2], DAYS) as asked:
        behind = await get(server, range="all")
        whole = await get(server, range="all")
    assert asked == ["a", "a"]
    assert [point["equity"] for point in behind["points"]] == ["1000.00", "1210.00", "1220.01", "1300.00"]
    assert [point["pnl"] for point in behind["points"]] == ["0.00", "10.00", None, None]
    assert [point["pnl"] for point in whole["points"]] == ["0.00", "10.00", "20.01", "50.00"]


async def test_when_nobody_brings_the_days_it_is_503(
    server: Served, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Come back; the day itself is told all the same."""
    monkeypatch.setattr(account_queries, "CLOSED_DAYS_S_MAX", 0.3)
    await write_record(state)
    answer = await server.http.get(PATH, params={"range": "1y"}, headers=bearer())
    assert (answer.status_code, answer.json()["code"]) == (503, "value_unavailable")
    assert "retry-after" in answer.headers
    assert (await get(server, range="1d"))["base"] == "1220.01"


async def test_while_a_minute_of_the_day_is_away_it_is_503(
    server: Served, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster each minute has a slot of its own. A line without it would be taken for the day."""
    await write_record(state)

    async def away(*_: object) -> NoReturn:
        raise StateUnavailable("the part of a minute is away")

    with monkeypatch.context() as patched:
        patched.setattr(Minutes, "read", away)
        for span in ("1d", "1m"):
            async with collector(state, DAYS):
                answer = await server.http.get(PATH, params={"range": span}, headers=bearer())
            assert (answer.status_code, answer.json()["code"]) == (503, "value_unavailable")
            assert "retry-after" in answer.headers
    assert (await get(server, range="1d"))["base"] == "1220.01"


async def test_only_what_is_new_is_sent_unless_the_past_has_changed(server: Served, state: State) -> None:
    """With the time of its last point and the revision a client gets the rest; after a correction, all."""
    await write_record(state)
    first = await get(server)
    assert first["is_whole"]
    assert len(first["points"]) >= 5
    have = first["points"][3]
    earlier = newer_points({**first, "points": first["points"][:4]}, None, None)
    rest = await get(server, since=have["timestamp"], revision=earlier["revision"])
    assert not rest["is_whole"]
    assert rest["points"][: len(first["points"]) - 4] == first["points"][4:]
    assert (await get(server, since=have["timestamp"], revision="another"))["is_whole"]
    assert not (await get(server, since=have["timestamp"]))["is_whole"]
    for time in ("yesterday", "2026-13-01T00:00:00.000000Z", "2026-11-20T24:00:00.000000Z"):
        wrong = await server.http.get(PATH, params={"since": time}, headers=bearer())
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_parameter"), time
