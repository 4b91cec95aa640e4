"""E01, E02, E17, E18: origins, TLS, forwarding headers and operators' documents, on real sockets."""

import pytest

from portfolio_realtime.state import State
from tests.security.conftest import APP, METRICS_TOKEN
from tests.security.hostile_clients import (
    SECURE,
    refusal,
    through_proxy,
)
from tests.support.websocket_servers import (
    API_KEY,
    Served,
    bearer,
    serving,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_e01_origin_is_compared_exactly(behind_proxy: Served) -> None:
    """Nothing that only looks like an allowed page gets in; who is no browser sends none."""
    wrong = [
        "https://evil-app.example.com",
        "https://app.example.com.evil",
        "https://app.example.com:443",
        "https://app.example.com:8443",
        "http://app.example.com",
        "HTTPS://APP.EXAMPLE.COM",
        "https://app.example.com/",
        "https://app.example.com,https://evil.example",
        "https://user@app.example.com",
        "null",
        "",
    ]
    for number, origin in enumerate(wrong):
        headers = through_proxy(f"198.51.100.{number}", Origin=origin)
        assert await refusal(behind_proxy, **headers) == 403, origin
    assert await refusal(behind_proxy, **through_proxy("198.51.100.99", Origin=APP)) is None
    assert await refusal(behind_proxy, **through_proxy("198.51.100.98")) is None


async def test_e02_without_tls_there_is_no_way_in(behind_proxy: Served) -> None:
    """Only the trusted proxy says that TLS was there; answers ask browsers to insist on it."""
    assert await refusal(behind_proxy) == 403
    assert await refusal(behind_proxy, **{"X-Forwarded-Proto": "http"}) == 403
    assert await refusal(behind_proxy, **{"X-Forwarded-Proto": "https, http"}) == 403
    assert await refusal(behind_proxy, **{"X-Forwarded-Proto": "wss"}) is None
    for path in ("/v1/portfolio/a", "/", "/metrics"):
        assert (await behind_proxy.http.get(path, headers=bearer())).status_code == 403
    answer = await behind_proxy.http.get("/v1/portfolio/a", headers={**bearer(), **SECURE})
    assert answer.status_code in (200, 503)
    assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
    assert (await behind_proxy.http.get("/ready")).status_code == 200


async def test_e02_a_server_that_trusts_no_proxy_believes_nobody(shared: State) -> None:
    """With REQUIRE_TLS and no TRUSTED_PROXIES nothing gets in, whatever it says."""
    async with serving(shared.connection.url, require_tls=True) as server:
        assert await refusal(server, **SECURE) == 403


async def test_e17_forwarding_headers_of_strangers_are_ignored(
    own: Served, behind_proxy: Served, shared: State
) -> None:
    """A client behind the proxy cannot choose its address; one that is no proxy cannot choose anything."""
    spoofed = [through_proxy(f"203.0.113.{number}, 198.51.100.50") for number in range(20)]
    assert [await refusal(behind_proxy, **headers) for headers in spoofed][-1] == 429
    async with serving(shared.connection.url, connects_per_minute=5) as alone:
        statuses = [await refusal(alone, **through_proxy(f"203.0.113.{number}")) for number in range(8)]
        assert statuses == [None] * 5 + [429] * 3
    assert (await own.http.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"})).status_code == 403


async def test_e18_metrics_and_documents_are_for_operators(own: Served, shared: State) -> None:
    """This machine, the API key, METRICS_TOKEN; nobody else, and no user either."""
    outside = {"X-Forwarded-For": "198.51.100.60"}
    for path in ("/metrics", "/docs", "/openapi.json", "/asyncapi.json"):
        for headers in ({}, bearer(), {"X-API-Key": "guess"}, {"Authorization": f"Bearer {METRICS_TOKEN}x"}):
            refused = await own.http.get(path, headers={**outside, **headers})
            assert refused.status_code == 403, (path, headers)
        for headers in ({"X-API-Key": API_KEY}, {"Authorization": f"Bearer {METRICS_TOKEN}"}):
            assert (await own.http.get(path, headers={**outside, **headers})).status_code == 200
        assert (await own.http.get(path)).status_code == 200
    async with serving(shared.connection.url, public_docs=True) as public:
        assert (await public.http.get("/docs", headers=outside)).status_code == 200
        assert (await public.http.get("/metrics", headers=outside)).status_code == 403
