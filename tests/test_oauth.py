"""One token for everybody, renewed in time, and a clear word when there is none."""

import asyncio
import json

import pytest

from portfolio_realtime import config
from portfolio_realtime.alpaca.oauth import RENEW_BEFORE_S, RENEW_S_MIN, BearerAuthentication, TokenSource
from portfolio_realtime.errors import BrokerRefused, BrokerUnavailable, TokenRefused
from portfolio_realtime.symbol_collector.sources.broker_client import BrokerClient, credentials
from tests.conftest import StartSimulator
from tests.symbol_collector.scripted import response, scripted

LIFE_S = 900


class Authority:
    """A token endpoint that numbers its tokens."""

    def __init__(self, status: int = 200, body: str | None = None) -> None:
        self.asked = 0
        self._status, self._body = status, body

    async def __call__(self, target: str, writer: asyncio.StreamWriter) -> None:
        """One request."""
        self.asked += 1
        await asyncio.sleep(0.02)
        token = json.dumps({"access_token": f"t{self.asked}", "expires_in": LIFE_S, "token_type": "Bearer"})
        writer.write(response(self._status, self._body or token))


async def test_who_needs_a_token_at_the_same_time_shares_one() -> None:
    """A token is not asked for with each request."""
    authority = Authority()
    async with scripted(authority) as url:
        source = TokenSource(url, "id", "secret")
        assert set(await asyncio.gather(*(source.token() for _ in range(20)))) == {"t1"}
    assert authority.asked == 1


async def test_a_token_is_renewed_before_it_expires() -> None:
    """Not sooner than RENEW_BEFORE_S, and never used after its end."""
    now_s = 1000.0
    async with scripted(Authority()) as url:
        source = TokenSource(url, "id", "secret", lambda: now_s)
        assert await source.token() == "t1"
        now_s += LIFE_S - RENEW_BEFORE_S - 1
        assert await source.token() == "t1"
        now_s += 1
        assert await source.token() == "t2"


async def test_only_an_old_token_can_be_the_reason_of_a_401() -> None:
    """Or else every 401 for an account that is not there would ask for another token."""
    now_s = 1000.0
    async with scripted(Authority()) as url:
        source = TokenSource(url, "id", "secret", lambda: now_s)
        token = await source.token()
        now_s += RENEW_S_MIN - 1
        assert not source.refused(token)
        now_s += 1
        assert source.refused(token)
        assert await source.token() == "t2"
        assert source.refused(token), "somebody else has already fetched a newer one"


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_refused_client_credentials_name_the_settings(status: int) -> None:
    """Waiting does not help, and the secret is not shown."""
    async with scripted(Authority(status, '{"error":"invalid_client"}')) as url:
        with pytest.raises(TokenRefused, match="BROKER_CLIENT_ID") as refused:
            await TokenSource(url, "id", "very-secret").token()
    assert "very-secret" not in str(refused.value)


@pytest.mark.parametrize(("status", "body"), [(503, "busy"), (200, "[]"), (200, "<html>")])
async def test_a_token_endpoint_in_trouble_is_tried_again_later(status: int, body: str) -> None:
    """The broker is unavailable, not refused."""
    async with scripted(Authority(status, body)) as url:
        source = TokenSource(url, "id", "secret")
        async with BrokerClient(url, BearerAuthentication(source)) as client:
            with pytest.raises(BrokerUnavailable):
                await client.statement("a", is_urgent=True)


async def test_the_broker_is_read_with_a_token_and_again_with_a_new_one(simulator: StartSimulator) -> None:
    """Against the simulator's own token endpoint: an old token that it forgets is replaced without a word."""
    broker = await simulator()
    settings = config.load(
        broker_client_id="sim-key",
        broker_client_secret="sim-secret",
        alpaca_auth_url=broker.url,
        alpaca_broker_url=broker.url,
    )
    auth = credentials(settings)
    assert isinstance(auth, BearerAuthentication)
    async with BrokerClient(broker.url, auth) as client:
        assert len(await client.accounts()) == len((await broker.get("/_sim/accounts"))["accounts"])
        source = auth._source
        source._token, source._fetched_s = "no-such-token", source._fetched_s - RENEW_S_MIN
        assert await client.accounts()


async def test_wrong_client_credentials_at_the_simulator(simulator: StartSimulator) -> None:
    """The simulator's refusal is as real."""
    broker = await simulator()
    async with BrokerClient(
        broker.url, BearerAuthentication(TokenSource(broker.url, "sim-key", "wrong"))
    ) as client:
        with pytest.raises(TokenRefused, match="HTTP 401"):
            await client.accounts()


async def test_an_event_stream_is_opened_with_the_token(simulator: StartSimulator) -> None:
    """A response that is read as it comes is not swallowed by the authentication."""
    broker = await simulator(activities_per_second=20)
    async with BrokerClient(
        broker.url, BearerAuthentication(TokenSource(broker.url, "sim-key", "sim-secret"))
    ) as client:
        answer = await client.open_stream("/v2beta1/events/activities", {}, 10)
        assert answer.status == 200
        async for line in answer.content:
            if line.startswith(b"data:"):
                break
        answer.close()


def test_without_any_credentials_both_ways_are_named() -> None:
    """A newcomer learns what to set."""
    with pytest.raises(BrokerRefused, match=r"BROKER_CLIENT_ID.*BROKER_API_KEY"):
        credentials(config.load(_env_file=None))
