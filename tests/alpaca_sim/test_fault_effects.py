"""Each kind of fault, once, as a client meets it: real sockets, and everything is well again afterwards."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from alpaca_sim.core.clock import SECOND_NS, parse_time_ns
from alpaca_sim.core.faults import KINDS
from alpaca_sim.core.switches import Switches
from tests.alpaca_sim import test_odd_payloads
from tests.alpaca_sim.conftest import AUTH_MESSAGE, Running, Start
from tests.conftest import Until
from tests.support.event_clients import FIRST_ID, PATH, act, ids, open_stream
from tests.support.simulated_prices import print_price
from tests.support.simulators.tokens import token_of
from tests.support.stream_clients import CONNECTED, READ_S_MAX, Client, error, open_client

LONG_S = 300  # longer than any test: it is ended by hand
SNAPSHOTS = "/v2/stocks/snapshots?symbols=AAPL,MSFT,SPY,NVDA"


async def end_faults(running: Running) -> None:
    """Everything is well again."""
    (await running.http.delete("/_sim/faults")).raise_for_status()


@asynccontextmanager
async def subscribed(running: Running, *symbols: str, **channels: list[str]) -> AsyncGenerator[Client]:
    """A client of the trades of some symbols."""
    async with open_client(running) as client:
        await client.log_in()
        await client.ask(action="subscribe", trades=list(symbols) or ["AAPL"], **channels)
        yield client


async def is_cut(client: Client) -> None:
    """Read on until the connection ends, and insist that it ended without a close frame."""
    with pytest.raises(ConnectionClosed) as closed:
        async with asyncio.timeout(READ_S_MAX):
            while True:
                await client.socket.recv()
    assert closed.value.rcvd is None


# Market-data stream


async def test_market_mute(start: Start) -> None:
    """The socket answers pings and takes subscriptions, but has no data; nothing is made up for."""
    running = await start()
    async with subscribed(running) as client, subscribed(running) as iex:
        await running.fault("market.mute", for_s=LONG_S, target="sip")
        await print_price(running, "10.01")
        assert await asyncio.wait_for(await client.socket.ping(), READ_S_MAX) >= 0
        assert (await client.ask(action="subscribe", trades=["SPY"]))["trades"] == ["AAPL", "SPY"]
        await end_faults(running)
        await print_price(running, "10.02")
        assert [(await stream.next())["p"] for stream in (client, iex)] == [10.02, 10.02]
        await running.fault("market.mute", for_s=LONG_S, target="iex")
        await print_price(running, "10.03")
        assert (await client.next())["p"] == 10.03


async def test_market_cut(start: Start) -> None:
    """No close frame."""
    running = await start()
    async with subscribed(running) as client:
        await running.fault("market.cut")
        await is_cut(client)


async def test_market_half_open(start: Start) -> None:
    """No data and no pongs on the old socket; a new one works; at the end the old one is cut."""
    running = await start()
    async with subscribed(running) as client:
        await running.fault("market.half_open", for_s=LONG_S)
        await print_price(running, "10.01")
        pong = asyncio.ensure_future(await client.socket.ping())
        async with subscribed(running) as fresh:
            await print_price(running, "10.02")
            assert (await fresh.next())["p"] == 10.02
        assert not pong.done() and not client.waiting
        await end_faults(running)
        await is_cut(client)


async def test_market_slow(start: Start, until: Until) -> None:
    """What happens between two bursts comes together and late."""
    running = await start()
    async with subscribed(running) as client:
        await running.fault("market.slow", for_s=LONG_S, level=0.5)
        for cents in range(5):
            await print_price(running, f"10.0{cents}")
        subscriber = next(iter(running.sim.sockets))
        await until(lambda: len(subscriber.outbound) >= 5, "five frames wait for the burst")
        assert [(await client.next())["p"] for _ in range(5)] == [10.0, 10.01, 10.02, 10.03, 10.04]


async def test_market_ghosts(start: Start) -> None:
    """After a cut the old session still counts: 406, again on the same socket, until it is over."""
    running = await start()
    async with subscribed(running) as client:
        await running.fault("market.ghosts", for_s=LONG_S)
        await is_cut(client)
    async with open_client(running) as again:
        assert await again.alone() == CONNECTED
        assert await again.ask(**AUTH_MESSAGE) == error(406)
        assert await again.ask(**AUTH_MESSAGE) == error(406)
        await end_faults(running)
        assert (await again.ask(**AUTH_MESSAGE))["msg"] == "authenticated"


async def test_market_slow_client(start: Start) -> None:
    """407, and the end."""
    running = await start()
    async with subscribed(running) as client:
        await running.fault("market.slow_client")
        assert await client.alone() == error(407)
        await is_cut(client)


async def test_market_reconnect_limit(start: Start) -> None:
    """A handshake too soon after the last is answered with HTTP 429."""
    running = await start()
    await running.fault("market.reconnect_limit", for_s=LONG_S, level=60, target="sip")
    async with open_client(running):
        with pytest.raises(InvalidStatus) as refused:
            async with open_client(running):
                pass
        assert refused.value.response.status_code == 429
        async with open_client(running, "/v2/iex") as other:
            await other.log_in()
        await end_faults(running)
        async with open_client(running) as again:
            await again.log_in()
    assert (await running.get("/_sim/state"))["market_handshakes"] == 4


async def test_market_repeat_reorder_and_unknown(start: Start) -> None:
    """Twice; the other way round; and a message that no table has, with keys that no trade has."""
    running = await start()
    async with subscribed(running, "AAPL", "SPY") as client:
        await running.fault("market.repeat", for_s=LONG_S, level=1)
        await print_price(running, "10.01")
        assert await client.next() == await client.next()
        await end_faults(running)
        await running.fault("market.reorder", for_s=LONG_S)
        for price in ("10.02", "10.03"):
            running.sim.market.print_trade("AAPL", Decimal(price), Decimal(100), ("@",))
        assert [(await client.next())["p"] for _ in range(2)] == [10.03, 10.02]
        await end_faults(running)
        await running.fault("market.unknown", for_s=LONG_S, level=1)
        await print_price(running, "10.04")
        kinds = [(await client.next())["T"] for _ in range(2)]
    assert kinds == ["t", "zz"]


async def test_market_correct_and_cancel(start: Start) -> None:
    """`c` names the old and the new price and the mark follows; `x` brings the trade before it back."""
    running = await start(symbol_count=1)  # one stock: the fault cannot choose another
    async with subscribed(running) as client:
        await print_price(running, "10.00")
        await print_price(running, "20.00")
        first, second = await client.next(), await client.next()
        await running.fault("market.correct", level=1)
        correction = await client.next()
        assert (correction["T"], correction["oi"], correction["op"]) == ("c", second["i"], 20.0)
        assert correction["cp"] == float(running.sim.market.mark("AAPL")) == 20.2
        await running.fault("market.cancel", level=1)
        cancel = await client.next()
        assert (cancel["T"], cancel["i"], cancel["p"]) == ("x", correction["ci"], 20.2)
    assert running.sim.market.mark("AAPL") == 10
    latest = await running.get("/v2/stocks/trades/latest", symbols="AAPL")
    assert latest["trades"]["AAPL"]["i"] == first["i"]


async def test_market_halt(start: Start) -> None:
    """A band and a halt are announced, nothing trades by itself, then trading resumes."""
    running = await start(symbol_count=1, trades_per_second=400.0)
    async with subscribed(running, statuses=["*"], lulds=["*"]) as client:
        await running.fault("market.halt", for_s=LONG_S, level=1)
        while (band := await client.next())["T"] != "l":
            assert band["T"] == "t"
        halt = await client.next()
        assert (halt["T"], halt["S"], halt["sc"], band["u"] > band["d"]) == ("s", "AAPL", "H", True)
        mark = running.sim.market.symbols["AAPL"].mark_trade
        await asyncio.sleep(0.2)  # time for some eighty trades
        assert running.sim.market.symbols["AAPL"].mark_trade == mark
        await end_faults(running)
        resumed = await client.next()
        assert (resumed["T"], resumed["sc"]) == ("s", "T")
        assert (await client.next())["T"] == "t"


# REST


async def test_rest_slow_hits_its_path_alone(start: Start) -> None:
    """One request waits while others of another path are answered."""
    running = await start()
    await running.fault("rest.slow", for_s=LONG_S, level=30, target="/v1/clock")
    waiting = asyncio.create_task(running.http.get("/v1/clock"))
    assert await running.status("/v1/accounts") == 200
    assert not waiting.done()
    waiting.cancel()


async def test_rest_429(start: Start) -> None:
    """With headers that say when it ends; market data goes on."""
    running = await start(switches=Switches(retry_after="yes"))
    await running.fault("rest.429", for_s=30, target="broker")
    refused = await running.http.get("/v1/accounts")
    assert refused.status_code == 429 and refused.json()["code"] == 42910000
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert 0 <= int(refused.headers["x-ratelimit-reset"]) - running.sim.clock.now_ns() // SECOND_NS <= 31
    assert 1 <= int(refused.headers["retry-after"]) <= 31
    assert await running.status("/v2/stocks/trades/latest", symbols="AAPL") == 200
    assert (await running.get("/_sim/state"))["rejected_429"] == 1
    await end_faults(running)
    assert await running.status("/v1/accounts") == 200


async def test_rest_5xx_401_and_cut(start: Start) -> None:
    """A server error in Alpaca's words, a refusal, and no answer at all."""
    running = await start()
    await running.fault("rest.5xx", for_s=LONG_S, level=1)
    statuses = {await running.status("/v1/accounts") for _ in range(40)}
    assert statuses == {500, 502, 503, 504}
    await end_faults(running)
    await running.fault("rest.401", for_s=LONG_S, level=1)
    assert await running.status("/v1/accounts") == 401
    await end_faults(running)
    await running.fault("rest.cut", for_s=LONG_S, level=1)
    with pytest.raises(httpx.RemoteProtocolError):
        await running.http.get("/v1/accounts")
    await end_faults(running)
    assert await running.status("/v1/accounts") == 200


async def test_rest_malformed(start: Start) -> None:
    """Status 200, and half of a body."""
    running = await start()
    whole = (await running.http.get("/v1/accounts")).content
    await running.fault("rest.malformed", for_s=LONG_S, level=1)
    half = await running.http.get("/v1/accounts")
    assert half.status_code == 200 and half.content == whole[: len(whole) // 2]


async def test_rest_null_missing_and_unknown_fields(start: Start) -> None:
    """What a row is known by stays; required keys stay; new keys and enum values come."""
    running = await start()
    path = f"/v1/trading/accounts/{running.account_ids[0]}/account"
    whole = await running.get(path)
    await running.fault("rest.null_fields", for_s=LONG_S, level=1)
    nulls = await running.get(path)
    assert nulls["id"] == whole["id"] and nulls["equity"] is None and set(nulls) == set(whole)
    await end_faults(running)
    await running.fault("rest.missing_fields", for_s=LONG_S, level=1)
    missing = await running.get(path)
    assert "equity" in missing and not {"previous_close", "last_cash"} & set(missing)
    await end_faults(running)
    await running.fault("rest.unknown_fields", for_s=LONG_S, level=1)
    new = await running.get(path)
    assert new["equity"] == whole["equity"] and new["status"] == "SOMETHING_NEW" and "x_added_later" in new


async def test_rest_missing_parts(start: Start) -> None:
    """Snapshots lack some of their parts, and some are not there at all; the rest is right."""
    running = await start()
    whole = await running.get(SNAPSHOTS)
    await running.fault("rest.missing_parts", for_s=LONG_S, level=0.5)
    parts: set[int] = set()
    for _ in range(20):
        for symbol, snapshot in (await running.get(SNAPSHOTS)).items():
            assert snapshot == {key: whole[symbol][key] for key in snapshot}
            parts.add(len(snapshot))
    assert parts <= {1, 2, 3, 4, 5} and len(parts) > 2
    await end_faults(running)
    await running.fault("rest.missing_parts", for_s=LONG_S, level=1)
    assert await running.get(SNAPSHOTS) == {}


async def test_rest_lag(start: Start) -> None:
    """The event is there at once, the balance is not."""
    running = await start()
    account_id = running.account_ids[0]
    path = f"/v1/trading/accounts/{account_id}/account"
    cash = Decimal((await running.get(path))["cash"])
    await running.fault("rest.lag", for_s=LONG_S, level=60)
    async with open_stream(running) as stream:
        await stream.comment("welcome")
        await running.post("/_sim/cash", account_id=account_id, activity_type="CSD", amount="5.00")
        assert (await stream.next() or {})["net_amount"] == "5"
    assert Decimal((await running.get(path))["cash"]) == cash
    await end_faults(running)
    assert Decimal((await running.get(path))["cash"]) == cash + 5


# Event streams


async def test_events_repeat(start: Start) -> None:
    """Each event comes, and some come again; none is new."""
    running = await start()
    async with open_stream(running) as stream:
        await stream.comment("welcome")
        await running.fault("events.repeat", for_s=LONG_S, level=1)
        happened = ids(act(running, 20))
        got = [(await stream.next() or {})["event_id"] for _ in range(40)]
    assert set(got) == set(happened) and sorted(set(got)) == happened


async def test_events_reorder(start: Start) -> None:
    """Accounts change places, but each one's own order stays."""
    running = await start()
    async with open_stream(running) as stream:
        await stream.comment("welcome")
        await running.fault("events.reorder", for_s=LONG_S, level=0.3)
        happened = act(running, 40)
        got = [await stream.next() or {} for _ in range(40)]
    assert sorted(event["event_id"] for event in got) == ids(happened)
    assert [event["event_id"] for event in got] != ids(happened)
    for account_id in running.account_ids:
        own = [event["event_id"] for event in got if event["account_id"] == account_id]
        assert own == sorted(own)


async def test_events_drop(start: Start, until: Until) -> None:
    """Events are lost, a comment says how many, and a new stream from the last id brings them."""
    running = await start()
    async with open_stream(running) as stream:
        await stream.comment("welcome")
        before = act(running, 1)
        assert (await stream.next() or {})["event_id"] == before[0].event_id
        await running.fault("events.drop", for_s=LONG_S)
        lost = act(running, 7)
        reader = next(iter(running.sim.events.readers))
        await until(lambda: reader.dropped == 7, "the stream has met them while the fault lasts")
        await end_faults(running)
        await stream.comment("you are reading too slowly, dropped 7 messages")
        after = act(running, 1)
        assert (await stream.next() or {})["event_id"] == after[0].event_id
    async with open_stream(running, since_id=before[0].event_id) as stream:
        assert [(await stream.next() or {})["event_id"] for _ in range(8)] == ids(lost + after)


async def test_events_error_eof_and_cut(start: Start) -> None:
    """A comment and the end; a clean end; and no end at all."""
    running = await start()
    async with open_stream(running) as stream:
        await stream.comment("welcome")
        await running.fault("events.error")
        assert await stream.next() is None
        assert stream.comments[-1] == ": internal server error"
    async with open_stream(running) as stream:
        await stream.comment("welcome")
        await running.fault("events.eof")
        assert await stream.next() is None
        assert not stream.comments
    async with open_stream(running) as stream:
        await stream.comment("welcome")
        await running.fault("events.cut", target="activities")
        with pytest.raises(httpx.RemoteProtocolError):
            await stream.next()


async def test_events_mute(start: Start) -> None:
    """Neither events nor heartbeats; afterwards all of them, in order."""
    running = await start(heartbeat_s=0.05)
    async with open_stream(running) as stream:
        await stream.comment(":heartbeat")
        await running.fault("events.mute", for_s=LONG_S)
        happened = act(running, 5)
        reader = next(iter(running.sim.events.readers))
        await asyncio.sleep(0.3)  # several heartbeats' time
        assert reader.index < len(running.sim.ledger.activities)
        await end_faults(running)
        assert [(await stream.next() or {})["event_id"] for _ in range(5)] == ids(happened)


async def test_events_refuse_and_stale_cursor(start: Start) -> None:
    """No new stream; no stream from an old id, but one from now on."""
    running = await start()
    await running.fault("events.refuse", for_s=LONG_S)
    assert await running.status(PATH) == 429
    await end_faults(running)
    await running.fault("events.stale_cursor", for_s=LONG_S)
    refused = await running.http.get(PATH, params={"since_id": FIRST_ID})
    assert refused.status_code == 400 and "too old" in refused.json()["message"]
    async with open_stream(running) as stream:
        await stream.comment("welcome")


async def test_events_irregular(start: Start) -> None:
    """The figures are the same; the spelling is not."""
    running = await start()
    async with open_stream(running) as stream:
        await stream.comment("welcome")
        await running.fault("events.irregular", for_s=LONG_S, level=1)
        (happened,) = act(running)
        event = await stream.next() or {}
    assert event["event_id"] == happened.event_id and Decimal(event["net_amount"]) == happened.net_amount
    assert event["currency"] == "" and event["settle_date"].endswith("T00:00:00Z") and "added_later" in event


# Credentials, clock, ledger


@pytest.mark.parametrize("closes", [False, True])
async def test_token_expire(start: Start, closes: bool) -> None:
    """REST refuses the old token; whether an open stream ends with it is a switch."""
    running = await start(switches=Switches(token_expiry="closes" if closes else "survives"))
    headers = {"Authorization": f"Bearer {await token_of(running)}"}
    async with open_client(running, headers=headers) as client:
        assert [await client.alone() for _ in range(2)][1]["msg"] == "authenticated"
        await running.fault("token.expire")
        async with httpx.AsyncClient(base_url=running.url, headers=headers) as http:
            assert (await http.get("/v1/accounts")).status_code == 401
        if closes:
            await is_cut(client)
        else:
            assert (await client.ask(action="subscribe", trades=["AAPL"]))["trades"] == ["AAPL"]


async def test_clock_skew(start: Start) -> None:
    """The Date header, the clock endpoint and trade times are off together; no trade goes back in time."""
    running = await start()
    await running.fault("clock.skew", for_s=LONG_S, level=-30)
    answer = await running.http.get("/v1/clock")
    said_ns = parse_time_ns(answer.json()["timestamp"])
    assert 25 * SECOND_NS < running.sim.clock.now_ns() - said_ns < 90 * SECOND_NS
    before_ns = running.sim.market.symbols["AAPL"].mark_trade.at_ns
    await print_price(running, "10.01")
    assert running.sim.market.symbols["AAPL"].mark_trade.at_ns == before_ns + 1
    await end_faults(running)
    await running.fault("clock.skew", for_s=LONG_S, level=30)
    await print_price(running, "10.02")
    assert running.sim.market.symbols["AAPL"].mark_trade.at_ns > running.sim.clock.now_ns() + 5 * SECOND_NS


async def test_ledger_correct_and_bust(start: Start) -> None:
    """Both name the booking before them; a bust leaves the account as if the trade had never been."""
    running = await start(account_count=1)
    account_id = running.account_ids[0]
    path = f"/v1/trading/accounts/{account_id}/account"
    before = await running.get(path)
    async with open_stream(running) as stream:
        await stream.comment("welcome")
        await running.post("/_sim/trade", account_id=account_id, symbol="AAPL", quantity="10", price="100")
        bought = await stream.next() or {}
        await running.fault("ledger.correct", level=1)
        corrected = await stream.next() or {}
        assert (corrected["previous_id"], corrected["price"]) == (bought["ref_id"], "99")
        assert corrected["net_amount"] == "-990"
        after = await running.get(path)
        assert Decimal(after["cash"]) == Decimal(before["cash"]) - 990
        fills = await running.get("/v1/accounts/activities/FILL", account_id=account_id)
        assert [fill["price"] for fill in fills] == ["99"]
        await running.fault("ledger.bust", level=1)
        busted = await stream.next() or {}
    assert busted["previous_id"] == corrected["ref_id"]
    assert busted["details"]["execution_type"] == "trade_bust"
    assert await running.get(path) == before
    assert await running.get("/v1/accounts/activities/FILL", account_id=account_id) == []


async def test_a_plan_runs_by_itself_and_can_be_watched(start: Start, until: Until) -> None:
    """Posted as YAML; what waits, what is active and what is over is told."""
    running = await start()
    body = "seed: 5\nfaults:\n  - {kind: market.mute, for_s: 0.3}\n  - {kind: events.eof, at_s: 0.2}\n"
    answer = await running.http.post("/_sim/faults", content=body)
    assert answer.json()["duration_s"] == 0.3
    told = (await running.http.get("/_sim/faults")).json()
    assert [fault["kind"] for fault in told["active"] + told["waiting"]] == ["market.mute", "events.eof"]
    await until(lambda: running.sim.faults.done_count == 2, "the plan is over")
    assert not running.sim.faults.active
    refused = await running.http.post("/_sim/faults", content="faults: [{kind: nope}]")
    assert refused.status_code == 422 and "unknown fault kind" in refused.json()["message"]
    seeded = json.dumps({"seed": 9, "duration_s": 60})
    first, again = [(await running.http.post("/_sim/faults", content=seeded)).json() for _ in range(2)]
    assert first == again and len(first["faults"]) == 10
    await end_faults(running)


def test_every_kind_has_a_test() -> None:
    """By name, in this file or in the one about odd payloads, where all `odd.` kinds have one."""
    sources = [Path(__file__), Path(test_odd_payloads.__file__)]
    source = "".join(path.read_text() for path in sources)
    untested = [kind for kind in KINDS if f'"{kind}"' not in source]
    assert untested == [f"odd.{name}" for name in test_odd_payloads.CHECKS]
