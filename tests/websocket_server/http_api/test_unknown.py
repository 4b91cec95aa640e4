"""Who asks for an account that does not exist, with a real collector: told once the broker has said so."""

import asyncio
import json
from collections.abc import Callable

import pytest

from portfolio_realtime.model import Pending
from portfolio_realtime.service import Context
from portfolio_realtime.state import State
from portfolio_realtime.symbol_collector import collector
from portfolio_realtime.websocket_server.fanout import publication_follower
from portfolio_realtime.websocket_server.http_api import portfolios
from tests.conftest import DEADLINE_S, Simulator, StartSimulator, Until, running_service
from tests.support.collectors import context_of
from tests.support.one_account import context_of_one
from tests.support.websocket_servers import API_KEY, bearer, serving, write_accounts


def of_a_broker(simulator: Simulator, state: State) -> Context:
    """A collector for all accounts of a broker."""
    return context_of(simulator, state, symbol_collection_interval=3600)


def of_one_account(simulator: Simulator, state: State) -> Context:
    """A collector for the one account of a key."""
    return context_of_one(simulator, state, 0)


@pytest.mark.parametrize("context", [of_a_broker, of_one_account])
async def test_nobody_waits_longer_than_the_broker_needs(
    simulator: StartSimulator,
    state: State,
    valkey_url: str,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    context: Callable[[Simulator, State], Context],
) -> None:
    """The server itself would wait for an hour: 4503 for the path, an error for a message."""
    monkeypatch.setattr(publication_follower, "UNKNOWN_S_MAX", 3600.0)
    broker = await simulator(accounts=2, activities_per_second=0)
    async with serving(valkey_url) as server, running_service(collector.run(context(broker, state))):
        await until(state.accounts.ids, "the first record is there")
        async with server.open("/ws/portfolio/nobody", bearer(accounts=["nobody"])) as by_path:
            async with asyncio.timeout(DEADLINE_S):
                await by_path.wait_closed()
            assert (by_path.close_code, by_path.close_reason) == (4503, "forbidden")
        async with server.open("/ws", {"X-API-Key": API_KEY}) as by_message:
            await by_message.send(json.dumps({"type": "subscribe", "account_id": "another"}))
            async with asyncio.timeout(DEADLINE_S):
                assert json.loads(await by_message.recv())["code"] == "forbidden"


async def test_not_yet_and_not_in_dollars_are_answers_of_their_own(
    state: State, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is "no such account": the first may come, and a client that waits for it is not closed."""
    monkeypatch.setattr(portfolios, "FIRST_VALUE_S_MAX", 1.0)
    await write_accounts(state, "known")
    lease = await state.leases.acquire("symbol_collector")
    assert lease is not None
    pending = [Pending("opening", "cash is missing", False), Pending("euros", "in EUR", True)]
    await state.accounts.write_pending(lease, pending, [])
    async with serving(valkey_url) as server:
        answers: dict[str, tuple[int, str]] = {}
        for account_id in ("opening", "euros", "nobody"):
            answer = await server.http.get(f"/v1/portfolio/{account_id}", headers={"X-API-Key": API_KEY})
            answers[account_id] = (answer.status_code, answer.json()["code"])
        assert answers == {
            "opening": (503, "account_not_ready"),
            "euros": (409, "account_not_in_dollars"),
            "nobody": (404, "account_not_found"),
        }
        async with server.open("/ws/portfolio/opening", {"X-API-Key": API_KEY}) as waiting:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5):
                    await waiting.recv()
            assert waiting.close_code is None
        async with server.open("/ws/portfolio/euros", {"X-API-Key": API_KEY}) as foreign:
            async with asyncio.timeout(DEADLINE_S):
                await foreign.wait_closed()
            assert (foreign.close_code, foreign.close_reason) == (4504, "account not in dollars")
        async with server.open("/ws", {"X-API-Key": API_KEY}) as by_message:
            await by_message.send(json.dumps({"type": "subscribe", "account_id": "euros"}))
            async with asyncio.timeout(DEADLINE_S):
                told = json.loads(await by_message.recv())
            assert (told["code"], told["account_id"]) == ("account_not_in_dollars", "euros")
        events = await server.http.get("/v1/portfolio/euros/stream", headers={"X-API-Key": API_KEY})
        assert '{"code":4504,"reason":"account not in dollars"}' in events.text
        several = await server.http.get(
            "/v1/portfolios?ids=opening,euros,nobody", headers={"X-API-Key": API_KEY}
        )
        assert {one["account_id"]: one["status"] for one in several.json()["portfolios"]} == {
            name: code for name, (_, code) in answers.items()
        }
    await state.accounts.write_pending(lease, [], ["opening", "euros"])
    assert await state.accounts.read_pending(["opening", "euros"]) == {}
