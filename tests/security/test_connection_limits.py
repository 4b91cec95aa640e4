"""E14: how many connections and messages one client, user and address may have, on real sockets."""

import contextlib
import json
from collections import Counter

import httpx
import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed

from portfolio_realtime.state import State
from portfolio_realtime.websocket_server.access.refusal_log import LINES_PER_KIND_MAX
from portfolio_realtime.websocket_server.clients import connection as connection_limits
from tests.conftest import Until
from tests.security.hostile_clients import (
    everything,
    ready,
    refusal,
    through_proxy,
)
from tests.support.websocket_servers import (
    API_KEY,
    Served,
    bearer,
    closed,
    receive,
    serving,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_e14_one_connection_may_not_send_without_end(own: Served) -> None:
    """First it is told, then it is closed."""
    async with own.open("/ws", bearer(subject="loud")) as client:
        for _ in range(connection_limits.MESSAGES_PER_MINUTE_CLOSE + 1):
            await client.send('{"type":"heartbeat"}')
        kinds = [json.loads(text)["type"] for text in await everything(client)]
        assert kinds.count("heartbeat_ack") <= connection_limits.MESSAGES_PER_MINUTE_MAX
        assert client.close_code == 4505


async def test_e14_one_user_may_not_send_more_by_more_connections(behind_proxy: Served) -> None:
    """MESSAGES_PER_USER is over all of them; another user is not concerned."""
    headers = through_proxy("198.51.100.20", **bearer(subject="chatty"))
    answers: list[str] = []
    for _ in range(3):
        async with behind_proxy.open("/ws", headers) as client:
            for _ in range(20):
                await client.send('{"type":"heartbeat"}')
                answers.append((await receive(client)).get("code", "answered"))
    assert 40 <= answers.count("answered") < 60
    assert answers[-1] == "too_many_messages"
    async with behind_proxy.open("/ws", through_proxy("198.51.100.21", **bearer(subject="calm"))) as client:
        await client.send('{"type":"heartbeat"}')
        assert (await receive(client))["type"] == "heartbeat_ack"


async def test_e14_who_goes_on_beyond_the_limit_of_the_user_is_closed(behind_proxy: Served) -> None:
    """The messages that MESSAGES_PER_USER refuses are messages of their connection."""
    headers = through_proxy("198.51.100.22", **bearer(subject="deaf"))
    async with behind_proxy.open("/ws", headers) as client:
        for _ in range(connection_limits.MESSAGES_PER_MINUTE_CLOSE + 1):
            await client.send('{"type":"heartbeat"}')
        assert await closed(client) == 4505


async def test_e14_connections_of_a_user_and_of_an_address_are_limited(behind_proxy: Served) -> None:
    """4501 for the user's fourth, 429 for the address's fifth; who leaves makes room."""
    async with contextlib.AsyncExitStack() as stack:
        for address in ("198.51.100.30", "198.51.100.31", "198.51.100.32"):
            headers = through_proxy(address, **bearer(subject="many"))
            await ready(await stack.enter_async_context(behind_proxy.open("/ws", headers)))
        headers = through_proxy("198.51.100.33", **bearer(subject="many"))
        async with behind_proxy.open("/ws", headers) as fourth:
            assert await closed(fourth) == 4501
    async with contextlib.AsyncExitStack() as stack:
        for number in range(4):
            headers = through_proxy("198.51.100.34", **bearer(subject=f"user-{number}"))
            await stack.enter_async_context(behind_proxy.open("/ws", headers))
        assert await refusal(behind_proxy, **through_proxy("198.51.100.34")) == 429
        assert await refusal(behind_proxy, **through_proxy("198.51.100.35")) is None
    assert await refusal(behind_proxy, **through_proxy("198.51.100.34")) is None


async def test_e14_new_connections_of_an_address_are_limited(behind_proxy: Served) -> None:
    """A bucket of twelve that fills again within a minute; neighbours in one IPv6 network share it."""
    for near, far in (("198.51.100.40", "198.51.100.41"), ("2001:db8:1:2::5", "2001:db8:1:3::5")):
        statuses = [await refusal(behind_proxy, **through_proxy(near)) for _ in range(20)]
        assert 12 <= statuses.count(None) < 20
        assert statuses[-1] == 429
        assert await refusal(behind_proxy, **through_proxy(far)) is None
    assert await refusal(behind_proxy, **through_proxy("2001:db8:1:2::6")) == 429


async def test_e14_streams_of_events_have_the_same_limits(behind_proxy: Served, until: Until) -> None:
    """Open ones and new ones, by address and by user; who leaves makes room."""
    path, http = "/v1/portfolio/a/stream", behind_proxy.http

    async def opened(stack: contextlib.AsyncExitStack, address: str, subject: str) -> httpx.Response:
        headers = through_proxy(address, **bearer(subject=subject))
        answer = await stack.enter_async_context(http.stream("GET", path, headers=headers))
        if answer.status_code == 200:
            answer.extensions["lines"] = answer.aiter_lines()  # kept: it would end the stream
            answer.extensions["first"] = await anext(answer.extensions["lines"])
        return answer

    async with contextlib.AsyncExitStack() as stack:
        for number in range(4):
            answer = await opened(stack, "198.51.100.36", f"events-{number}")
            assert (answer.status_code, answer.extensions["first"]) == (200, "event: portfolio")
        fifth = await opened(stack, "198.51.100.36", "events-5")
        assert (fifth.status_code, fifth.headers["retry-after"]) == (429, "10")
        assert await refusal(behind_proxy, **through_proxy("198.51.100.36")) == 429
        for number in range(3):
            await opened(stack, f"198.51.100.{42 + number}", "many-events")
        fourth = await opened(stack, "198.51.100.46", "many-events")
        assert fourth.extensions["first"] == "event: close"
        assert '"code":4501' in await anext(fourth.extensions["lines"])

    async def has_room() -> bool:
        async with contextlib.AsyncExitStack() as stack:
            return (await opened(stack, "198.51.100.36", "events-6")).status_code == 200

    await until(has_room, "who left has made room")
    answers = [await http.get(path, headers=through_proxy("198.51.100.47")) for _ in range(20)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:12] == [401] * 12
    assert statuses[-1] == 429
    assert await refusal(behind_proxy, **through_proxy("198.51.100.47")) == 429


async def test_e14_new_connections_of_a_user_are_limited(shared: State) -> None:
    """From however many addresses, as sockets and as events; a back end has no such limit."""
    async with serving(shared.connection.url, connects_per_user=6) as server:
        restless = bearer(subject="restless")

        async def opens_socket() -> bool:
            async with server.open("/ws/portfolio/a", restless) as client:
                with contextlib.suppress(ConnectionClosed):
                    return (await receive(client))["type"] == "portfolio"
                return client.close_code != 4501

        async def opens_events() -> bool:
            path = "/v1/portfolio/a/stream"
            async with server.http.stream("GET", path, headers=restless) as answer:
                return await anext(answer.aiter_lines()) == "event: portfolio"

        outcomes = [await opens() for _ in range(10) for opens in (opens_socket, opens_events)]
        assert outcomes[:6] == [True] * 6
        assert outcomes.count(False) >= 10
        for headers, count in ((bearer(subject="calm"), 6), ({"X-API-Key": API_KEY}, 12)):
            for _ in range(count):
                async with server.open("/ws/portfolio/a", headers) as client:
                    assert (await receive(client))["type"] == "portfolio"


async def test_e14_refused_credentials_of_an_address_are_limited(behind_proxy: Served) -> None:
    """429 after as many as connections, a few lines of the log for each reason; good ones are heard."""
    address = "198.51.100.11"
    guesses = [{"Authorization": f"Bearer guess-{number}"} for number in range(40)]
    guesses += [{"X-API-Key": f"guess-{number}"} for number in range(10)]
    tried = {
        "/v1/portfolio/a": guesses,
        "/v1/portfolio/b": [bearer()] * 20,  # another's
        "/metrics": [{"X-API-Key": f"guess-{number}"} for number in range(20)],
        "/docs": [{"X-API-Key": f"guess-{number}"} for number in range(20)],
    }
    for number, (path, shown) in enumerate(tried.items()):
        place = f"{address}{number}"
        with capture_logs() as logged:
            answers = [
                await behind_proxy.http.get(path, headers=through_proxy(place, **headers))
                for headers in shown
            ]
        statuses = [answer.status_code for answer in answers]
        assert 12 <= len(statuses) - statuses.count(429) < 18, path
        assert statuses[0] in (401, 403, 404)
        assert (statuses[-1], answers[-1].headers["retry-after"]) == (429, "10")
        lines = [line for line in logged if line.get("peer") == place]
        kinds = Counter((line["event"], line["reason"]) for line in lines)
        assert len(kinds) <= 3
        assert max(kinds.values()) <= LINES_PER_KIND_MAX  # in a minute
        good = through_proxy(place, **bearer())
        assert (await behind_proxy.http.get("/v1/portfolio/a", headers=good)).status_code == 200
    elsewhere = through_proxy("198.51.100.70")
    assert (await behind_proxy.http.get("/v1/portfolio/a", headers=elsewhere)).status_code == 401


async def test_e14_nobody_gets_events_from_a_server_that_is_full_or_ends(
    shared: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, as a WebSocket."""
    monkeypatch.setattr("portfolio_realtime.websocket_server.server.CONNECTIONS_MAX", 1)
    async with serving(shared.connection.url) as server, server.open("/ws"):
        answer = await server.http.get("/v1/portfolio/a/stream", headers=bearer())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert await refusal(server) == 503
        assert (await server.http.get("/v1/portfolio/a", headers=bearer())).status_code == 200
