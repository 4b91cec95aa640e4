"""One odd element anywhere in a list of the broker's: it alone is refused, by name; the others are served.

The odd one is a good element with one field spoilt, or no element at all. A failing example is printed with a
line that replays it.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portfolio_realtime import config
from portfolio_realtime.alpaca.http import Answer, HttpClient, basic
from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.errors import BrokerUnavailable
from portfolio_realtime.model import Account
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from portfolio_realtime.symbol_collector.sources import (
    broker_client,
    broker_events,
    parse,
    trade_updates,
    trading_rows,
)
from portfolio_realtime.symbol_collector.sources.broker_client import BrokerClient
from portfolio_realtime.symbol_collector.sources.broker_follower import EventFollower
from portfolio_realtime.symbol_collector.sources.closed_days import closed_days
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused
from portfolio_realtime.symbol_collector.sources.trading_follower import TradingFollower
from portfolio_realtime.valuation.explain import explain
from portfolio_realtime.valuation.valuer import Valuer
from tests.support.activity_rows import DEPOSIT, FILL, NOW_NS, Activities, Still
from tests.support.broker_payloads import ACCOUNT, POSITION
from tests.support.odd_values import NO_ELEMENT, SPOILT
from tests.symbol_collector.bookings import Inbox, at_s

AUTH = basic("key", "secret")
swept = settings(
    max_examples=80,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def lists_with_an_odd_one(draw: st.DrawFn, good: Callable[[int], dict[str, Any]], least: int = 1) -> Any:
    """A list of good elements, one odd one in it, and its place."""
    count = draw(st.integers(least, least + 4))
    elements: list[Any] = [good(number) for number in range(count)]
    odd = good(count)
    place = draw(st.integers(0, count))
    match draw(st.sampled_from(["missing", "spoilt", "spoilt", "none", "twice"])):
        case "missing":
            del odd[draw(st.sampled_from(sorted(odd)))]
        case "spoilt":
            odd[draw(st.sampled_from(sorted(odd)))] = draw(st.sampled_from(SPOILT))
        case "twice":
            odd = dict(elements[draw(st.integers(0, count - 1))])
        case _:
            odd = draw(st.sampled_from(NO_ELEMENT))
    elements.insert(place, odd)
    return elements, place


def decoded(elements: Any) -> Any:
    """As it comes out of a JSON answer."""
    return parse.decode(json.dumps(elements))


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str, dict[str, str]], Any]) -> None:
    """Let REST clients be answered in this process: JSON of `answer(path, parameters)`, or a status."""

    async def get(_: HttpClient, path: str, params: Mapping[str, str] | None = None) -> Answer:
        target = urlsplit(path)
        given = {name: each[0] for name, each in parse_qs(target.query).items()}
        found = answer(target.path, {**given, **(params or {})})
        if isinstance(found, int):
            return Answer(found, {}, b"{}")
        return Answer(200, {}, json.dumps(found).encode())

    monkeypatch.setattr(HttpClient, "get", get)


def listed(number: int) -> dict[str, Any]:
    """An account as the list has it."""
    return {
        "id": f"account-{number}",
        "status": "ACTIVE",
        "currency": "USD",
        "created_at": _created(number),
    }


@swept
@given(lists_with_an_odd_one(listed, least=4))
def test_accounts_page_by_page(drawn: Any) -> None:
    """Also where a page ends with the odd one, whose time of creation leads to the next page."""
    elements, place = drawn
    for at, one in enumerate(elements):
        if at != place or (isinstance(one, dict) and str(one.get("created_at")).startswith("2026-01-")):
            one["created_at"] = _created(at)
    good = {one["id"] for at, one in enumerate(elements) if at != place}

    def answer(path: str, parameters: dict[str, str]) -> Any:
        assert path == "/v1/accounts"
        after = parameters.get("created_after", "")
        rest = [one for at, one in enumerate(elements) if _created(at) >= after]
        return rest[: broker_client.PAGE_LENGTH]

    async def read() -> tuple[set[str], list[str]]:
        async with BrokerClient("http://broker", AUTH) as client:
            return {one.account_id for one in await client.accounts()}, client.refused

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker_client, "PAGE_LENGTH", 3)
        answering(patch, answer)
        found, refused = asyncio.run(read())
    assert good <= found
    odd = elements[place].get("id") if isinstance(elements[place], dict) else None
    assert refused or found > good or odd in good
    assert all("of the list" in reason for reason in refused)


def _created(at: int) -> str:
    return f"2026-01-{at + 1:02}T00:00:00Z"


def test_nobody_is_gone_while_an_entry_of_the_list_cannot_be_read() -> None:
    """It may be the one that is missing."""
    records = AccountRecords()
    records.list_accounts(["alice", "bob"])
    for _ in range(3):
        assert records.list_accounts(["bob"], is_whole=False) == ([], [])
    assert records.listed == {"alice", "bob"}
    assert [records.list_accounts(["bob"])[1] for _ in range(2)] == [[], ["alice"]]


SYMBOLS = ("AAPL", "MSFT", "BTC/USD", "AAPL261218C00150000", "KO", "XOM", "ETHUSD")


def position(number: int) -> dict[str, Any]:
    """A position."""
    symbol = SYMBOLS[number]
    kind = "crypto" if symbol.endswith("USD") else "us_option" if len(symbol) > 7 else "us_equity"
    return {**POSITION, "symbol": symbol, "asset_class": kind, "asset_id": f"asset-{number}"}


@swept
@given(lists_with_an_odd_one(position), st.integers(0, 2))
def test_positions(drawn: Any, whose: int) -> None:
    """A sum with an unknown part is unknown: the account is refused, with the position's name. No other is.

    A field that no money depends on costs nothing.
    """
    elements, place = drawn
    held = [[position(0)] for _ in range(3)]
    held[whose] = elements
    served, refused = _statements(held)
    assert served.keys() | refused.keys() == {"0", "1", "2"}
    assert served.keys() >= {"0", "1", "2"} - {str(whose)}
    if reason := refused.get(str(whose)):
        assert f"position {place} of the list" in reason or reason.startswith("two positions in")
    else:
        others = {parse.holding(decoded(one)).symbol for at, one in enumerate(elements) if at != place}
        assert others <= served[str(whose)].keys()


def _statements(held: list[Any]) -> tuple[dict[str, Any], dict[str, str]]:
    served: dict[str, Any] = {}
    refused: dict[str, str] = {}
    records = AccountRecords()
    records.list_accounts(map(str, range(len(held))))
    valuer = Valuer(price_ttl_s=900, min_update_interval_s=0)
    for number, positions in enumerate(held):
        name = str(number)
        try:
            statement = parse.statement(name, ACCOUNT, decoded(positions))
        except PayloadRefused as error:
            refused[name] = str(error)
            continue
        records.observe(statement, at_s(0), at_s(0.1))
        served[name] = statement.holdings
        account = records.account(name)
        assert isinstance(account, Account)
        valuer.watch(account, 1, with_positions=True)
        assert explain(account, {}, at_s(1))
    assert len(valuer.flush(at_s(1), 1.0).publications) == len(served)
    return served, refused


@swept
@given(st.sampled_from(sorted(ACCOUNT)), st.sampled_from(SPOILT), st.integers(0, 2))
def test_states(field: str, spoilt: Any, whose: int) -> None:
    """One account's own figures."""
    for number in range(3):
        state = {**ACCOUNT, field: spoilt} if number == whose else ACCOUNT
        try:
            statement = parse.statement(str(number), decoded(state), [])
        except PayloadRefused as error:
            assert number == whose
            assert field in str(error) or "the account is in" in str(error)
        else:
            records = AccountRecords()
            records.observe(statement, at_s(0), at_s(0.1))


def event(number: int) -> dict[str, Any]:
    """An activity event."""
    return {
        "account_id": "alice",
        "event_id": f"event-{number}",
        "ref_id": f"ref-{number}",
        "at": "2026-11-20T15:00:00Z",
        "executed_at": "2026-11-20T15:00:00Z",
        "activity_type": "TRD" if number % 2 else "CSD",
        "status": "executed",
        "currency": "USD",
        "symbol": "AAPL" if number % 2 else None,
        "qty": "2" if number % 2 else None,
        "price": "10" if number % 2 else None,
        "net_amount": "-20" if number % 2 else "100",
        "details": {"side": "buy", "group_id": None, "execution_type": "fill"},
    }


def no_rows(path: str, parameters: dict[str, str]) -> list[Any]:
    """The list of the client's own bookings is empty."""
    assert path == broker_client.ROWS_PATH
    assert "CSD" in parameters["activity_types"]
    return []


@swept
@given(lists_with_an_odd_one(event), st.booleans())
def test_activity_events(drawn: Any, is_live: bool) -> None:
    """Each that cannot be read is refused with the account's name where it tells one."""
    elements, place = drawn
    inbox = Inbox()

    async def sent(*_: Any) -> AsyncGenerator[str]:
        for element in elements:
            yield json.dumps(element)
        if is_live:
            raise BrokerUnavailable("the event stream has ended")

    async def hear() -> None:
        async with BrokerClient("http://broker", AUTH) as client:
            follower = EventFollower(client, Still(), inbox)
            if is_live:
                with pytest.raises(BrokerUnavailable):
                    await follower.follow()
            else:
                await follower.know_history_since(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker_events, "live" if is_live else "history", sent)
        answering(patch, no_rows)
        asyncio.run(hear())
    names = [one.ref_id for one in inbox.taken]
    assert [name for at, one in enumerate(elements) if at != place if (name := one["ref_id"])] == [
        name for at, name in enumerate(names) if not (len(names) == len(elements) and at == place)
    ]
    assert len(inbox.taken) + len(inbox.refused) == len(elements)
    records = AccountRecords()
    records.list_accounts(["alice"])
    records.observe(parse.statement("alice", ACCOUNT, [POSITION]), at_s(-100), at_s(-99))
    for activity in inbox.taken:
        records.apply_activity(activity, NOW_NS)
    account = records.account("alice")
    assert account is not None
    assert explain(account, {}, at_s(1))


def row(number: int) -> dict[str, Any]:
    """A row of activities."""
    name = f"2026112015{number:02}00000::r{number}"
    if number % 2:
        return {**DEPOSIT, "id": name, "created_at": f"2026-11-20T15:{number:02}:00Z"}
    return {**FILL, "id": name, "transaction_time": f"2026-11-20T15:{number:02}:00Z"}


class Paged(Activities):
    """Rows by pages, as the broker tells them: behind the row of an id, or from the first."""

    start = 0

    async def activities(self, category: str, page_token: str | None) -> list[Any]:
        """A page."""
        self.asked += 1
        rows = self.rows[category]
        ids = [trading_rows.row_id(one) for one in rows]
        assert page_token is None or page_token in ids
        self.start = ids.index(page_token, self.start) + 1 if page_token else 0
        return rows[self.start : self.start + trading_rows.PAGE_LENGTH]


@swept
@given(lists_with_an_odd_one(row, least=5))
def test_activity_rows_page_by_page(drawn: Any) -> None:
    """Wherever the odd one stands, all pages are read."""
    elements, place = drawn
    good = [one["id"] for at, one in enumerate(elements) if at != place]

    async def read() -> Inbox:
        client = Paged({trading_rows.TRADES: decoded(elements), trading_rows.CASH_AND_OTHERS: []})
        inbox = Inbox()
        follower = TradingFollower(client, config.load(), Still(), inbox)
        await follower.know_history_since(NOW_NS - 3600 * NS_PER_S)
        assert client.asked < 12
        await client.__aexit__(None, None, None)
        return inbox

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trading_rows, "PAGE_LENGTH", 3)
        inbox = asyncio.run(read())
    taken = [one.ref_id for one in inbox.taken]
    assert set(good) <= set(taken)
    odd = elements[place].get("id") if isinstance(elements[place], dict) else None
    assert len(inbox.refused) + (len(taken) > len(good)) == (odd not in good)


def update(number: int) -> dict[str, Any]:
    """A frame of the trade updates, flat: the order's fields beside it."""
    return {"event": "fill", "id": f"order-{number}", "filled_qty": str(number + 1)}


@swept
@given(lists_with_an_odd_one(update))
def test_trade_updates(drawn: Any) -> None:
    """A frame that cannot be read is passed over: it only prompts, and the activities are read anyway."""
    elements, place = drawn
    found: list[trade_updates.Update | None] = []
    for one in elements:
        data = {"event": one.get("event"), "order": one} if isinstance(one, dict) else one
        frame = json.dumps({"stream": "trade_updates", "data": data})
        found.append(trade_updates.update_of(trade_updates.decode(frame)))
    del found[place]
    assert found == [
        trade_updates.Update(one["id"], parse.number(one["filled_qty"], "filled_qty"))
        for at, one in enumerate(elements)
        if at != place
    ]


def day(number: int) -> dict[str, Any]:
    """A day of the portfolio history, as one element."""
    return {"timestamp": 1775606400 + 86400 * number, "equity": 1000.5 + number, "CSD": 10, "JNLC": 0}


@swept
@given(lists_with_an_odd_one(day, least=2))
def test_closed_days(drawn: Any) -> None:
    """Every other day has its figures; an odd one has none, and is named."""
    elements, place = drawn
    others = [one for at, one in enumerate(elements) if at != place]
    odd = elements[place] if isinstance(elements[place], dict) else dict.fromkeys(day(0))
    elements[place] = odd

    def answer(of: list[dict[str, Any]]) -> Any:
        return decoded(
            {
                "timestamp": [one.get("timestamp") for one in of],
                "equity": [one.get("equity") for one in of],
                "cashflow": {code: [one.get(code) for one in of] for code in ("CSD", "JNLC")},
            }
        )

    found, refused = closed_days(answer(elements), [])
    wanted, nothing = closed_days(answer(others), [])
    assert nothing == []
    told = {one.date: one for one in found}
    unknown = [one for one in wanted if told.get(one.date) != one]
    assert len(unknown) <= len(refused) <= 4
    assert all(told[one.date].equity is None for one in unknown)  # the odd one says the same day


@swept
@given(
    st.sampled_from(SPOILT), st.sampled_from(["id", "date", "created_at", "activity_type"]), st.integers(0, 2)
)
def test_rows_of_what_came_in_kind(spoilt: Any, field: str, place: int) -> None:
    """Whatever they say, no answer is lost."""
    rows: list[Any] = [{"id": f"2026040{n + 7}000::x", "date": f"2026-04-0{n + 7}"} for n in range(3)]
    rows[place] = {**rows[place], field: spoilt}
    found, refused = closed_days(decoded({"timestamp": [1775606400], "equity": [1]}), decoded(rows))
    assert len(found) == 1
    assert len(refused) <= 1


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '"\\ud800"', "\x00", "[1e999999999]", "9" * 5000]
)
def test_text_that_is_nearly_json(text: str) -> None:
    """Nothing but a refusal comes out of it."""
    with contextlib.suppress(PayloadRefused):
        assert parse.listed_accounts(parse.decode(text))[0] == []
    with pytest.raises(PayloadRefused):
        parse.activity(parse.decode(text))
    with pytest.raises(PayloadRefused):
        parse.statement("alice", ACCOUNT, parse.decode(text))
    assert trade_updates.update_of(trade_updates.decode(text)) is None


def external_row(number: int) -> dict[str, Any]:
    """A row of the Broker API's list."""
    return {
        "id": f"20261120{number:09}::ref-{number}",
        "account_id": "alice",
        "activity_type": "CSD",
        "net_amount": str(100 + number),
        "status": "executed",
        "date": "2026-11-20",
        "created_at": f"2026-11-20T15:{number:02}:00Z",
    }


@swept
@given(lists_with_an_odd_one(external_row, least=5))
def test_rows_of_the_clients_own_money_page_by_page(drawn: Any) -> None:
    """Every other one is compared with the events."""
    elements, place = drawn
    start = 0

    def answer(path: str, parameters: dict[str, str]) -> Any:
        nonlocal start
        assert path == broker_client.ROWS_PATH
        stated = [one.get("id") if isinstance(one, dict) else None for one in elements]
        ids = json.loads(json.dumps(stated))  # as a client reads them: two halves of one character are one
        start = ids.index(parameters["page_token"], start) + 1 if "page_token" in parameters else 0
        return elements[start : start + trading_rows.PAGE_LENGTH]

    async def no_events(*_: Any) -> AsyncGenerator[str]:
        return
        yield

    inbox = Inbox()

    async def compare() -> None:
        async with BrokerClient("http://broker", AUTH) as client:
            await EventFollower(client, Still(), inbox).know_history_since(NOW_NS - 3600 * NS_PER_S)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trading_rows, "PAGE_LENGTH", 3)
        patch.setattr(broker_events, "history", no_events)
        answering(patch, answer)
        asyncio.run(compare())
    good = [one["id"].rpartition("::")[2] for at, one in enumerate(elements) if at != place]
    told = [one.ref_id for one in inbox.rows]
    assert set(good) <= set(told)
    assert len(told) + len(inbox.refused) >= len(elements)
