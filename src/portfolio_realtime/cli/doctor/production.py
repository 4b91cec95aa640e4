"""Checks the guide's production list: in the settings, in Valkey, and from outside at the public address.

Run it with the settings of a server, in the task `operator` or on a machine that can reach Valkey.
"""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Network, ip_network
from typing import Final
from urllib.parse import urlsplit

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

from portfolio_realtime.cli.doctor.findings import Finding, Status
from portfolio_realtime.cli.doctor.limits import Asked, in_time
from portfolio_realtime.cli.doctor.machine import judged
from portfolio_realtime.config import Settings, listed, valkey_url
from portfolio_realtime.errors import StateRefused, StateUnavailable
from portfolio_realtime.state import State, keys, state_of
from portfolio_realtime.state.revocations import ALWAYS
from portfolio_realtime.state.server import Server, examine

OK, WARN, FAIL, SKIP = Status.OK, Status.WARN, Status.FAIL, Status.SKIP
TIMEOUT_S: Final = 10.0
REPLICAS: Final = 2
DRAIN_GRACE_S_MIN: Final = 10  # an AWS load balancer notices a stop about 5 s late
CLOUDFLARE: Final = IPv4Network("162.158.0.0/15")  # one of the networks from which its requests come
COUNTS: Final = {
    "symbol_collector": 1,
    "market_data_consumer": 1,
    "portfolio_calculator": 1,
    "websocket_server": 2,
}
HOLDER: Final = "doctor"
VALKEY_REMEDY: Final = "check REDIS_HOST, REDIS_USER, REDIS_PASSWORD, REDIS_SSL"
BALANCER_REMEDY: Final = "DNS, the balancer's group, its certificate: docs/runbook/unhealthy-servers.md"


async def check_production(settings: Settings, url: str) -> list[Finding]:
    """Check the whole list, in its order. `url` is the clients' address; "": no check from outside."""
    here, there = await asyncio.gather(_valkey(settings), _outside(settings, url))
    found = [*_settings(settings), *here, *there]
    commands = "portfolio-realtime loadtest --url URL, make faults"
    found.append(Finding("11 load, chaos", SKIP, "cannot be checked here", f"run once: {commands}"))
    return sorted(found, key=lambda finding: int(finding.check.split()[0]))


def _settings(settings: Settings) -> Iterator[Finding]:
    def check(name: str, is_met: bool, found: str, remedy: str, otherwise: Status = FAIL) -> Finding:
        return Finding(name, OK if is_met else otherwise, found, "" if is_met else remedy)

    is_tls = (
        settings.redis_ssl or settings.state_url.startswith("rediss://")
        if not settings.is_embedded
        else False
    )
    has_password = "@" in settings.state_url if not settings.is_embedded else False
    has_tokens = bool(settings.jwt_secret.get_secret_value() or settings.jwks_url)
    has_metrics = bool(settings.emf_deployment or settings.metrics_token.get_secret_value())
    yield check(
        "1 Valkey shared",
        not settings.is_embedded,
        "REDIS_HOST or REDIS_URL",
        "set one of them: an embedded Valkey is lost with its process",
    )
    yield check("1 Valkey by TLS", is_tls, f"REDIS_SSL={is_tls}", "REDIS_SSL=true")
    yield check(
        "1 Valkey's user",
        has_password,
        "REDIS_USER, REDIS_PASSWORD",
        "a user for each service: docs/security.md",
    )
    yield check(
        "2 production",
        not settings.alpaca_sandbox,
        f"ALPACA_SANDBOX={settings.alpaca_sandbox}",
        "ALPACA_SANDBOX=false, with production keys",
    )
    yield check(
        "4 drain",
        settings.drain_grace_seconds >= DRAIN_GRACE_S_MIN,
        f"DRAIN_GRACE_SECONDS={settings.drain_grace_seconds:g}",
        "10 behind an AWS load balancer, which notices a stop late",
        WARN,
    )
    yield check(
        "5 address",
        settings.websocket_host in ("0.0.0.0", "::"),
        f"WEBSOCKET_HOST={settings.websocket_host}",
        "WEBSOCKET_HOST=0.0.0.0: otherwise the balancer cannot reach it",
    )
    yield check(
        "5 proxies",
        bool(settings.trusted_proxies),
        f"TRUSTED_PROXIES={settings.trusted_proxies or 'none'}"[:80],
        "the balancer's network: otherwise all clients count as one address",
    )
    yield check(
        "8 metrics",
        has_metrics,
        "EMF_DEPLOYMENT or METRICS_TOKEN",
        "docs/monitoring.md: without metrics there are no alarms",
    )
    yield check(
        "8 log",
        settings.log_format == "json",
        f"LOG_FORMAT={settings.log_format}",
        "LOG_FORMAT=json, so that the log can be searched",
        WARN,
    )
    yield check(
        "9 tokens", has_tokens, "JWT_SECRET or JWKS_URL", "set one: otherwise only this machine is served"
    )
    yield check(
        "9 TLS required", settings.require_tls, f"REQUIRE_TLS={settings.require_tls}", "REQUIRE_TLS=true"
    )
    yield check(
        "9 origins",
        bool(settings.allowed_origins),
        f"ALLOWED_ORIGINS={settings.allowed_origins or 'none'}",
        "the exact origin of your page",
    )
    yield check(
        "9 tokens in URLs",
        not settings.allow_token_in_url,
        f"ALLOW_TOKEN_IN_URL={settings.allow_token_in_url}",
        "false: URLs end up in logs",
        WARN,
    )
    yield check("9 demo page", not settings.demo_page, f"DEMO_PAGE={settings.demo_page}", "false")


async def _valkey(settings: Settings) -> list[Finding]:
    if settings.is_embedded:
        return [Finding("1 Valkey", SKIP, "no shared Valkey is configured", "see above")]
    asked = Asked(f"Valkey at {valkey_url.place_of(settings.state_url)}", VALKEY_REMEDY)
    return _listed(await in_time("1 Valkey", asked, _shared(settings)))


async def _shared(settings: Settings) -> list[Finding]:
    try:
        server = await examine(settings.state_url, is_cluster=settings.is_cluster)
        async with _state(settings) as state:
            return [*_server(server), await _counts(state), await _revocations(state, settings)]
    except (StateUnavailable, StateRefused) as error:
        return [Finding("1 Valkey", FAIL, str(error), VALKEY_REMEDY)]


def _listed(found: list[Finding] | Finding) -> list[Finding]:
    return [found] if isinstance(found, Finding) else found


@asynccontextmanager
async def _state(settings: Settings) -> AsyncGenerator[State]:
    keys.use_prefix(settings.key_prefix)
    state = state_of(settings, HOLDER)
    try:
        yield state
    finally:
        await state.close()


def _server(server: Server) -> Iterator[Finding]:
    status, found, remedy = judged(server, f"{server.name} {server.version}, {server.round_trip_ms:.1f} ms")
    yield Finding("1 Valkey", status, found, remedy)
    enough = OK if server.replicas >= REPLICAS else WARN if server.replicas else FAIL
    yield Finding(
        "1 replicas",
        enough,
        f"{server.replicas} connected",
        "" if enough is OK else "two, in other zones (Multi-AZ)",
    )
    if server.saved_s is None:
        told = "aws elasticache describe-snapshots --replication-group-id ID"
        yield Finding("10 snapshots", SKIP, "this server does not report them", told)
    else:
        hours = (time.time() - server.saved_s) / 3600
        is_fresh = hours < 25
        remedy = (
            ""
            if is_fresh
            else "switch daily snapshots on (ElastiCache: retention; else `save` or appendonly)"
        )
        yield Finding("10 snapshots", OK if is_fresh else WARN, f"the newest is {hours:.0f} h old", remedy)


async def _counts(state: State) -> Finding:
    running = Counter(service for service, _, _ in await state.metrics.read_all())
    missing = [
        f"{name} {running[name]} of {count}" for name, count in COUNTS.items() if running[name] < count
    ]
    found = ", ".join(f"{name} {running[name]}" for name in COUNTS)
    remedy = "docs/runbook/task-not-running.md" if missing else ""
    return Finding("4 instances", FAIL if missing else OK, found, remedy)


async def _revocations(state: State, settings: Settings) -> Finding:
    since_s = (await state.revocations.known()).since_s
    if since_s is None:
        return Finding("10 revocations", WARN, "no server has started yet", "start one, and run this again")
    if since_s == ALWAYS or time.time() - since_s > settings.jwt_lifetime_max:
        return Finding("10 revocations", OK, "all are known")
    remedy = "older tokens are refused until they are restored: docs/runbook/revocations-lost.md"
    minutes = (time.time() - since_s) / 60
    return Finding("10 revocations", WARN, f"known for the last {minutes:.0f} min only", remedy)


async def _outside(settings: Settings, url: str) -> list[Finding]:
    parts = urlsplit(url)
    if not url:
        return [Finding("5 from outside", SKIP, "not checked", "--url https://realtime.example.com")]
    if parts.scheme != "https" or not parts.hostname:
        return [Finding("5 from outside", FAIL, url, "an address such as https://realtime.example.com")]
    asked = Asked(url, BALANCER_REMEDY)
    answers, websocket = await asyncio.gather(
        in_time("5 from outside", asked, _from_outside(url, settings)),
        in_time("7 WebSocket", asked, _websocket(parts.netloc)),
    )
    return [*_listed(answers), websocket]


async def _from_outside(url: str, settings: Settings) -> list[Finding]:
    try:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, verify=_context()) as http:
            return await _answers(http, settings)
    except httpx.HTTPError as error:
        return [Finding("5 from outside", FAIL, f"{url}: {type(error).__name__}: {error}", BALANCER_REMEDY)]


def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _answers(http: httpx.AsyncClient, settings: Settings) -> list[Finding]:
    health = await http.get("/health")
    found = [
        _answered(
            "5 /health", health.status_code, lambda code: code == 200, "docs/runbook/unhealthy-servers.md"
        )
    ]
    portfolio = (await http.get("/v1/portfolio/nobody")).status_code
    found.append(
        _answered(
            "9 no token", portfolio, lambda code: code == 401, "anyone can read accounts: set JWT_SECRET"
        )
    )
    metrics = (await http.get("/metrics")).status_code
    found.append(
        _answered("9 metrics closed", metrics, lambda code: code in (401, 403, 404), "METRICS_TOKEN")
    )
    has_hsts = "strict-transport-security" in health.headers
    found.append(
        Finding(
            "9 HSTS",
            OK if has_hsts else FAIL,
            "is sent" if has_hsts else "is not sent",
            "" if has_hsts else "REQUIRE_TLS=true",
        )
    )
    found.append(_colour("cf-ray" in health.headers, settings))
    return found


def _answered(check: str, code: int, is_good: Callable[[int], bool], remedy: str) -> Finding:
    return Finding(check, OK if is_good(code) else FAIL, f"HTTP {code}", "" if is_good(code) else remedy)


def _colour(is_orange: bool, settings: Settings) -> Finding:
    if not is_orange:
        return Finding(
            "6 Cloudflare", WARN, "grey: DNS only", "orange after testing: docs/deploy/cloudflare.md"
        )
    trusted = [ip_network(text, strict=False) for text in listed(settings.trusted_proxies)]
    if any(isinstance(network, IPv4Network) and CLOUDFLARE.subnet_of(network) for network in trusted):
        return Finding("6 Cloudflare", OK, "orange, and its networks are trusted")
    remedy = "add Cloudflare's networks to TRUSTED_PROXIES: make cloudflare ARGS=networks"
    return Finding("6 Cloudflare", FAIL, "orange, and all clients behind an edge share its limits", remedy)


async def _websocket(netloc: str) -> Finding:
    try:
        async with connect(f"wss://{netloc}/ws/portfolio/nobody", open_timeout=TIMEOUT_S, ssl=_context()):
            return Finding("7 WebSocket", OK, f"wss://{netloc} accepts a WebSocket")
    except (InvalidHandshake, OSError, TimeoutError) as error:
        remedy = "switch WebSockets on at Cloudflare; every proxy in between must support them"
        return Finding("7 WebSocket", FAIL, f"{type(error).__name__}: {error}", remedy)
