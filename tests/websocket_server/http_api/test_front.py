"""What is answered without the routes for clients, and what waits until these are made."""

import asyncio

import httpx
import pytest

from tests.support.websocket_servers import Served, bearer, serving


async def test_first_requests_that_come_together_are_all_answered(valkey_url: str) -> None:
    """The routes are made once, while the others wait."""
    async with serving(valkey_url, is_awaited=False) as server:
        while not await server.ready():
            await asyncio.sleep(0.02)
        await _ask_for_all(server)


async def _ask_for_all(server: Served) -> None:
    paths = ("/v1/accounts", "/openapi.json", "/asyncapi.json", "/docs", "/v1/accounts")
    answers = await asyncio.gather(*(server.http.get(path, headers=bearer()) for path in paths))
    assert [answer.status_code for answer in answers] == [200] * len(paths)
    assert answers[0].json() == answers[-1].json()


async def test_one_who_leaves_while_the_routes_are_made_takes_nobody_along(valkey_url: str) -> None:
    """The first request is cut off; the next one is answered."""
    async with serving(valkey_url, is_awaited=False) as server:
        while not await server.ready():
            await asyncio.sleep(0.02)
        with pytest.raises(httpx.TimeoutException):
            await server.http.get("/v1/accounts", headers=bearer(), timeout=0.02)
        answer = await server.http.get("/v1/accounts", headers=bearer())
        assert answer.status_code == 200


async def test_probes_pages_and_unknown_paths_need_no_routes(server: Served) -> None:
    """Each with the security headers, a refusal with its code."""
    for path, status in (("/health", 200), ("/", 200), ("/nothing", 404), ("/v2/portfolio", 404)):
        answer = await server.http.get(path)
        assert answer.status_code == status, path
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    refused = await server.http.post("/health")
    assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")
    assert (await server.http.get("/nothing")).json()["code"] == "not_found"
