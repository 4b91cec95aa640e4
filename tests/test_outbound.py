"""Alpaca through the proxy of the environment, this very machine directly."""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncGenerator
from typing import Final

import httpx
import pytest

from portfolio_realtime.alpaca import http
from portfolio_realtime.alpaca.http import HttpClient, basic
from portfolio_realtime.errors import RequestFailed, SettingsError
from portfolio_realtime.market_data_consumer.stream import open_stream
from portfolio_realtime.outbound import proxy_of
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.symbol_collector.sources.broker_client import BrokerClient
from portfolio_realtime.websocket_server.access.transport import transport_to
from tests.conftest import StartSimulator
from tests.symbol_collector.scripted import scripted

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
ALPACA = "broker-api.alpaca.test"  # a name that only the proxy knows


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy but those of the test."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Proxy:
    """A forward proxy: CONNECT, and whole URLs; every host is this machine."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        self.asked.append(f"{method} {target}")
        port = int(target.rsplit(":", 1)[1].split("/")[0])
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = "/" + target.split("/", 3)[3]
            far_writer.write(head.replace(target.encode(), path.encode(), 1))
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while part := await source.read(65536):
            sink.write(part)
    sink.close()


@contextlib.asynccontextmanager
async def proxying() -> AsyncGenerator[tuple[Proxy, str]]:
    """A running proxy and its URL."""
    proxy = Proxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    yield proxy, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_alpaca_is_reached_through_the_proxy(
    simulator: StartSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REST by whole URLs, the market's WebSocket by CONNECT; the same host directly is out of reach."""
    running = await simulator(accounts=2, symbols=3)
    port = running.url.rsplit(":", 1)[1]
    url = f"http://{ALPACA}:{port}"
    auth = basic("sim-key", "sim-secret")
    async with proxying() as (proxy, proxy_url):
        monkeypatch.setenv("HTTP_PROXY", proxy_url)
        async with BrokerClient(url, auth) as client:
            assert len(await client.accounts()) == 2
        stream = await open_stream(f"ws://{ALPACA}:{port}/v2/iex", "stocks")
        await stream.log_in("sim-key", "sim-secret")
        await stream.close()
        assert any(line.startswith(f"GET {url}/v1/accounts") for line in proxy.asked)
        assert f"CONNECT {ALPACA}:{port}" in proxy.asked
        asked = len(proxy.asked)
        async with BrokerClient(running.url, auth) as client:
            assert len(await client.accounts()) == 2
        assert len(proxy.asked) == asked


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("https://alpaca.test", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("wss://alpaca.test", {"HTTPS_PROXY": "p:1"}, "http://p:1"),
        ("wss://alpaca.test", {"HTTP_PROXY": "http://p:1"}, None),
        ("https://alpaca.test", {"ALL_PROXY": "socks5://p:1"}, "socks5://p:1"),
        ("https://alpaca.test", {"ALL_PROXY": "socks5://p:1", "NO_PROXY": "alpaca.test"}, None),
        ("http://127.0.0.1:8900", {"HTTP_PROXY": "http://p:1", "ALL_PROXY": "socks5://p:1"}, None),
        ("ws://localhost:8900", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://[::1]:8900", {"HTTP_PROXY": "http://p:1"}, None),
    ],
)
def test_which_proxy_it_is(
    url: str, environment: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the scheme, else the one for all; never for this very machine."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(url) == proxy


@pytest.mark.parametrize("proxy", ["ftp://p:1", "http://", "socks4://p:1", "http://p:port"])
def test_what_is_no_proxy_is_refused(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the remedy, and without what may be its password."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(SettingsError, match="HTTPS_PROXY is not a usable proxy"):
        proxy_of("https://alpaca.test")


async def test_a_socks_proxy_needs_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What SOCKS needs is installed: an error of the network, not of the environment."""
    monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{free_port()}")
    async with HttpClient("http://alpaca.test") as client:
        with pytest.raises(RequestFailed, match="ProxyConnectionError"):
            await client.get("/")
    async with httpx.AsyncClient(transport=transport_to("http://alpaca.test")) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("http://alpaca.test")


OK: Final = b"HTTP/1.1 200 OK\r\n"
NEVER_WHOLE: Final = {
    "head": (OK, b"X-More: 1\r\n"),
    "body": (OK + b"Content-Length: 1000000\r\n\r\n", b" "),
    "body without end": (OK + b"\r\n", b" " * 10_000),
    "compressed body": (OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b" " * 10_000_000)),
}


@pytest.mark.parametrize("name", NEVER_WHOLE)
async def test_an_answer_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """However steadily its parts come: by time, and before it fills the memory."""
    begin, more = NEVER_WHOLE[name]
    is_large = len(more) > 1000
    monkeypatch.setattr(http, "BODY_BYTES_MAX", 1_000_000 if is_large else http.BODY_BYTES_MAX)
    if not is_large:
        monkeypatch.setattr(http, "ANSWER_S_MAX", 0.3)

    async def answer(target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while True:
            writer.write(more)
            await writer.drain()
            await asyncio.sleep(0.01)

    async with scripted(answer) as url, HttpClient(url) as client, asyncio.timeout(30):
        with pytest.raises(RequestFailed, match="more than 1000000 bytes" if is_large else "TimeoutError$"):
            await client.get("/")


async def test_a_stream_whose_head_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream may last, but it has to begin."""
    monkeypatch.setattr(http, "HEAD_S_MAX", 0.3)

    async def answer(target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        while True:
            writer.write(b"X-More: 1\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with scripted(answer) as url, HttpClient(url) as client, asyncio.timeout(30):
        with pytest.raises(RequestFailed, match=r"TimeoutError$"):
            await client.begin("/")


async def test_what_is_no_http_is_quoted_in_short() -> None:
    """A table and a log line have room for little."""

    async def answer(target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\xff" * 500)

    async with scripted(answer) as url, HttpClient(url) as client:
        with pytest.raises(RequestFailed) as failure:
            await client.get("/")
    assert len(str(failure.value)) < 300
