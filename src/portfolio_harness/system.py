"""Starts a whole system in one call: a simulated Alpaca, Valkey and the four services, each a process."""

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import httpx
import jwt

from portfolio_harness.oracle import Oracle
from portfolio_harness.valkey_kinds import ValkeyKind, Valkeys, valkeys
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import PortfolioRealtimeError, SettingsError
from portfolio_realtime.processes import end_all, start_module
from portfolio_realtime.run_services import SERVICES
from portfolio_realtime.service import together
from portfolio_realtime.supervisor import Supervisor, require_free
from portfolio_realtime.wire.messages import Disconnect

SIMULATOR_KEY: Final = "sim-key"
SIMULATOR_SECRET: Final = "sim-secret"  # noqa: S105  # the simulator's, not a secret
SIMULATOR_START_S_MAX: Final = 60.0
READY_S_MAX: Final = 180.0  # generous, for a busy machine
READY_ANSWER_S_MAX: Final = 5.0
KNOWN_S_MAX: Final = 300.0
KNOWN_POLL_S: Final = 1.0
READY_POLL_S: Final = 0.1
METRICS_S_MAX: Final = 10.0
TOKEN_S: Final = 24 * 3600
RATE_LIMIT_MIN: Final = 10_000  # the simulator's default
REQUESTS_PER_ACCOUNT: Final = 6  # per minute, so that reading all accounts at once takes half of the quota

CONFLATED: Final = "portfolio_realtime_conflated_total"
DISCONNECTS: Final = "portfolio_realtime_disconnects_total"
SLOW_CONSUMER: Final = f'code="{Disconnect.SLOW_CONSUMER.code}"'


class SystemFailed(PortfolioRealtimeError):
    """A part of the system did not start."""


@dataclass(frozen=True)
class System:
    """A running system."""

    url: str  # of the WebSocket server and its page
    simulator_url: str
    oracle: Oracle
    supervisor: Supervisor
    simulator_pid: int
    jwt_secret: str
    valkeys: Valkeys | None = None  # None: the supervisor has an embedded one

    @property
    def pids(self) -> dict[str, int]:
        """Name -> process id, of the simulator, each service, and Valkey (`valkey`, or `valkey-1` …)."""
        own = [] if self.valkeys is None else self.valkeys.pids
        nodes = {f"valkey-{number}": pid for number, pid in enumerate(own, start=1)}
        return {"simulator": self.simulator_pid, **self.supervisor.pids, **nodes}

    def pids_of(self, name: str) -> list[int]:
        """The process ids of a service, or of all nodes of `valkey`."""
        return [pid for each, pid in self.pids.items() if each.partition("-")[0] == name]

    def token_for(self, account_id: str) -> str:
        """A token for one account, valid for a day."""
        return token(self.jwt_secret, f"client of {account_id}", [account_id], TOKEN_S)


def token(secret: str, subject: str, accounts: Sequence[str], seconds: int) -> str:
    """An HS256 token that lets `subject` see these accounts (`*` for all), valid for `seconds`."""
    now_s = int(time.time())
    claims = {"sub": subject, "accounts": list(accounts), "iat": now_s, "exp": now_s + seconds}
    return jwt.encode(claims, secret, algorithm="HS256")


@contextlib.asynccontextmanager
async def running(
    simulator_options: Sequence[str],
    *,
    port: int,
    overrides: dict[str, str],
    valkey: ValkeyKind = ValkeyKind.EMBEDDED,
) -> AsyncGenerator[System, None]:
    """Start everything, yield once the server is ready, and stop everything afterwards.

    `port` 0 chooses a free port. `overrides` are settings by environment name. Raises SystemFailed,
    ClusterFailed, SettingsError.
    """
    port = require_free("127.0.0.1", port, remedy="--port ")
    jwt_secret = secrets.token_urlsafe(48)
    async with contextlib.AsyncExitStack() as stack:
        own = None if valkey is ValkeyKind.EMBEDDED else await stack.enter_async_context(kept(valkey))
        simulator, simulator_url = await start_simulator(simulator_options)
        stack.push_async_callback(end_all, [simulator])
        settings = {**settings_for(simulator_url, port, jwt_secret), "REDIS_URL": own.url if own else ""}
        supervisor = Supervisor({**os.environ, **settings, **overrides}, SERVICES)
        stack.push_async_callback(supervisor.stop)
        oracle = Oracle(simulator_url)
        stack.push_async_callback(oracle.close)
        await supervisor.start(is_embedded=own is None)
        url = f"http://127.0.0.1:{port}"
        await together(wait_ready(url), supervisor.wait())
        yield System(url, simulator_url, oracle, supervisor, simulator.pid, jwt_secret, own)


@contextlib.asynccontextmanager
async def kept(kind: ValkeyKind) -> AsyncGenerator[Valkeys]:
    """Run a server or a cluster, and restart a node that ends. Raises SettingsError, ClusterFailed."""
    own = valkeys(kind)
    await own.start()
    keeping = asyncio.create_task(own.keep())
    try:
        yield own
    finally:
        await cancel_until_ended([keeping])
        await own.stop()


def simulator_options(accounts: int, symbols: int, trades_per_second: float, seed: int) -> tuple[str, ...]:
    """Options of a simulator whose rate limit lets the collector read every account at once."""
    rate_limit = max(RATE_LIMIT_MIN, REQUESTS_PER_ACCOUNT * accounts)
    return (
        *("--accounts", str(accounts), "--symbols", str(symbols), "--seed", str(seed)),
        *("--trades-per-second", f"{trades_per_second:g}", "--rate-limit", str(rate_limit)),
    )


def settings_for(simulator_url: str, port: int, jwt_secret: str) -> dict[str, str]:
    """The settings that point the services at a simulator, by environment name."""
    return {
        "BROKER_API_KEY": SIMULATOR_KEY,
        "BROKER_SECRET_KEY": SIMULATOR_SECRET,
        "MARKET_API_KEY": "",
        "MARKET_SECRET_KEY": "",
        "APCA_API_KEY_ID": "",
        "APCA_API_SECRET_KEY": "",
        "ALPACA_BROKER_URL": simulator_url,
        "ALPACA_TRADING_URL": simulator_url,
        "ALPACA_DATA_URL": simulator_url,
        "ALPACA_STREAM_URL": simulator_url.replace("http", "ws", 1),
        "REDIS_HOST": "",
        "REDIS_URL": "",
        "REDIS_PORT": "6379",
        "REDIS_DB": "0",
        "REDIS_USER": "",
        "REDIS_PASSWORD": "",
        "REDIS_PASSWORD_FILE": "",
        "REDIS_SSL": "false",
        "REDIS_CLUSTER": "auto",
        "WEBSOCKET_HOST": "127.0.0.1",
        "WEBSOCKET_PORT": str(port),
        "JWT_SECRET": jwt_secret,
        "JWT_AUDIENCE": "",
        "JWT_ISSUER": "",
    }


async def start_simulator(options: Sequence[str]) -> tuple[asyncio.subprocess.Process, str]:
    """Start a simulator; returns its process and its URL. Raises SystemFailed, SettingsError."""
    process = await start_module(
        "alpaca_sim", dict(os.environ), "--port", "0", *options, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SIMULATOR_START_S_MAX):
            async for line in process.stdout:
                words = line.decode().split()
                if words[:3] == ["alpaca-sim", "ready", "on"]:
                    return process, words[3]
    except TimeoutError:
        await end_all([process])
        raise SystemFailed(f"the simulator was not ready within {SIMULATOR_START_S_MAX:.0f} s") from None
    raise SettingsError("the simulator did not start; its reason is above")


async def counted(url: str, name: str, label: str = "") -> float:
    """The sum of one metric over all services, from a server's `/metrics`; 0 when it cannot be read.

    With `label`, such as `code="4002"`, only series that contain this text.
    """
    async with httpx.AsyncClient(base_url=url, timeout=METRICS_S_MAX, trust_env=False) as client:
        with contextlib.suppress(httpx.HTTPError):
            lines = (await client.get("/metrics")).text.splitlines()
            chosen = [line for line in lines if line.split("{")[0] == name and label in line]
            return sum(float(line.rsplit(" ", 1)[1]) for line in chosen)
    return 0.0


async def wait_known(url: str, accounts: int, progress: Callable[[int], None]) -> None:
    """Wait until the symbol collector has a record of each account; `progress` gets their number.

    Raises SystemFailed.
    """
    give_up_s = time.monotonic() + KNOWN_S_MAX
    while (known := int(await counted(url, "portfolio_realtime_accounts"))) < accounts:
        if time.monotonic() > give_up_s:
            raise SystemFailed(f"{known} of {accounts} accounts are known after {KNOWN_S_MAX:.0f} s")
        progress(known)
        await asyncio.sleep(KNOWN_POLL_S)


async def wait_ready(url: str) -> None:
    """Wait until a server's `/ready` succeeds. Raises SystemFailed."""
    give_up_s = time.monotonic() + READY_S_MAX
    async with httpx.AsyncClient(base_url=url, timeout=READY_ANSWER_S_MAX, trust_env=False) as client:
        while time.monotonic() < give_up_s:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get("/ready")).is_success:
                    return
            await asyncio.sleep(READY_POLL_S)
    raise SystemFailed(f"{url}/ready did not succeed within {READY_S_MAX:.0f} s; the log above says why")
