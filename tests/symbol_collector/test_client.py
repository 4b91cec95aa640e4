"""The REST client: bounded retries, polite waiting, pages without holes, refusals with the setting's name."""

import asyncio
import json
import time

import pytest

from portfolio_realtime.alpaca.http import basic
from portfolio_realtime.errors import BrokerRefused, BrokerUnavailable
from portfolio_realtime.symbol_collector.sources import broker_client as client_module
from portfolio_realtime.symbol_collector.sources import rest_client
from portfolio_realtime.symbol_collector.sources.broker_client import BrokerClient
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused
from tests.conftest import StartSimulator
from tests.support.broker_payloads import ACCOUNT, POSITION
from tests.symbol_collector.scripted import response, scripted

AUTH = basic("key", "a-very-secret-word")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait only a moment."""
    monkeypatch.setattr(rest_client, "ATTEMPT_WAIT_S", 0.01)
    monkeypatch.setattr(rest_client, "ATTEMPT_WAIT_S_MAX", 0.02)


class Broker:
    """Answers each request with the next of a list of (status, body, headers); the last one stays."""

    def __init__(self, *answers: tuple[int, str] | tuple[int, str, str]) -> None:
        self.targets: list[str] = []
        self._answers = list(answers)

    async def __call__(self, target: str, writer: asyncio.StreamWriter) -> None:
        """One request."""
        self.targets.append(target)
        status, body, *headers = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        writer.write(response(status, body, *headers))


async def test_a_read_is_repeated_after_a_failure() -> None:
    """A 500 and a 503 are bad moments; the third answer counts."""
    counted: list[str] = []
    broker = Broker((500, "oops"), (503, ""), (200, "[]"))
    async with scripted(broker) as url, BrokerClient(url, AUTH, counted.append) as client:
        assert await client.accounts() == []
    assert counted == ["500", "503", "200"]


async def test_retries_end() -> None:
    """A broker that stays away is BrokerUnavailable after ATTEMPTS_MAX requests."""
    broker = Broker((502, "bad gateway"))
    async with scripted(broker) as url, BrokerClient(url, AUTH) as client:
        with pytest.raises(BrokerUnavailable, match="HTTP 502"):
            await client.accounts()
    assert len(broker.targets) == rest_client.ATTEMPTS_MAX


async def test_a_connection_that_is_refused_is_unavailable() -> None:
    """Nobody listens."""
    async with scripted(Broker((200, "[]"))) as url:
        pass
    async with BrokerClient(url, AUTH) as client:
        with pytest.raises(BrokerUnavailable, match="ClientConnectorError"):
            await client.accounts()


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_not_repeated_and_not_shown(status: int) -> None:
    """The message names the setting, never the secret."""
    broker = Broker((status, '{"message":"forbidden."}'))
    async with scripted(broker) as url, BrokerClient(url, AUTH) as client:
        with pytest.raises(BrokerRefused, match="BROKER_API_KEY") as refused:
            await client.accounts()
    assert len(broker.targets) == 1
    assert "a-very-secret-word" not in str(refused.value)


async def test_a_401_for_one_account_is_an_unknown_account() -> None:
    """Alpaca's SDK has 401 for it; when another request is answered, it is not our credentials."""
    broker = Broker((401, '{"message":"request is not authorized"}'), (200, '{"is_open":true}'))
    async with scripted(broker) as url, BrokerClient(url, AUTH) as client:
        assert await client.statement("nobody", is_urgent=True) is None
    assert broker.targets == ["/v1/trading/accounts/nobody/account", client_module.PROOF_PATH]


async def test_a_401_for_everything_is_a_refusal() -> None:
    """The key itself is wrong: an account must not silently be called absent."""
    broker = Broker((401, '{"message":"request is not authorized"}'))
    async with scripted(broker) as url, BrokerClient(url, AUTH) as client:
        with pytest.raises(BrokerRefused, match="BROKER_API_KEY"):
            await client.statement("nobody", is_urgent=True)


async def test_an_unknown_account_has_no_statement() -> None:
    """404 is an answer."""
    async with scripted(Broker((404, "{}"))) as url, BrokerClient(url, AUTH) as client:
        assert await client.statement("nobody", is_urgent=True) is None


@pytest.mark.parametrize("status", [401, 404])
async def test_one_account_is_there_or_not(status: int) -> None:
    """Also one that has no trading account yet; 401 counts as none when other requests are answered."""
    line = '{"id": "alice", "status": "SUBMITTED", "created_at": "2026-11-20T15:04:05Z"}'
    broker = Broker((200, line), (status, "{}"), (200, "{}"))
    async with scripted(broker) as url, BrokerClient(url, AUTH) as client:
        found = await client.account("alice")
        assert found is not None
        assert found[:3] == ("alice", "SUBMITTED", "2026-11-20T15:04:05Z")
        assert await client.account("nobody") is None
    assert broker.targets[:2] == ["/v1/accounts/alice", "/v1/accounts/nobody"]


async def test_a_statement_is_state_and_positions() -> None:
    """Two requests make one statement."""
    broker = Broker((200, json.dumps(ACCOUNT)), (200, json.dumps([POSITION])))
    async with scripted(broker) as url, BrokerClient(url, AUTH) as client:
        found = await client.statement("c8f1", is_urgent=False)
    assert found is not None
    assert (found.state.account_id, list(found.holdings)) == ("c8f1", ["AAPL"])
    assert broker.targets == [
        "/v1/trading/accounts/c8f1/account",
        "/v1/trading/accounts/c8f1/positions",
    ]


@pytest.mark.parametrize("body", ["", "<html>", '{"cash": NaN}', "[]", "null"])
async def test_a_spoiled_answer_is_refused(body: str) -> None:
    """200 with something else than an account is no account."""
    async with scripted(Broker((200, body), (200, "[]"))) as url, BrokerClient(url, AUTH) as client:
        with pytest.raises(PayloadRefused):
            await client.statement("c8f1", is_urgent=True)


async def test_after_a_429_nothing_goes_out_before_the_reset() -> None:
    """The answer says until when; then the request is made again."""
    reset_s = int(time.time()) + 2
    headers = f"X-RateLimit-Limit: 100\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: {reset_s}\r\n"
    broker = Broker((429, "too many requests.", headers), (200, "[]"))
    async with scripted(broker) as url, BrokerClient(url, AUTH) as client:
        assert await client.accounts() == []
    assert time.time() >= reset_s
    assert len(broker.targets) == 2


async def test_all_pages_are_read_and_no_account_comes_twice(simulator: StartSimulator) -> None:
    """More accounts than one answer holds; pages overlap by their boundary."""
    broker = await simulator(accounts=2100, activities_per_second=0, trades_per_second=0)
    async with BrokerClient(broker.url, basic("sim-key", "sim-secret")) as client:
        found = [one.account_id for one in await client.accounts()]

    assert len(found) == len(set(found)) == 2100
    assert set(found) == set((await broker.get("/_sim/accounts"))["accounts"])
