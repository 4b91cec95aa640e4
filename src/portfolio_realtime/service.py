"""Shared by all four services: settings, logs, state, signals, leases, recovery and shutdown.

A service is one coroutine function of its `Context` that runs until it is cancelled. After a failure in
RECOVERABLE it is called again after a pause: start-up and recovery are one code path.
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
from portfolio_realtime.state.agreement import AGREED_MS, READS, WIRE, WireProcess, WireVersions, earlier
from portfolio_realtime.state.clients import CLOSED_ALREADY
from portfolio_realtime.state.connection import Connection
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.tracing import Tracing, open_tracing

RECOVERABLE: Final = (StateUnavailable, LeaseLost, BrokerUnavailable, FeedUnavailable)
FINAL: Final = (SettingsError, StateRefused)  # a restart does not help
PAUSE_S_MIN: Final = 0.2
PAUSE_S_MAX: Final = 5.0
METRICS_S: Final = 2.0
AGREE_S: Final = 2.0  # between two renewals of what is agreed
LEAVE_S_MAX: Final = 0.5
STATE_WAIT_S: Final = 10.0
LEASE_POLL_S: Final = 0.25  # between two looks whether a lease is free
PART_AWAY_S: Final = 5.0  # until work that needs a part of a cluster is tried again
WIRE_POLL_S: Final = 1.0
CLOCK_OFF_S: Final = 2.0  # synchronized clocks never differ by more

log = structlog.get_logger()


@dataclass(frozen=True)
class Context:
    """The environment of a service."""

    settings: config.Settings
    state: State
    clock: Clock
    registry: CollectorRegistry
    instance: str
    tracing: Tracing | None = None  # None: tracing is off
    ending: asyncio.Event = field(default_factory=asyncio.Event)  # set by SIGTERM or Ctrl-C


Run = Callable[[Context], Awaitable[None]]


def main(name: str, run: Run, *, ends_itself: bool = False, **overrides: Any) -> NoReturn:
    """Run one service in this process until SIGTERM or Ctrl-C, then exit.

    The signal sets `Context.ending` and cancels the service. A service that `ends_itself` is cancelled by the
    second signal only, once it has begun: while Valkey is waited for, by the first.

    Exit codes: 0 ended as requested; 1 failed; 2 a restart does not help, because settings are wrong or
    Valkey refuses us. The reason is on stderr.
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
    ending, has_begun = asyncio.Event(), False

    async def begin(context: Context) -> None:
        nonlocal has_begun
        has_begun = True
        await run(context)

    work = asyncio.ensure_future(with_state(name, settings, begin, ending))

    def end() -> None:
        if ending.is_set() or not (ends_itself and has_begun):
            work.cancel()
        ending.set()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(tell_failure)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    with contextlib.suppress(asyncio.CancelledError):
        await work


def tell_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log exceptions that nothing awaited, except those of a connection that was lost or not made.

    uvloop reports some of these as fatal, or leaves them in a future of its own when a TLS handshake is cut,
    or when it still looks up a name after the attempt was given up; the user of the connection gets its own
    exception (MagicStack/uvloop#506).
    """
    error = context.get("exception")
    if CLOSED_ALREADY not in str(error) and not isinstance(error, (ConnectionError, socket.gaierror)):
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
                # This Valkey has just been started, so nothing can have been revoked in it.
                await state.revocations.confirm()
            await together(
                run(context),
                _keep_agreed(context),
                _leave_metrics(name, context),
                _embed_metrics(name, context),
            )
        finally:
            with contextlib.suppress(StateUnavailable, StateRefused, TimeoutError):
                async with asyncio.timeout(LEAVE_S_MAX):
                    await state.wire.leave()
            await state.close()
            if tracing is not None:
                await tracing.close()


async def _wait_ready(context: Context) -> None:
    try:
        await context.state.connection.wait_ready(STATE_WAIT_S, tell_away)
    except StateUnavailable as error:
        if error.is_nameless:
            raise StateRefused(str(error)) from error
        raise StateUnavailable(
            f"{error}; start it (redis-cli ping answers PONG), or unset REDIS_HOST and REDIS_URL to use an "
            "embedded one"
        ) from error


async def _agree(context: Context) -> None:
    """Agree on shared settings with the other processes, through Valkey.

    Waits while another process writes a version of the wire that this one cannot read. Raises SettingsError
    for different settings.
    """
    state, shards = context.state, context.settings.shards
    ours = agreed_settings(context.settings, state.wire)
    while True:
        try:
            here = await state.agreement.settings(ours)
            hindering = await state.wire.begin(context.clock.monotonic_s(), earlier(here))
            if hindering is None:
                shards_here = await state.agreement.shards(shards)
                break
        except StateUnavailable as error:
            tell_away(error)
            await asyncio.sleep(PAUSE_S_MIN)
        else:
            tell_other_wire(state.wire.reads, hindering)
            await asyncio.sleep(WIRE_POLL_S)
    if shards_here != shards:
        raise SettingsError(
            f"SHARDS={shards}, but this Valkey has {shards_here} shards: set SHARDS={shards_here}, or use an "
            "empty database"
        )
    for name, value in shared_settings(context.settings).items():
        if (theirs := here.get(name, value)) != value:
            raise SettingsError(
                f"{name}={value}, but the services on this Valkey run with {name}={theirs}: set that, or "
                f"stop all of them for {AGREED_MS // 1000} s to change it"
            )


def shared_settings(settings: config.Settings) -> dict[str, str]:
    """The settings that must be equal in all processes of a system, by name."""
    return {"LEASE_MS": str(settings.lease_ms), "HISTORY_INTERVAL": str(settings.history_interval)}


def agreed_settings(settings: config.Settings, wire: WireVersions) -> dict[str, str]:
    """The shared settings, and which version of the wire this process writes and reads."""
    return {**shared_settings(settings), WIRE: str(wire.announced), READS: wire.reads}


def tell_other_wire(reads: str, hindering: WireProcess) -> None:
    """Log, once a minute, that this process waits, because another one writes what it cannot read."""
    log.warning(
        "waiting for a service of another version: it writes messages in a format that this one cannot read",
        reads=reads,
        theirs=hindering.writes,
        process=hindering.name,
        remedy=f"if this lasts for more than {AGREED_MS // 1000} s, the two releases are too far apart: stop "
        "the others first, or go by the release between",
        **logs.once("wire"),
    )


@contextlib.asynccontextmanager
async def _state_url(settings: config.Settings) -> AsyncGenerator[str, None]:
    if not settings.is_embedded:
        yield settings.state_url
        return
    warn_of_unused_password(settings)
    # With a configured Valkey, the package of the embedded server need not be installed.
    from portfolio_realtime.state.embedded import EmbeddedServer

    async with EmbeddedServer() as server:
        log.warning("this Valkey serves only this process; set REDIS_HOST to share one", url=server.url)
        yield server.url


def warn_of_unused_password(settings: config.Settings) -> None:
    """Log that an embedded Valkey has no password, where one is set. It may be meant for other programs."""
    if settings.is_embedded and settings.redis_password.get_secret_value():
        log.warning(
            "REDIS_PASSWORD is not used without REDIS_HOST: the embedded Valkey has none; set REDIS_HOST"
        )


def tell_away(error: StateUnavailable) -> None:
    """Log that Valkey is unavailable: one line per reason and minute, wherever it is noticed."""
    log.warning("waiting for Valkey", reason=str(error), **logs.once(error.word or "unreachable"))


def spare(error: StateUnavailable, *, is_cluster: bool) -> None:
    """Log that a part of a cluster is away, so that the caller goes on without it.

    With a single server everything is away: `error` is raised, so that everything starts again.
    """
    if not is_cluster:
        raise error
    tell_away(error)


async def spared(part: Callable[[], Awaitable[None]], connection: Connection) -> None:
    """Run `part`, again every PART_AWAY_S while the part of a cluster that it needs is away.

    Raises StateUnavailable of a single server.
    """
    while True:
        try:
            return await part()
        except StateUnavailable as error:
            spare(error, is_cluster=connection.is_cluster)
        await asyncio.sleep(PART_AWAY_S)


def tell_clock(ahead_s: float, gauge: Gauge) -> None:
    """Set the gauge to how far this machine's clock is ahead of Valkey's; log a large difference."""
    gauge.set(ahead_s)
    if abs(ahead_s) > CLOCK_OFF_S:
        log.error(
            "the clocks of this machine and of Valkey differ: prices and tokens use this machine's clock",
            ahead_of_valkey_s=round(ahead_s, 1),
            **logs.once("clock"),
        )


async def _keep_agreed(context: Context) -> None:
    agreement, wire, shards = context.state.agreement, context.state.wire, context.settings.shards
    written, silent = wire.writes, list[WireProcess]()
    gauge = telemetry.wire_version(context.registry)

    async def keep() -> None:
        silent[:] = await agreement.keep(agreed_settings(context.settings, wire))

    async def keep_shards() -> None:
        """Write the number again if it was lost: else a process with another one would be let in."""
        if (here := await agreement.shards(shards)) != shards:
            log.error(
                "others divide accounts into another number of shards", shards=here, **logs.once("shards")
            )

    while True:
        # On a cluster, the part that holds one of them may be away alone.
        for step in (keep, keep_shards, lambda: wire.follow(context.clock.monotonic_s(), silent)):
            try:
                await step()
            except StateUnavailable as error:
                tell_away(error)
        if wire.writes != written:
            log.info(
                "writes another version of the wire", writes=wire.writes, before=written, reads=wire.reads
            )
            written = wire.writes
        gauge.set(wire.writes)
        await asyncio.sleep(AGREE_S)


async def _leave_metrics(name: str, context: Context) -> None:
    away_since_s: float | None = None
    clock_ahead = telemetry.clock_ahead(context.registry)
    while True:
        now_s = context.clock.monotonic_s()
        try:
            text = telemetry.exposition(context.registry)
            await context.state.metrics.write(name, context.instance, text)
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
    """Run parts concurrently. When one ends or fails, cancel the others and raise its failure."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_until_ended(tasks)
    for task in done:
        task.result()


async def keep_running(attempt: Callable[[], Awaitable[None]], clock: Clock, what: str) -> NoReturn:
    """Call `attempt` repeatedly, also after a RECOVERABLE failure, with growing pauses (`Backoff`).

    `what` names it in the log. Raises any other failure.
    """
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
    standing_by: Callable[[], Coroutine[Any, Any, NoReturn]] | None = None,
) -> None:
    """Wait for a lease, run `work` while it is held, and release it.

    `standing_by` runs while another process holds the lease, and has ended before `work` begins. Raises
    LeaseLost when the lease is lost, StateUnavailable, and whatever `work` and `standing_by` raise.
    """
    leases, taken = context.state.leases, list[Lease]()

    async def take() -> None:
        while (lease := await leases.acquire(name, stands_by=True)) is None:
            await asyncio.sleep(LEASE_POLL_S)
        taken.append(lease)

    try:
        if (lease := await leases.acquire(name)) is not None:
            taken.append(lease)
        else:
            await together(take(), *([] if standing_by is None else [standing_by()]))
        log.info("lease acquired", lease=name, fencing_token=taken[0].fencing_token)
        await together(work(taken[0]), keep_lease(context, taken[0]))
    finally:
        for lease in taken:
            with contextlib.suppress(StateUnavailable):
                await leases.release(lease)


async def keep_lease(context: Context, lease: Lease) -> NoReturn:
    """Renew a lease until it is lost: another owner has it, or it expired while Valkey was unavailable.

    Raises LeaseLost.
    """
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
