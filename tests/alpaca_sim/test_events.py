"""Event streams: cursors, history that turns live without a seam, heartbeats, slow readers, the cap."""

from contextlib import AsyncExitStack
from decimal import Decimal

import httpx
import pytest

from alpaca_sim.core.clock import rfc3339
from alpaca_sim.streams import event_streams
from tests.alpaca_sim.conftest import Start
from tests.conftest import Until
from tests.support.event_clients import FIRST_ID, PATH, act, ids, open_stream


async def test_without_a_cursor_only_what_happens_from_now_on_is_sent(start: Start) -> None:
    """No history; then live events with exact figures."""
    running = await start()
    act(running, 5)
    async with open_stream(running) as stream:
        await stream.comment("welcome")
        booked = await running.post(
            "/_sim/cash", account_id=running.account_ids[0], activity_type="CSD", amount="12.34"
        )
        event = await stream.next()
    assert event is not None
    assert (event["event_id"], event["activity_type"], event["net_amount"]) == (
        booked["event_id"],
        "CSD",
        "12.34",
    )


async def test_history_turns_live_without_gap_or_duplicate(start: Start) -> None:
    """since_id is exclusive; what happens while history is read comes after it, once."""
    running = await start()
    history = act(running, 900)
    async with open_stream(running, since_id=history[99].event_id) as stream:
        got = [await stream.next() for _ in range(10)]
        live = act(running, 50)
        got += [await stream.next() for _ in range(790 + 50)]
    assert [event["event_id"] for event in got if event] == ids(history[100:] + live)


async def test_event_ids_grow_in_order_of_publication(start: Start) -> None:
    """ULIDs sort as strings, so a resume by the last id misses nothing."""
    running = await start(account_count=50, has_history=True)
    act(running, 300)
    published = ids(running.sim.ledger.activities)
    assert len(published) > 310
    assert published == sorted(set(published))


async def test_a_range_ends_the_stream_with_200(start: Start) -> None:
    """Both ends by time, and both ends by id: inclusive at the end."""
    running = await start()
    happened = act(running, 30)
    by_time = {"since": rfc3339(happened[5].at_ns), "until": rfc3339(happened[9].at_ns)}
    async with open_stream(running, **by_time) as stream:
        assert [event["event_id"] for event in await stream.rest()] == ids(happened[5:10])
    by_id = {"since_id": happened[5].event_id, "until_id": happened[9].event_id}
    async with open_stream(running, **by_id) as stream:
        assert [event["event_id"] for event in await stream.rest()] == ids(happened[6:10])


async def test_a_range_may_end_in_the_future(start: Start) -> None:
    """The stream stays open until the moment has passed."""
    running = await start()
    until_ns = running.sim.clock.now_ns() + 10**9
    async with open_stream(running, since=rfc3339(until_ns - 2 * 10**9), until=rfc3339(until_ns)) as stream:
        happened = act(running, 3)
        assert [event["event_id"] for event in await stream.rest()] == ids(happened)
    assert running.sim.clock.now_ns() > until_ns


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"until": "2026-01-01"}, 400),
        ({"until_id": FIRST_ID}, 400),
        ({"since": "2026-01-01"}, 400),
        ({"since": "2026-01-01", "until_id": FIRST_ID}, 422),
        ({"since_id": FIRST_ID, "until": "2026-01-01"}, 422),
        ({"since_id": "not-a-ulid"}, 422),
        ({"since": "then", "until": "2026-01-01"}, 422),
    ],
)
async def test_impossible_cursors_are_refused(start: Start, params: dict[str, str], status: int) -> None:
    """Each of Alpaca's cursor rules, broken once."""
    running = await start()
    assert await running.status(PATH, **params) == status


async def test_an_idle_stream_shows_that_it_lives(start: Start) -> None:
    """A heartbeat comment, again and again."""
    running = await start(heartbeat_s=0.05)
    async with open_stream(running) as stream:
        await stream.comment(":heartbeat")
        await stream.comment(":heartbeat")


async def test_a_reader_too_slow_is_told_how_much_it_lost(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit live events are dropped with a comment, and the stream goes on."""
    monkeypatch.setattr(event_streams, "UNREAD_MAX", 100)
    running = await start()
    async with open_stream(running) as stream:
        await stream.comment("welcome")
        act(running, 300)  # in one go: the stream's task cannot read between them
        await stream.comment("you are reading too slowly, dropped 300 messages")
        (last,) = act(running)
        event = await stream.next()
    assert event is not None and event["event_id"] == last.event_id


async def test_the_twenty_sixth_connection_is_refused(start: Start, until: Until) -> None:
    """25 streams at most; those that end make room."""
    running = await start(heartbeat_s=0.05)
    async with AsyncExitStack() as opened:
        streams = [await opened.enter_async_context(open_stream(running)) for _ in range(25)]
        for stream in streams:
            await stream.comment("welcome")
        assert await running.status(PATH) == 429
    await until(lambda: not running.sim.events.readers, "all streams are forgotten")
    async with open_stream(running) as again:
        await again.comment("welcome")


async def test_the_fill_stream_has_fills_only(start: Start) -> None:
    """`/v2/events/trades` tells the execution, and lets `since` stand alone."""
    running = await start()
    account_id = running.account_ids[0]
    act(running, 20)
    sold = await running.post(
        "/_sim/trade", account_id=account_id, symbol="AAPL", quantity="-2.5", price="100.5"
    )
    since = rfc3339(running.sim.ledger.activities[-1].at_ns)
    async with open_stream(running, "/v2/events/trades", since=since) as stream:
        event = await stream.next()
    assert event is not None
    assert (event["event"], event["qty"], event["price"]) == ("fill", "2.5", "100.5")
    assert (event["order"]["side"], event["order"]["symbol"]) == ("sell", "AAPL")
    assert event["event_id"] == sold["event_id"]


async def test_an_event_can_be_looked_up_by_its_id(start: Start) -> None:
    """The single lookup gives the object of the stream."""
    running = await start()
    (activity,) = act(running)
    path = f"/v2beta1/accounts/{activity.account_id}/events/activities"
    assert (await running.get(f"{path}/{activity.event_id}"))["ref_id"] == activity.ref_id
    assert await running.status(f"{path}/{FIRST_ID}") == 404


async def test_a_cut_ends_the_stream_without_a_goodbye(start: Start) -> None:
    """The connection breaks in the middle of the body."""
    running = await start()
    with pytest.raises(httpx.HTTPError):
        async with open_stream(running) as stream:
            await stream.comment("welcome")
            assert await running.post("/_sim/cut", stream="events") == {"cut": 1}
            await stream.rest()


async def test_the_events_alone_rebuild_cash_and_quantities(start: Start) -> None:
    """Opening state plus net amounts and signed quantities gives what REST reports."""
    running = await start()
    account_id = running.account_ids[1]
    before = await running.get(f"/v1/trading/accounts/{account_id}/account")
    held = {
        row["symbol"]: Decimal(row["qty"])
        for row in await running.get(f"/v1/trading/accounts/{account_id}/positions")
    }
    for _ in range(60):
        running.sim.trader.act(account_id)
    cash = Decimal(before["cash"])
    async with open_stream(running, since_id=FIRST_ID) as stream:
        for _ in range(60):
            event = await stream.next()
            assert event is not None
            cash += Decimal(event["net_amount"])
            if event["activity_type"] == "TRD":
                symbol = event["details"]["symbol"].replace("/", "")
                sign = 1 if event["details"]["side"] == "buy" else -1
                held[symbol] = held.get(symbol, Decimal(0)) + sign * Decimal(event["qty"])
    after = await running.get(f"/v1/trading/accounts/{account_id}/account")
    assert Decimal(after["cash"]) == cash
    assert {symbol: quantity for symbol, quantity in held.items() if quantity} == {
        row["symbol"]: Decimal(row["qty"])
        for row in await running.get(f"/v1/trading/accounts/{account_id}/positions")
    }
