"""Who is let in, and how often."""

import base64

import httpx
import pytest

from alpaca_sim.core.clock import SECOND_NS
from alpaca_sim.core.credentials import TOKEN_LIFE_S
from tests.alpaca_sim.conftest import Start
from tests.support.simulators.tokens import token_of

ACCOUNTS = "/v1/accounts"
PRICES = "/v2/stocks/trades/latest?symbols=AAPL"
APCA = {"APCA-API-KEY-ID": "sim-key", "APCA-API-SECRET-KEY": "sim-secret"}


def basic(key: str, secret: str) -> dict[str, str]:
    """The header of HTTP Basic."""
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:{secret}".encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "broker", "market"),
    [
        ({}, 401, 403),
        (basic("sim-key", "sim-secret"), 200, 200),
        (basic("sim-key", "wrong"), 401, 403),
        ({"Authorization": "Basic ???"}, 401, 403),
        ({"Authorization": "Bearer nobody"}, 401, 403),
        (APCA, 401, 200),
        (APCA | {"APCA-API-SECRET-KEY": "wrong"}, 401, 403),
    ],
)
async def test_only_the_right_credentials_are_answered(
    start: Start, headers: dict[str, str], broker: int, market: int
) -> None:
    """Broker paths take Basic; market data takes APCA headers too."""
    running = await start()
    async with httpx.AsyncClient(base_url=running.url, headers=headers) as http:
        assert (await http.get(ACCOUNTS)).status_code == broker
        assert (await http.get(PRICES)).status_code == market


async def test_a_bearer_token_is_accepted_until_it_expires(start: Start) -> None:
    """Fifteen minutes by the simulator's clock."""
    running = await start()
    headers = {"Authorization": f"Bearer {await token_of(running)}"}
    async with httpx.AsyncClient(base_url=running.url, headers=headers) as http:
        assert (await http.get(ACCOUNTS)).status_code == 200
        assert (await http.get(PRICES)).status_code == 200
        real_now = running.sim.clock.now_ns
        running.sim.clock.now_ns = lambda: real_now() + (TOKEN_LIFE_S + 1) * SECOND_NS
        assert (await http.get(ACCOUNTS)).status_code == 401


async def test_wrong_client_credentials_get_no_token(start: Start) -> None:
    """401 for a wrong secret, 400 for another grant."""
    running = await start()
    form = {"grant_type": "client_credentials", "client_id": "sim-key", "client_secret": "wrong"}
    async with httpx.AsyncClient(base_url=running.url) as http:
        assert (await http.post("/v1/oauth2/token", data=form)).status_code == 401
        assert (
            await http.post("/v1/oauth2/token", data=form | {"grant_type": "password"})
        ).status_code == 400


async def test_crypto_prices_need_no_credentials_but_no_wrong_ones(start: Start) -> None:
    """As at Alpaca, crypto market data is open."""
    running = await start()
    path = "/v1beta3/crypto/us/latest/trades?symbols=BTC/USD"
    async with httpx.AsyncClient(base_url=running.url) as http:
        assert (await http.get(path)).status_code == 200
        assert (await http.get(path, headers=basic("sim-key", "wrong"))).status_code == 403


async def test_beyond_the_limit_the_minute_answers_429_and_says_when_it_ends(start: Start) -> None:
    """The headers count down; after the reset requests are answered again."""
    running = await start(rate_limit=3)
    now_ns = running.sim.clock.now_ns()
    running.sim.clock.now_ns = lambda: now_ns
    for remaining in ("2", "1", "0"):
        response = await running.http.get(ACCOUNTS)
        assert response.status_code == 200
        assert response.headers["x-ratelimit-limit"] == "3"
        assert response.headers["x-ratelimit-remaining"] == remaining
    refused = await running.http.get(ACCOUNTS)
    assert refused.status_code == 429
    assert refused.json() == {"code": 42910000, "message": "too many requests."}
    reset_s = int(refused.headers["x-ratelimit-reset"])
    assert 0 < reset_s - now_ns // SECOND_NS <= 60
    assert (await running.get("/_sim/state"))["rejected_429"] == 1
    running.sim.clock.now_ns = lambda: reset_s * SECOND_NS
    assert (await running.http.get(ACCOUNTS)).status_code == 200


async def test_prices_of_a_feed_outside_the_plan_are_refused(start: Start) -> None:
    """Asked for by name only; without a name the best feed of the plan is meant."""
    running = await start(denied_feeds=frozenset({"sip"}))
    refused = await running.http.get(f"{PRICES}&feed=sip")
    message = "subscription does not permit querying recent SIP data"
    assert (refused.status_code, refused.json()) == (403, {"code": 42210000, "message": message})
    assert (await running.http.get(f"{PRICES}&feed=iex")).status_code == 200
    assert (await running.http.get(PRICES)).status_code == 200
    assert (await running.http.get(f"{PRICES}&feed=nope")).status_code == 400
