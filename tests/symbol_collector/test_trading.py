"""The Trading API's rows and stream in our terms: what they say, nothing more, and each booking once."""

import asyncio
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from portfolio_realtime import config
from portfolio_realtime.clock import NS_PER_S, parse_rfc3339
from portfolio_realtime.errors import BrokerUnavailable
from portfolio_realtime.symbol_collector.model import Activity
from portfolio_realtime.symbol_collector.records.cash_flows import external_cash_flow
from portfolio_realtime.symbol_collector.sources import parse, trade_updates, trading_follower, trading_rows
from portfolio_realtime.symbol_collector.sources.trade_updates import Update
from portfolio_realtime.symbol_collector.sources.trading_follower import TradingFollower
from tests.conftest import Until, running_service
from tests.support.activity_rows import DEPOSIT, FILL, NOW_NS, Activities, Still
from tests.symbol_collector.bookings import Inbox


def activity(row: Any, seen_ns: int | None = None) -> Activity:
    """The booking that a row means."""
    event = trading_rows.event_of(row, "alice", seen_ns, NOW_NS)
    return parse.activity(parse.decode(msgspec.json.encode(event)))


def test_a_fill_is_a_trade() -> None:
    """Signed by its side, its cash worked out, booked when it was executed, known by the row's id."""
    fill = activity(FILL)
    assert (fill.account_id, fill.activity_type, fill.ref_id) == ("alice", "TRD", FILL["id"])
    assert (fill.symbol, fill.quantity, fill.price) == ("AAPL", Decimal(-2), Decimal("10.005"))
    assert (fill.net_amount, fill.rounding) == (Decimal("20.01"), Decimal("0.01"))
    assert fill.executed_ns == fill.published_ns == parse_rfc3339("2026-11-20T17:34:56.789012Z")


def test_a_deposit_is_the_clients_own_money() -> None:
    """At the moment it was booked."""
    deposit = activity(DEPOSIT)
    assert external_cash_flow(deposit) == Decimal("100.5")
    assert deposit.executed_ns == parse_rfc3339("2026-11-20T14:00:00.5Z")
    assert deposit.rounding == 0


def test_a_dividends_shares_are_not_received() -> None:
    """Its `qty` is what was held; a journal's is what comes in."""
    dividend = {**DEPOSIT, "activity_type": "DIV", "symbol": "AAPL", "qty": "2", "per_share_amount": "0.51"}
    assert not activity(dividend).moves_quantity
    journal = {
        **DEPOSIT,
        "activity_type": "JNLS",
        "symbol": "AAPL",
        "qty": "-2",
        "price": "9",
        "net_amount": "0",
    }
    moved = activity(journal)
    assert (moved.moves_quantity, external_cash_flow(moved)) == (True, Decimal(-18))


@pytest.mark.parametrize(
    ("day", "seen", "booked"),
    [
        ("2026-11-19", None, "2026-11-19T17:00:00Z"),  # noon in New York, in history
        ("2026-11-24", None, "2026-11-20T18:00:00Z"),  # a settlement to come: not later than now
        ("2026-11-19", "2026-11-20T17:59:59Z", "2026-11-20T17:59:59Z"),  # it appeared just now
        ("soon", None, "1970-01-01T17:00:00Z"),
    ],
)
def test_a_row_that_tells_no_time_is_booked_by_its_date_or_when_it_appears(
    day: str, seen: str | None, booked: str
) -> None:
    """Noon is after the morning's bookings and before the close."""
    row = {**DEPOSIT, "created_at": None, "date": day}
    assert activity(row, parse_rfc3339(seen) if seen else None).published_ns == parse_rfc3339(booked)


def test_a_canceled_row_takes_the_booking_back() -> None:
    """It keeps its id, so it is another event; in history it only says that there is none."""
    canceled = {**DEPOSIT, "status": "canceled"}
    undone = activity(canceled, NOW_NS)
    assert (undone.is_void, undone.previous_id, undone.published_ns) == (True, DEPOSIT["id"], NOW_NS)
    assert undone.ref_id != DEPOSIT["id"]
    assert trading_rows.row_id(canceled) != trading_rows.row_id(DEPOSIT)
    deleted = activity({**DEPOSIT, "status": "deleted"}, NOW_NS)
    assert (deleted.is_void, deleted.is_executed, deleted.ref_id) == (True, False, undone.ref_id)


async def test_a_row_that_was_pending_is_read_again_when_it_is_executed() -> None:
    """In place, with its old time: it happened when it was seen to, and a statement of before lacks it."""
    inbox = Inbox()
    pending_row = {**DEPOSIT, "status": "pending"}
    client = Activities({trading_rows.TRADES: [], trading_rows.CASH_AND_OTHERS: [pending_row]})
    follower = TradingFollower(client, config.load(), Still(), inbox)
    for rows in ([pending_row], [pending_row], [DEPOSIT], [DEPOSIT]):
        client.rows[trading_rows.CASH_AND_OTHERS] = rows
        await follower.know_history_since(NOW_NS - 3600 * NS_PER_S)
    await client.__aexit__(None, None, None)

    pending, executed = inbox.taken
    assert (pending.status, executed.status) == ("pending", "executed")
    assert (pending.ref_id, executed.published_ns) == (executed.ref_id, NOW_NS)


@pytest.mark.parametrize(
    "row",
    [
        None,
        7,
        [],
        {},
        {"id": "x"},
        {**FILL, "qty": "NaN"},
        {**DEPOSIT, "net_amount": "?"},
        {**FILL, "price": None},
        {**FILL, "qty": ""},
        {**FILL, "side": None},
        {**FILL, "symbol": None},
        {**FILL, "transaction_time": None},
    ],
)
def test_a_row_that_cannot_be_read_is_refused(row: Any) -> None:
    """With the field's name, and never guessed."""
    with pytest.raises(parse.PayloadRefused):
        activity(row)


@pytest.mark.parametrize(
    ("frame", "update"),
    [
        (
            b'{"stream":"trade_updates","data":{"event":"fill","order":{"id":"o","filled_qty":"2.5"}}}',
            ("o", "2.5"),
        ),
        (
            '{"stream":"trade_updates","data":{"event":"partial_fill","order":{"id":"o","filled_qty":"1"}}}',
            ("o", "1"),
        ),
        (
            b'{"stream":"trade_updates","data":{"event":"trade_bust","order":{"id":"o","filled_qty":"0"}}}',
            ("o", "0"),
        ),
        (b'{"stream":"trade_updates","data":{"event":"fill","order":null}}', ("", "0")),
        (
            b'{"stream":"trade_updates","data":{"event":"fill","order":{"id":"o","filled_qty":null}}}',
            ("o", "0"),
        ),
        (b'{"stream":"trade_updates","data":{"event":"new","order":{"id":"o"}}}', None),
        (b'{"stream":"listening","data":{"streams":[]}}', None),
        (b'{"stream":"trade_updates"}', None),
        (b"[1]", None),
        (b"\xff", None),
    ],
)
def test_only_what_moves_something_is_an_update(frame: bytes | str, update: tuple[str, str] | None) -> None:
    """Binary or text; whatever cannot be read is passed over."""
    wanted = update and Update(update[0], Decimal(update[1]))
    assert trade_updates.update_of(trade_updates.decode(frame)) == wanted


def fills(numbers: range) -> list[dict[str, Any]]:
    """Fills a second apart, the newest first."""
    return [
        {
            **FILL,
            "id": f"fill-{number}",
            "order_id": f"order-{number}",
            "transaction_time": f"2026-11-20T17:{number // 60:02}:{number % 60:02}Z",
        }
        for number in reversed(numbers)
    ]


async def test_each_row_is_taken_once_and_in_order() -> None:
    """Over several pages; then only what is new, with one request of each kind."""
    client = Activities({trading_rows.TRADES: fills(range(250)), trading_rows.CASH_AND_OTHERS: [DEPOSIT]})
    inbox = Inbox()
    taken = inbox.taken
    follower = TradingFollower(client, config.load(), Still(), inbox)
    await follower.know_history_since(NOW_NS - 3600 * NS_PER_S)
    assert [one.ref_id for one in taken if one.activity_type == "TRD"] == [f"fill-{n}" for n in range(250)]
    assert len(taken) == 251
    assert client.asked == 4
    client.rows[trading_rows.TRADES] = fills(range(252))
    # its id is of midnight, below all fills: it would be missed by whoever asks for what is after the newest
    client.rows[trading_rows.CASH_AND_OTHERS].insert(0, {**DEPOSIT, "id": "20261120000000000::d0a1"})
    client.asked = 0
    await follower.know_history_since(NOW_NS - 3600 * NS_PER_S)
    assert sorted(one.ref_id for one in taken[251:]) == ["20261120000000000::d0a1", "fill-250", "fill-251"]
    assert client.asked == 3  # a page of fills that is full and brings news is followed by the next
    await client.__aexit__(None, None, None)


async def test_a_row_that_appears_later_is_booked_when_it_appears() -> None:
    """Without a time of its own; what was there at the first reading is of its date."""
    yesterday = {**DEPOSIT, "created_at": None, "date": "2026-11-19"}
    client = Activities({trading_rows.TRADES: [], trading_rows.CASH_AND_OTHERS: [yesterday]})
    inbox = Inbox()
    taken = inbox.taken
    follower = TradingFollower(client, config.load(), Still(), inbox)
    await follower.know_history_since(NOW_NS - 3600 * NS_PER_S)
    client.rows[trading_rows.CASH_AND_OTHERS].insert(0, {**yesterday, "id": "later"})
    await follower.know_history_since(NOW_NS - 3600 * NS_PER_S)
    assert [one.published_ns for one in taken] == [parse_rfc3339("2026-11-19T17:00:00Z"), NOW_NS]
    await client.__aexit__(None, None, None)


async def test_a_row_that_was_spoiled_is_taken_when_it_is_whole() -> None:
    """A null where the amount was promised is refused and told once; the amount is not taken for nothing."""
    client = Activities(
        {trading_rows.TRADES: [], trading_rows.CASH_AND_OTHERS: [{**DEPOSIT, "net_amount": None}]}
    )
    inbox = Inbox()
    follower = TradingFollower(client, config.load(), Still(), inbox)
    for _ in range(3):
        await follower.know_history_since(NOW_NS - 3600 * NS_PER_S)
    assert (inbox.taken, len(inbox.refused)) == ([], 1)
    assert "net_amount" in inbox.refused[0]
    client.rows[trading_rows.CASH_AND_OTHERS] = [DEPOSIT]
    for _ in range(3):
        await follower.know_history_since(NOW_NS - 3600 * NS_PER_S)
    assert [one.net_amount for one in inbox.taken] == [Decimal("100.5")]
    await client.__aexit__(None, None, None)


async def test_the_same_page_again_is_not_read_forever() -> None:
    """Whoever does not know our token gives the first page each time."""
    client = Activities({trading_rows.TRADES: fills(range(100)), trading_rows.CASH_AND_OTHERS: [None, 7]})
    original = client.activities

    async def forgetful(category: str, page_token: str | None) -> list[Any]:
        return await original(category, None)

    client.activities = forgetful  # type: ignore[method-assign]  # the broker's mistake, not the client's
    inbox = Inbox()
    follower = TradingFollower(client, config.load(), Still(), inbox)
    await follower.know_history_since(NOW_NS - 3600 * NS_PER_S)
    assert client.asked == 3
    assert (len(inbox.taken), len(inbox.refused)) == (100, 2)
    await client.__aexit__(None, None, None)


async def test_old_rows_are_not_read() -> None:
    """Back to the day before what is wanted, not to the account's first day."""
    client = Activities({trading_rows.TRADES: fills(range(100)), trading_rows.CASH_AND_OTHERS: []})
    old = [{**FILL, "id": f"old-{n}", "transaction_time": "2026-11-18T17:00:00Z"} for n in range(900)]
    client.rows[trading_rows.TRADES] += old
    follower = TradingFollower(client, config.load(), Still(), Inbox())
    await follower.know_history_since(NOW_NS - 3600 * NS_PER_S)
    assert client.asked == 3
    await client.__aexit__(None, None, None)


async def test_a_refused_stream_is_asked_for_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a bound; one that was granted is asked for at once when it is cut."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def refused(*arguments: Any) -> Any:
        if len(pauses) == 9:
            arguments[-1]()  # granted, then cut
        raise BrokerUnavailable("no")
        yield

    monkeypatch.setattr(trading_follower.asyncio, "sleep", sleep)
    monkeypatch.setattr(trade_updates, "updates", refused)
    client = Activities({})
    follower = TradingFollower(client, config.load(), Still(), Inbox())
    for _ in range(11):
        with pytest.raises(BrokerUnavailable):
            await follower.listen()
    longest = [0, 1, 2, 4, 8, 16, 32, 60, 60, 0, 1]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True)), pauses
    await client.__aexit__(None, None, None)


async def test_a_fill_is_looked_for_until_its_row_is_there(
    monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """Then nothing is left to ask for."""
    monkeypatch.setattr(trading_follower, "LOOKS_S", (0.0, *[0.01] * 500))
    monkeypatch.setattr(trading_follower, "POLL_S", 3600.0)
    client = Activities({trading_rows.TRADES: [], trading_rows.CASH_AND_OTHERS: []})

    async def stream(*_: Any) -> Any:
        yield Update("order-0", Decimal(2))
        await asyncio.Event().wait()

    monkeypatch.setattr(trade_updates, "updates", stream)
    follower = TradingFollower(client, config.load(), Still(), Inbox())
    await follower.know_history_since(NOW_NS - 3600 * NS_PER_S)
    async with running_service(follower.poll()), running_service(follower.listen()):
        await until(lambda: client.asked > 6, "it is looked for")
        client.rows[trading_rows.TRADES] = fills(range(1))

        async def is_quiet() -> bool:
            asked = client.asked
            await asyncio.sleep(0.2)
            return client.asked == asked

        await until(is_quiet, "nothing is looked for", 30)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(follower.fill_gap(), 0.05)
    await client.__aexit__(None, None, None)


async def test_a_fill_that_no_row_tells_asks_for_the_account(
    monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """After a few looks; a fill whose row is there is not looked for."""
    monkeypatch.setattr(trading_follower, "LOOKS_S", (0.0, 0.01, 0.01))
    monkeypatch.setattr(trading_follower, "POLL_S", 3600.0)
    client = Activities({trading_rows.TRADES: fills(range(1)), trading_rows.CASH_AND_OTHERS: []})
    updates = asyncio.Queue[Update]()

    async def stream(*_: Any) -> Any:
        while True:
            yield await updates.get()

    monkeypatch.setattr(trade_updates, "updates", stream)
    follower = TradingFollower(client, config.load(), Still(), Inbox())
    await follower.know_history_since(NOW_NS - 3600 * NS_PER_S)
    async with running_service(follower.poll()), running_service(follower.listen()):
        client.asked = 0
        updates.put_nowait(Update("order-0", Decimal(2)))
        await until(lambda: client.asked == 2, "one reading")
        updates.put_nowait(Update("order-of-legs", Decimal(1)))
        await asyncio.wait_for(follower.fill_gap(), 10)
        assert client.asked >= 2 + 2 * 3
        updates.put_nowait(Update("order-0", Decimal(0)))  # a bust
        await asyncio.wait_for(follower.fill_gap(), 10)
    await client.__aexit__(None, None, None)
