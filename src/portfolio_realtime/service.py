"""What all four services do alike: settings, logs, state, signals, leases, recovery, a clean end.

A service is one coroutine function of its `Context` that runs until it is cancelled. When the world fails it
(`RECOVERABLE`), it is called again after a pause: start-up and recovery are one code path.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import structlog
import uvloop
from prometheus_client import CollectorRegistry, Gauge

from portfolio_realtime import config, logs, telemetry
from portfolio_realtime.backoff import Backoff
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import Clock, SystemClock
from portfolio_realtime.embedded_metrics import EmbeddedMetrics, write_each_minute
from portfolio_realtime.errors import (
    BrokerUnavailable,
    FeedUnavailable,
    LeaseLost,
    PortfolioRealtimeError,
    SettingsError,
    StateRefused,
    StateUnavailable,
)
from portfolio_realtime.exit_codes import FAILED, OK, SETTINGS
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.agreement import AGREED_MS, NO_VERSION, WIRE, WIRE_VERSION
from portfolio_realtime.state.clients import CLOSED_ALREADY
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.tracing import Tracing, open_tracing

RECOVERABLE: Final = (StateUnavailable, LeaseLost, BrokerUnavailable, FeedUnavailable)
FINAL: Final = (SettingsError, StateRefused)  # a new start cannot mend these
PAUSE_S_MIN: Final = 0.2
PAUSE_S_MAX: Final = 5.0
METRICS_S: Final = 2.0
STATE_WAIT_S: Final = 10.0
LEASE_POLL_S: Final = 0.25
WIRE_POLL_S: Final = 1.0
CLOCK_OFF_S: Final = 2.0  # by which clocks that somebody keeps right never differ

log = structlog.get_logger()


@dataclass(frozen=True)
class Context:
    """What a service is given."""

    settings: config.Settings
    state: State
    clock: Clock
    registry: CollectorRegistry
    instance: str
    tracing: Tracing | None = None  # of the prices that are followed
    ending: asyncio.Event = field(default_factory=asyncio.Event)  # set by a signal where `ends_itself`


Run = Callable[[Context], Awaitable[None]]


def main(name: str, run: Run, *, ends_itself: bool = False, **overrides: Any) -> NoReturn:
    """Run one service in this process until SIGTERM or Ctrl-C, then exit.

    A service that `ends_itself` is told by `Context.ending`, and cancelled by the second signal only.

    Exit codes: 0 asked to end, 1 failed, 2 a new start cannot help: wrong settings, or Valkey refuses us; the
    reason is on stderr.
    """
    try:
        settings = config.load(**overrides)
    except SettingsError as error:
        logs.say(str(error))
        sys.exit(SETTINGS)
    logs.configure(name, settings.log_level, settings.log_format)
    try:
        uvloop.run(_serve(name, settings, run, ends_itself=ends_itself))
    except PortfolioRealtimeError as error:
        log.error("ended", reason=str(error))
        sys.exit(SETTINGS if isinstance(error, FINAL) else FAILED)
    except KeyboardInterrupt:
        pass
    sys.exit(OK)


async def _serve(name: str, settings: config.Settings, run: Run, *, ends_itself: bool) -> None:
    ending = asyncio.Event()
    work = asyncio.ensure_future(with_state(name, settings, run, ending))

    def end() -> None:
        if ending.is_set() or not ends_itself:
            work.cancel()
        ending.set()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(tell_failure)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    with contextlib.suppress(asyncio.CancelledError):
        await work


def tell_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody awaited, but for TLS that has a word left for a connection that is gone.

    uvloop calls that a fatal error; who uses the connection is told in a way of its own
    (MagicStack/uvloop#506).
    """
    if CLOSED_ALREADY not in str(context.get("exception")):
        loop.default_exception_handler(context)


async def with_state(name: str, settings: config.Settings, run: Run, ending: asyncio.Event) -> None:
    """Run one service with its state until it ends. Raises PortfolioRealtimeError."""
    instance = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    keys.use_prefix(settings.key_prefix)
    tracing = open_tracing(name, instance, settings.otel_traces_ratio, settings.otel_exporter_otlp_endpoint)
    async with _state_url(settings) as url:
        state = open_state(
            url,
            holder=f"{name}:{instance}",
            shards=settings.shards,
            lease_ms=settings.lease_ms,
            is_cluster=False if settings.is_embedded else settings.is_cluster,
        )
        context = Context(settings, state, SystemClock(), CollectorRegistry(), instance, tracing, ending)
        context.registry.register(telemetry.LOG_EVENTS)
        try:
            await _wait_ready(context)
            await _agree(context)
            if settings.is_embedded:
                await state.revocations.confirm()  # nobody can have revoked anything in what we have started
            await together(run(context), _leave_metrics(name, context), _embed_metrics(name, context))
        finally:
            await state.close()
            if tracing is not None:
                await tracing.close()


async def _wait_ready(context: Context) -> None:
    try:
        await context.state.connection.wait_ready(STATE_WAIT_S, tell_away)
    except StateUnavailable as error:
        if error.is_nameless:
            raise StateRefused(f"{error} No machine has that name: check REDIS_HOST, or REDIS_URL") from error
        raise StateUnavailable(
            f"{error}; start it (redis-cli ping answers PONG), or unset REDIS_HOST and REDIS_URL to have an "
            "embedded one"
        ) from error


async def _agree(context: Context) -> None:
    """Write SHARDS and the like where nobody has. Raises SettingsError where others have other ones."""
    ours, shards = agreed_settings(context.settings), context.settings.shards
    while True:
        try:
            here = await context.state.agreement.settings(ours)
            if (theirs := here.get(WIRE, NO_VERSION)) == ours[WIRE]:
                shards_here = await context.state.agreement.shards(shards)
                break
        except StateUnavailable as error:
            tell_away(error)
            await asyncio.sleep(PAUSE_S_MIN)
        else:
            tell_other_wire(ours[WIRE], theirs)
            await asyncio.sleep(WIRE_POLL_S)
    if shards_here != shards:
        raise SettingsError(
            f"SHARDS={shards}, but in this Valkey accounts are divided into {shards_here}: set "
            f"SHARDS={shards_here}, or use an empty database"
        )
    for name, value in ours.items():
        if (theirs := here.get(name, value)) != value:
            raise SettingsError(
                f"{name}={value}, but the services that run in this Valkey have {name}={theirs}: set "
                f"that, or stop all of them for {AGREED_MS // 1000} s to change it"
            )


def agreed_settings(settings: config.Settings) -> dict[str, str]:
    """Settings in which all processes of one system must be alike, by name, and the version of their wire."""
    return {
        "LEASE_MS": str(settings.lease_ms),
        "HISTORY_INTERVAL": str(settings.history_interval),
        WIRE: WIRE_VERSION,
    }


def tell_other_wire(ours: str, theirs: str) -> None:
    """Log once a minute that we wait for processes which we would not understand, nor they us."""
    log.warning(
        "waiting for services of another version to end: they tell each other things in another form",
        wire=ours,
        theirs=theirs,
        remedy=f"stop them; {AGREED_MS // 1000} s later we begin",
        **logs.once("wire"),
    )


@contextlib.asynccontextmanager
async def _state_url(settings: config.Settings) -> AsyncGenerator[str, None]:
    if not settings.is_embedded:
        yield settings.state_url
        return
    from portfolio_realtime.state.embedded import EmbeddedServer  # beside others nobody needs its package

    async with EmbeddedServer() as server:
        log.warning("this Valkey serves only this process; set REDIS_HOST to share one", url=server.url)
        yield server.url


def tell_away(error: StateUnavailable) -> None:
    """Log that Valkey is away: one line for each reason within a minute, whoever notices it."""
    log.warning("waiting for Valkey", reason=str(error), **logs.once(error.word or "unreachable"))


def tell_clock(ahead_s: float, gauge: Gauge) -> None:
    """Say that this machine's clock is not Valkey's, once a minute."""
    gauge.set(ahead_s)
    if abs(ahead_s) > CLOCK_OFF_S:
        log.error(
            "the clocks of this machine and of Valkey differ: prices and tokens use this machine's clock",
            ahead_of_valkey_s=round(ahead_s, 1),
            **logs.once("clock"),
        )


async def _leave_metrics(name: str, context: Context) -> None:
    away_since_s: float | None = None
    agreed, clock_ahead = agreed_settings(context.settings), telemetry.clock_ahead(context.registry)
    while True:
        now_s = context.clock.monotonic_s()
        try:
            text = telemetry.exposition(context.registry)
            await context.state.metrics.write(name, context.instance, text)
            await context.state.agreement.keep(agreed)
            tell_clock(await context.state.connection.clock_ahead_s(), clock_ahead)
        except StateUnavailable as error:
            away_since_s = now_s if away_since_s is None else away_since_s
            tell_away(error)
        else:
            if away_since_s is not None:
                log.info("Valkey is back", after_s=round(now_s - away_since_s, 1))
            away_since_s = None
        await asyncio.sleep(METRICS_S)


async def _embed_metrics(name: str, context: Context) -> None:
    deployment = context.settings.emf_deployment
    if not deployment:
        await asyncio.Event().wait()
    lines = EmbeddedMetrics(deployment, name, context.instance, context.registry)
    await write_each_minute(lines, context.clock.now_ns, logs.Writer(sys.stdout).put_line)


async def together(*parts: Awaitable[Any]) -> None:
    """Run parts side by side; when one ends or fails, the others are cancelled and its failure is raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_until_ended(tasks)
    for task in done:
        task.result()


async def keep_running(attempt: Callable[[], Awaitable[None]], clock: Clock, what: str) -> NoReturn:
    """Call `attempt` again and again; after a RECOVERABLE failure with a growing, jittered pause."""
    backoff = Backoff(PAUSE_S_MIN, PAUSE_S_MAX)
    while True:
        started_s = clock.monotonic_s()
        try:
            await attempt()
        except StateUnavailable as error:
            tell_away(error)
        except RECOVERABLE as error:
            log.warning("starting again", what=what, reason=str(error), kind=type(error).__name__)
        await asyncio.sleep(backoff.after_s(clock.monotonic_s() - started_s))


async def under_lease(
    context: Context,
    name: str,
    work: Callable[[Lease], Coroutine[Any, Any, None]],
    standing_by: Callable[[], None] | None = None,
) -> None:
    """Wait for a lease, then do `work` for as long as it is ours; `standing_by` is called while it is not.

    Raises LeaseLost when it is lost, StateUnavailable, and whatever `work` raises.
    """
    lease = await context.state.leases.acquire(name)
    while lease is None:
        if standing_by is not None:
            standing_by()
        await asyncio.sleep(LEASE_POLL_S)
        lease = await context.state.leases.acquire(name, stands_by=True)
    log.info("lease acquired", lease=name, fencing_token=lease.fencing_token)
    try:
        await together(work(lease), keep_lease(context, lease))
    finally:
        with contextlib.suppress(StateUnavailable):
            await context.state.leases.release(lease)


async def keep_lease(context: Context, lease: Lease) -> NoReturn:
    """Renew a lease until it is lost: taken, or run out while Valkey is out of reach. Raises LeaseLost."""
    renewed_s = context.clock.monotonic_s()
    while True:
        await asyncio.sleep(context.settings.lease_renew_ms / 1000)
        try:
            if not await context.state.leases.renew(lease):
                raise LeaseLost(f"lease {lease.name} is lost")
            renewed_s = context.clock.monotonic_s()
        except StateUnavailable:
            if context.clock.monotonic_s() - renewed_s > context.settings.lease_ms / 1000:
                raise LeaseLost(f"lease {lease.name} expired while Valkey did not answer") from None
