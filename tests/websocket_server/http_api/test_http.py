"""The HTTP side of the real server: the same values, tickets, probes, metrics."""

import asyncio
import json
from typing import Any

from portfolio_realtime.state import State
from tests.conftest import Until
from tests.support.websocket_servers import (
    API_KEY,
    Calculator,
    Served,
    bearer,
    closed,
    receive,
    receive_until,
    serving,
    watched,
)


async def test_http_gives_the_same_object(server: Served, calculator: Calculator) -> None:
    """For clients without WebSocket, while somebody watches."""
    await calculator.publish("a", 1, {"A": "1"})
    async with server.open("/ws/portfolio/a?detail=positions") as client:
        await receive(client)
        await calculator.publish("a", 2, {"A": "1"})
        message = await receive(client)
        del message["positions"]
        answer = await server.http.get("/v1/portfolio/a", headers=bearer())
        assert answer.json() == message
        alias = await server.http.get("/api/portfolio/value?accountId=a", headers=bearer())
        assert alias.json() == message
        detailed = await server.http.get("/v1/portfolio/a?detail=positions", headers=bearer())
        assert detailed.json()["positions"][0]["symbol"] == "A"


async def test_http_serves_a_stored_value_that_a_calculator_keeps(
    server: Served, calculator: Calculator
) -> None:
    """A quiet account has nothing new to wait for."""
    await calculator.publish("a", 1)

    answer = await server.http.get("/v1/portfolio/a", headers=bearer())

    assert (answer.status_code, answer.json()["sequence"]) == (200, 1)


async def test_http_waits_for_a_live_value_and_does_not_serve_an_old_one(
    server: Served, calculator: Calculator, state: State, until: Until
) -> None:
    """Without a calculator a stored value may be from long ago: one has to speak first."""
    await calculator.publish("a", 1)
    async with server.open("/ws/portfolio/ab") as other:  # until this has come, the one before is news, too
        for sequence in (1, 2):
            await calculator.publish("ab", sequence)
            await receive_until(other, sequence)
    await calculator.die()
    request = asyncio.create_task(server.http.get("/v1/portfolio/a", headers=bearer()))
    await until(lambda: watched(state, "a"), "the request has announced its interest")
    await calculator.publish("a", 2)
    assert (await request).json()["sequence"] == 2
    answer = await server.http.get("/v1/portfolio/b", headers=bearer(accounts=["b"]))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


async def test_server_sent_events_carry_the_same_messages(server: Served, calculator: Calculator) -> None:
    """First all of it, then what changed; the end is said."""
    await calculator.publish("a", 1, {"A": "1"})
    path = "/v1/portfolio/a/stream?detail=positions"
    async with server.http.stream("GET", path, headers=bearer(lifetime_s=2)) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        assert await anext(lines) == "event: portfolio"
        assert (await anext(lines)).startswith("id: ")
        first = json.loads((await anext(lines)).removeprefix("data: "))
        assert (first["sequence"], first["positions"][0]["symbol"]) == (1, "A")
        await calculator.publish("a", 2, {"A": "1"})
        rest = [line async for line in lines if line and not line.startswith("id: ")]
    assert rest[0] == "event: portfolio"
    assert json.loads(rest[1].removeprefix("data: "))["positions"] == []
    assert rest[2:] == ["event: close", 'data: {"code":4004,"reason":"token expired"}']
    assert (await server.http.get("/v1/portfolio/b/stream", headers=bearer())).status_code == 404


async def test_the_reference_page_names_every_route_message_and_close_code(server: Served) -> None:
    """Made from the types, with nothing from elsewhere."""
    text = (await server.http.get("/docs")).text
    for expected in ("/v1/portfolio/{account_id}", "token_expiring", "known_equity", "4503", "forbidden"):
        assert expected in text
    assert "http://" not in text
    assert "https://" not in text
    document = (await server.http.get("/openapi.json")).json()
    assert "known_equity" in document["components"]["schemas"]["PortfolioMessage"]["properties"]


async def test_http_refuses_as_the_websocket_does(server: Served) -> None:
    """401 without credentials; 404 with one body for unknown and another's."""
    assert (await server.http.get("/v1/portfolio/a")).status_code == 401
    assert (await server.http.post("/v1/tickets")).status_code == 401
    answers: list[Any] = []
    for account_id, headers in (
        ("b", bearer()),
        ("nothing", bearer()),
        ("nothing", {"X-API-Key": API_KEY}),
        ("a.b", {"X-API-Key": API_KEY}),
    ):
        answer = await server.http.get(f"/v1/portfolio/{account_id}", headers=headers)
        answers.append((answer.status_code, answer.text))
    body = '{"detail":"the account does not exist, or it is not yours","code":"account_not_found"}'
    assert set(answers) == {(404, body)}


async def test_a_401_says_whether_there_were_credentials_and_whether_they_are_expired(
    server: Served,
) -> None:
    """RFC 6750; nothing else, and one body for all."""
    expired = bearer(lifetime_s=-600)
    bad = {"Authorization": f"{bearer()['Authorization']}x"}
    told: dict[str, str] = {}
    for name, headers in (("none", {}), ("expired", expired), ("bad", bad), ("key", {"X-API-Key": "x"})):
        answer = await server.http.get("/v1/portfolio/a", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        told[name] = answer.headers["WWW-Authenticate"]
    assert told == {
        "none": "Bearer",
        "expired": 'Bearer error="invalid_token", error_description="expired"',
        "bad": 'Bearer error="invalid_token"',
        "key": 'Bearer error="invalid_token"',
    }


async def test_metrics_of_all_services_are_for_this_machine_and_for_the_api_key(
    server: Served, calculator: Calculator, state: State
) -> None:
    """One text, told apart by labels; no account id in it."""
    await state.metrics.write("portfolio_calculator", "other", b"# TYPE x gauge\nx 1.0\n")
    async with server.open("/ws/portfolio/a") as client:
        await calculator.publish("a", 1)
        await receive(client)
        answer = await server.http.get("/metrics", headers={"Host": "127.0.0.1"})
        text = answer.text
        assert 'x{instance="other",service="portfolio_calculator"} 1.0' in text
        assert (
            'portfolio_realtime_connections{instance="test-instance",service="websocket_server"} 1.0' in text
        )
        assert "portfolio_realtime_connects_total{" in text
        assert 'portfolio_realtime_fan_out_lag_seconds_count{instance="test-instance",' in text
    forwarded = {"X-Forwarded-For": "127.0.0.1"}
    assert (await server.http.get("/metrics", headers=forwarded)).status_code == 403
    assert (await server.http.get("/metrics", headers={"X-API-Key": "x"})).status_code == 403
    assert (await server.http.get("/metrics", headers={**forwarded, "X-API-Key": API_KEY})).status_code == 200


async def test_every_answer_carries_security_headers(server: Served) -> None:
    """Nothing from elsewhere, nothing kept, no version told."""
    for path in ("/health", "/", "/icon.svg", "/v1/portfolio/a", "/nothing"):
        answer = await server.http.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == ("no-cache" if path == "/icon.svg" else "no-store")
        assert "server" not in answer.headers


async def test_without_a_secret_a_client_on_this_machine_needs_no_token(
    calculator: Calculator, valkey_url: str
) -> None:
    """And one behind a proxy is refused."""
    await calculator.publish("a", 1)
    async with serving(valkey_url, jwt_secret="", api_key_secret="") as served:
        async with served.open("/ws/portfolio/a", {}) as client:
            assert (await receive(client))["sequence"] == 1
        async with served.open("/ws/portfolio/a", {"X-Forwarded-For": "10.0.0.1"}) as client:
            assert await closed(client) == 4500
        assert (await served.http.get("/demo/session")).status_code == 404


async def test_the_demo_session_names_the_accounts_and_gives_a_token(
    calculator: Calculator, valkey_url: str
) -> None:
    """Only with DEMO_PAGE, only on this machine."""
    async with serving(valkey_url, demo_page=True) as served:
        session = (await served.http.get("/demo/session")).json()
        assert session["accounts"] == ["a", "ab", "b"]
        await calculator.publish("b", 1)
        async with served.open("/ws/portfolio/b", {"Authorization": f"Bearer {session['token']}"}) as client:
            assert (await receive(client))["account_id"] == "b"
        refused = await served.http.get("/demo/session", headers={"Host": "evil.example"})
        assert refused.status_code == 404
