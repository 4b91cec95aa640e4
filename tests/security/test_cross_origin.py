"""Pages of other origins: exactly those that are allowed may ask and read, and only what is for clients."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from portfolio_realtime.state import State
from tests.support.websocket_servers import Served, bearer, serving

APP = "https://app.example.com"
SECOND = "https://second.example.com:8443"
LOOK_ALIKES = [
    "https://app.example.com.evil.example",
    "https://evil-app.example.com",
    "https://app.example.com:8443",
    "http://app.example.com",
    "https://app.example.com@evil.example",
    "https://app.example.com/",
    "https://APP.example.com",
    "https://example.com",
    "https://app.example.comx",
    "https://second.example.com",
    "null",
    "",
    "*",
    "http://localhost:3000",
]
PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def server(shared: State) -> AsyncGenerator[Served]:
    """For the pages of two origins."""
    async with serving(shared.connection.url, allowed_origins=f"{APP},{SECOND}") as served:
        yield served


@pytest.mark.parametrize("origin", [APP, SECOND])
async def test_a_page_of_an_allowed_origin_may_ask_and_read(server: Served, origin: str) -> None:
    """Preflight, `Authorization`, and `Retry-After` of a refusal; for this origin alone, without cookies."""
    path = "/v1/portfolio/a"
    asked = await server.http.options(path, headers={"Origin": origin, **PREFLIGHT})
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == origin
    assert "Authorization" in asked.headers["access-control-allow-headers"]
    assert "X-API-Key" not in asked.headers["access-control-allow-headers"]
    for headers, status in ((bearer(), 200), ({}, 401)):
        answer = await server.http.get(path, headers={"Origin": origin, **headers})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, origin)
        assert "Retry-After" in answer.headers["access-control-expose-headers"]
        assert "Origin" in answer.headers["vary"]
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", LOOK_ALIKES)
async def test_a_page_of_an_origin_that_only_looks_like_it_may_not(server: Served, origin: str) -> None:
    """Neither ask with credentials nor read an answer; caches keep the two apart."""
    for path in ("/v1/portfolio/a", "/v1/tickets", "/api/portfolio/value?accountId=a"):
        asked = await server.http.options(path, headers={"Origin": origin, **PREFLIGHT})
        assert (asked.status_code, asked.json()["code"]) == (403, "origin_not_allowed")
        answer = await server.http.get(path, headers={"Origin": origin, **bearer()})
        for told in (asked, answer):
            assert not [name for name in told.headers if name.startswith("access-control-")]
            assert "Origin" in told.headers["vary"]


async def test_only_the_routes_for_clients_are_opened(server: Served) -> None:
    """Operators' routes, documents, the demo's session and the page's files stay with their own origin."""
    for path in ("/metrics", "/docs", "/openapi.json", "/demo/session", "/", "/health", "/v1"):
        for answer in (
            await server.http.options(path, headers={"Origin": APP, **PREFLIGHT}),
            await server.http.get(path, headers={"Origin": APP}),
        ):
            assert not [name for name in answer.headers if name.startswith("access-control-")], path


async def test_on_this_machine_its_own_pages_may(own: Served) -> None:
    """Without ALLOWED_ORIGINS a page on another port of this machine, as for the WebSocket; nobody else."""
    path, headers = "/v1/portfolio/a", {**bearer()}
    for origin in ("http://localhost:3000", "http://127.0.0.1:5173", "http://[::1]:3000"):
        answer = await own.http.get(path, headers={"Origin": origin, **headers})
        assert answer.headers["access-control-allow-origin"] == origin
        asked = await own.http.options(path, headers={"Origin": origin, **PREFLIGHT})
        assert asked.status_code == 204
    for origin in ("http://localhost.evil.example", "http://127.0.0.1.evil.example", "https://evil.example"):
        answer = await own.http.get(path, headers={"Origin": origin, **headers})
        assert "access-control-allow-origin" not in answer.headers
    strange = {"Origin": "http://localhost:3000", "Host": "realtime.example.com", **headers}
    assert "access-control-allow-origin" not in (await own.http.get(path, headers=strange)).headers
