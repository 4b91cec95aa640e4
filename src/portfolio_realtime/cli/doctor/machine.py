"""Checks Valkey and the ports on which the server will listen."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import httpx

from portfolio_realtime.cli.doctor.findings import Finding, Status
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import StateRefused, StateUnavailable
from portfolio_realtime.state.embedded import EmbeddedServer
from portfolio_realtime.state.server import Server, examine

MAJOR_VERSION_MIN: Final = 7
ROUND_TRIP_MS_WARN: Final = 5.0
NO_EVICTION: Final = "noeviction"
HEALTH_TIMEOUT_S: Final = 2.0
SHOWN_MAX: Final = 5  # missing rights
SHARED_REMEDY: Final = (
    "check REDIS_HOST, REDIS_PORT, REDIS_USER, REDIS_PASSWORD and REDIS_SSL (or REDIS_URL); "
    "without REDIS_HOST and REDIS_URL, an embedded one is started"
)


async def state(settings: Settings) -> Finding:
    """Check Valkey: present, new enough, near enough, and keeping its data."""
    try:
        async with _url(settings) as url:
            server = await examine(url, is_cluster=False if settings.is_embedded else settings.is_cluster)
    except StateRefused as error:
        refusal, _, remedy = str(error).rpartition(": ")
        return Finding("Valkey", Status.FAIL, refusal, remedy)
    except StateUnavailable as error:
        if error.word or error.is_part:
            return Finding("Valkey", Status.FAIL, str(error), "wait: it passes, unless it names a remedy")
        remedy = "apt-get install redis-server, or set REDIS_HOST" if settings.is_embedded else SHARED_REMEDY
        return Finding("Valkey", Status.FAIL, str(error), remedy)
    place = "embedded" if settings.is_embedded else "a cluster" if server.is_cluster else "shared"
    found = f"{place}: {server.name} {server.version}, {server.round_trip_ms:.1f} ms per round trip"
    return Finding("Valkey", *judged(server, found))


def judged(server: Server, found: str) -> tuple[Status, str, str]:
    """Whether this server is suitable: status, what was found, remedy."""
    if server.major_version < MAJOR_VERSION_MIN:
        return Status.FAIL, found, f"use version {MAJOR_VERSION_MIN} or newer of Valkey or Redis"
    if server.replica:
        return Status.FAIL, f"{found}; a replica, which refuses writes", "set REDIS_HOST to the primary"
    enough = [service for service, words in server.lacking.items() if not words]
    if server.lacking and not enough:
        service, words = min(server.lacking.items(), key=lambda one: len(one[1]))
        remedy = f"set the list of docs/security.md for this service's user: {service} lacks {_few(words)}"
        return Status.FAIL, f"{found}; the rights of this user are enough for no service", remedy
    if len(enough) < len(server.lacking):
        found = f"{found}; the rights of this user are enough for {', '.join(enough)}"
    if server.eviction_policy not in ("", NO_EVICTION):
        remedy = (
            f"it may forget accounts when it is full: CONFIG SET maxmemory-policy {NO_EVICTION}; where "
            f"CONFIG is restricted (ElastiCache), maxmemory-policy={NO_EVICTION} in its parameter group"
        )
        return Status.WARN, f"{found}; evicts by {server.eviction_policy}", remedy
    if server.round_trip_ms > ROUND_TRIP_MS_WARN:
        return Status.WARN, found, "values will lag: move it to the same network, or use the embedded one"
    return Status.OK, found, ""


def _few(words: Sequence[str]) -> str:
    more = f" and {len(words) - SHOWN_MAX} more" if len(words) > SHOWN_MAX else ""
    return f"{' '.join(words[:SHOWN_MAX])}{more}"


@asynccontextmanager
async def _url(settings: Settings) -> AsyncGenerator[str]:
    if not settings.is_embedded:
        yield settings.state_url
        return
    async with EmbeddedServer() as server:
        yield server.url


async def ports(settings: Settings) -> list[Finding]:
    """Check whether the ports are free, or used by our own server."""
    wanted = {
        "RUN_SERVICES_PORT": settings.run_services_port,
        "WEBSOCKET_PORT": settings.websocket_port,
    }
    return list(
        await asyncio.gather(*(_port(settings.websocket_host, name, port) for name, port in wanted.items()))
    )


async def _port(host: str, name: str, port: int) -> Finding:
    check = f"port {port}"
    if port == 0:
        return Finding(check, Status.OK, f"{name}: the system chooses a free one")
    if (refusal := _refusal(host, port)) is None:
        return Finding(check, Status.OK, f"{name}: free on {host}")
    if await _is_ours(port):
        return Finding(check, Status.OK, f"{name}: our own server listens there")
    # run_services uses the first port. Only a server that runs alone uses the second.
    status = Status.FAIL if name == "RUN_SERVICES_PORT" else Status.WARN
    return Finding(check, status, f"{name}: {host}:{port}: {refusal}", f"set {name} to another port")


def _refusal(host: str, port: int) -> str | None:
    """Why a server cannot listen there; None if it can."""
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(address[0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address[4])
    except OSError as error:
        return error.strerror or str(error)
    return None


async def _is_ours(port: int) -> bool:
    try:
        # The limit of httpx begins anew with every byte.
        async with (
            asyncio.timeout(HEALTH_TIMEOUT_S),
            httpx.AsyncClient(timeout=None, trust_env=False) as http,  # noqa: S113
        ):
            answer = await http.get(f"http://127.0.0.1:{port}/health")
            return answer.is_success and answer.json()["status"] == "ok"
    except (httpx.HTTPError, TimeoutError, ValueError, TypeError, KeyError):
        return False
