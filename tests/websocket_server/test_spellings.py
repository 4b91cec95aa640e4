"""One thing, one spelling: addresses, origins, hosts, types, methods; and a port on both families."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from portfolio_realtime import config
from portfolio_realtime.websocket_server.access.client_address import NetworkRules, plain_address
from tests.support.websocket_servers import Calculator, Served, bearer, serving

ROOT = Path(__file__).resolve().parents[2]
PAGE = "https://app.example.com"


def rules(**settings: str) -> NetworkRules:
    return NetworkRules(config.load(_env_file=None, **settings))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("203.0.113.9", "203.0.113.9"),
        ("unknown", "unknown"),
    ],
)
def test_an_address_has_one_spelling(text: str, address: str) -> None:
    """IPv4 that came by way of IPv6 is IPv4."""
    assert plain_address(text) == address


@pytest.mark.parametrize(
    "hops",
    [
        "203.0.113.9, 10.1.2.3",
        "203.0.113.9, ::ffff:10.1.2.3",
        "::ffff:203.0.113.9",
        "[::ffff:203.0.113.9]:443",
        "203.0.113.9,",
        "203.0.113.9,, 10.1.2.3",
    ],
)
def test_a_proxy_is_known_in_every_spelling(hops: str) -> None:
    """And so is the client behind it."""
    network = rules(trusted_proxies="127.0.0.1,10.0.0.0/8")
    assert network.address("127.0.0.1", {"x-forwarded-for": hops}) == "203.0.113.9"


@pytest.mark.parametrize(
    ("allowed", "origin", "host", "is_allowed"),
    [
        ("", "http://[::1", "app.example.com", False),
        ("", "http://a]b", "a]b", False),
        ("", PAGE, "app.example.com:443", True),
        ("", "http://app.example.com", "app.example.com:80", True),
        ("", PAGE, "app.example.com:80", False),
        ("", PAGE, "app.example.com:8443", False),
        (f"{PAGE}:443/", PAGE, "live.example.com", True),
        (PAGE, "https://live.example.com", "live.example.com", True),
        (PAGE, "https://other.example.com", "live.example.com", False),
        (PAGE, "null", "live.example.com", False),
    ],
)
def test_a_page_is_known_with_and_without_the_usual_port(
    allowed: str, origin: str, host: str, is_allowed: bool
) -> None:
    """A list does not shut out the server's own page."""
    network = rules(allowed_origins=allowed)
    assert network.is_origin_allowed("203.0.113.9", {"origin": origin, "host": host}) is is_allowed


async def test_head_is_there_wherever_get_is(server: Served, calculator: Calculator) -> None:
    """The same head, and no body; not for a stream, which has no end."""
    await calculator.publish("a", 1)
    for path in ("/health", "/ready", "/v1/portfolio/a"):
        got = await server.http.get(path, headers=bearer())
        head = await server.http.head(path, headers=bearer())
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
    assert (await server.http.head("/v1/portfolio/a/stream", headers=bearer())).is_client_error


async def test_a_missing_upgrade_is_said(server: Served) -> None:
    """A proxy that does not pass it on is told what is missing."""
    answer = await server.http.get("/ws/portfolio/a", headers=bearer())
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert answer.json()["code"] == "upgrade_required"


async def test_both_families_are_served(valkey_url: str) -> None:
    """`::` listens on both, and the container's health check finds it."""
    async with serving(valkey_url, websocket_host="::") as both:
        for host in ("127.0.0.1", "[::1]"):
            assert (await both.http.get(f"http://{host}:{both.port}/health")).status_code == 200
        command = (sys.executable, "-I", "-S", str(ROOT / "deploy/image/health.py"))
        environment = {"WEBSOCKET_HOST": "::", "WEBSOCKET_PORT": str(both.port), "RUN_SERVICES_PORT": "1"}
        process = subprocess.Popen(command, env=environment)
        assert await asyncio.to_thread(process.wait, 30) == 0
