"""The Trading API of one account: its own keys, Alpaca's shapes and SDK, and the fills as they happen."""

import asyncio
import threading
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest
from alpaca.trading.client import TradingClient
from alpaca.trading.requests import GetCalendarRequest
from alpaca.trading.stream import TradingStream
from websockets.asyncio.client import connect

from tests.alpaca_sim.conftest import Running, Start
from tests.alpaca_sim.openapi import check, check_no_extra
from tests.conftest import Until

STREAM_S_MAX = 20


@pytest.fixture
async def busy(start: Start) -> Running:
    """A simulator whose accounts have done things of every kind."""
    running = await start(account_count=4, symbol_count=40)
    for account_id in running.account_ids:
        for _ in range(40):
            running.sim.trader.act(account_id)
    return running


async def is_listening(running: Running) -> bool:
    """Whether somebody listens to trade updates."""
    return (await running.get("/_sim/trading"))["listening"] > 0


async def keys_of(running: Running, account_id: str) -> tuple[str, str]:
    """The account's own key and secret."""
    pair = await running.get(f"/_sim/accounts/{account_id}/keys")
    return pair["key"], pair["secret"]


async def trading(running: Running, account_id: str) -> httpx.AsyncClient:
    """A client with the account's own keys."""
    key, secret = await keys_of(running, account_id)
    headers = {"APCA-API-KEY-ID": key, "APCA-API-SECRET-KEY": secret}
    return httpx.AsyncClient(base_url=running.url, headers=headers)


async def test_each_key_sees_its_own_account_in_alpacas_shape(busy: Running) -> None:
    """Account, positions, activities, clock and calendar; what only brokers see is not there."""
    for account_id in busy.account_ids[1:]:
        async with await trading(busy, account_id) as client:
            account = (await client.get("/v2/account")).json()
            check("trading", "Account", account)
            check_no_extra(
                "trading",
                "Account",
                {name: value for name, value in account.items() if name not in IN_EXAMPLES_ONLY},
            )
            truth = await busy.get(f"/_sim/accounts/{account_id}")
            assert (account["id"], account["equity"]) == (account_id, truth["equity"])
            positions = (await client.get("/v2/positions")).json()
            check("trading", "Position", positions, of_array=True)
            assert {row["qty"] for row in positions} == {row["quantity"] for row in truth["positions"]}
            one = (await client.get(f"/v2/positions/{positions[0]['symbol']}")).json()
            assert one == positions[0]
            await check_activities(busy, account_id, client)
            assert (await client.get("/v2/clock")).json()["timestamp"]
            assert (await client.get("/v2/calendar?start=2026-11-20&end=2026-11-20")).json()


IN_EXAMPLES_ONLY = frozenset(  # Alpaca's own example of /v2/account has them, the schema does not
    {
        *("admin_configurations", "crypto_tier", "effective_buying_power", "last_maintenance_margin"),
        *("position_market_value", "user_configurations"),
    }
)


async def check_activities(busy: Running, account_id: str, client: httpx.AsyncClient) -> None:
    """Every booking of the account and none of another's, in both kinds' shapes."""
    rows = (await client.get("/v2/account/activities")).json()
    fills = [row for row in rows if row["activity_type"] == "FILL"]
    others = [row for row in rows if row["activity_type"] != "FILL"]
    check("trading", "TradingActivities", fills, of_array=True)
    for row in fills:
        check_no_extra("trading", "TradingActivities", row)
    for row in others:
        check_no_extra("trading", "NonTradeActivities", row)
    assert len(rows) == len(busy.sim.ledger.accounts[account_id].activities)
    assert fills == (await client.get("/v2/account/activities/FILL")).json()
    assert others == (await client.get("/v2/account/activities?category=non_trade_activity")).json()


async def test_a_trading_key_opens_market_data_and_no_brokers_path(busy: Running) -> None:
    """Wrong secrets open nothing; the broker's own pair means the first account."""
    first, second = busy.account_ids[:2]
    async with await trading(busy, second) as client:
        assert (await client.get("/v2/stocks/snapshots?symbols=AAPL")).status_code == 200
        assert (await client.get("/v1/accounts")).status_code == 401
        assert (await client.get(f"/v1/trading/accounts/{second}/account")).status_code == 401
        wrong = {"APCA-API-SECRET-KEY": "sim-secret"}
        assert (await client.get("/v2/account", headers=wrong)).status_code == 401
        assert (await client.get("/v2/stocks/snapshots?symbols=AAPL", headers=wrong)).status_code == 403
    pair = {"APCA-API-KEY-ID": "sim-key", "APCA-API-SECRET-KEY": "sim-secret"}
    async with httpx.AsyncClient(base_url=busy.url, headers=pair) as client:
        assert (await client.get("/v2/account")).json()["id"] == first


async def test_alpacas_trading_client_reads_it(busy: Running) -> None:
    """What the SDK cannot parse, Alpaca would not have sent."""
    account_id = busy.account_ids[2]
    client = TradingClient(*(await keys_of(busy, account_id)), url_override=busy.url)
    account: Any = await asyncio.to_thread(client.get_account)
    truth = await busy.get(f"/_sim/accounts/{account_id}")
    assert (str(account.id), account.equity, account.cash) == (account_id, truth["equity"], truth["cash"])
    positions: Any = await asyncio.to_thread(client.get_all_positions)
    assert {position.qty for position in positions} == {row["quantity"] for row in truth["positions"]}
    one: Any = await asyncio.to_thread(client.get_open_position, positions[0].symbol)
    assert one == positions[0]
    clock: Any = await asyncio.to_thread(client.get_clock)
    assert clock.timestamp.year >= 2026
    assert await asyncio.to_thread(client.get_calendar, GetCalendarRequest())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK uses a deprecated WebSocket client
async def test_alpacas_trading_stream_hears_fills(busy: Running, until: Until) -> None:
    """The SDK's own loop logs in, listens and gets this account's fills, and nobody else's."""
    own, other = busy.account_ids[1:3]
    stream = TradingStream(*(await keys_of(busy, own)), url_override=f"{busy.ws_url}/stream")
    heard: list[Any] = []

    async def hear(update: Any) -> None:
        heard.append(update)

    stream.subscribe_trade_updates(hear)
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    try:
        await until(lambda: is_listening(busy), "the SDK listens", STREAM_S_MAX)
        busy.sim.trader.trade(other, "AAPL", Decimal(3))
        busy.sim.trader.trade(own, "AAPL", Decimal("-2.5"), Decimal("101.25"))
        await until(lambda: heard, "the fill is heard", STREAM_S_MAX)
    finally:
        stream.stop()
        busy.sim.trader.trade(own, "AAPL", Decimal(1))  # wakes the SDK, which then sees that it is to stop
        await asyncio.to_thread(thread.join, STREAM_S_MAX)
    update = heard[0]
    assert (update.event, update.qty, update.price) == ("fill", 2.5, 101.25)
    assert update.order.symbol == "AAPL"
    assert update.order.filled_qty == "2.5"


async def test_the_stream_speaks_as_alpacas_does(busy: Running) -> None:
    """JSON in binary frames; no listening before the login, no second connection of an account."""
    key, secret = await keys_of(busy, busy.account_ids[0])
    async with connect(f"{busy.ws_url}/stream") as socket:
        await socket.send('{"action":"listen","data":{"streams":["trade_updates"]}}')
        frame = await socket.recv()
        assert isinstance(frame, bytes)
        assert status(frame) == ("unauthorized", "listen")
        await socket.send(b'{"action":"auth","key":"PK1","secret":"wrong"}')
        assert status(await socket.recv()) == ("unauthorized", "authenticate")
        await socket.send(msgspec.json.encode({"action": "auth", "key": key, "secret": secret}))
        assert status(await socket.recv()) == ("authorized", "authenticate")
        await socket.send('{"action":"listen","data":{"streams":["trade_updates","account_updates"]}}')
        assert (await answer(socket))["data"] == {"streams": ["trade_updates"]}
        async with connect(f"{busy.ws_url}/stream") as second:
            await second.send(msgspec.json.encode({"action": "auth", "key": key, "secret": secret}))
            assert status(await second.recv()) == ("unauthorized", "authenticate")
        busy.sim.trader.trade(busy.account_ids[0], "AAPL", Decimal(1))
        assert (await answer(socket))["data"]["event"] == "fill"
        await socket.send('{"action":"listen","data":{"streams":[]}}')
        assert (await answer(socket))["data"] == {"streams": []}


def status(frame: str | bytes) -> tuple[str, str]:
    """What an authorization message says about what."""
    message = msgspec.json.decode(frame)
    assert message["stream"] == "authorization"
    return message["data"]["status"], message["data"]["action"]


async def answer(socket: Any) -> Any:
    """The next message, decoded."""
    return msgspec.json.decode(await asyncio.wait_for(socket.recv(), STREAM_S_MAX))
