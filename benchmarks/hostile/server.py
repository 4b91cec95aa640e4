"""A real server process that strangers attack over sockets and HTTP; afterwards it must be as it was."""

import asyncio
import contextlib
import random
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import hypothesis
import jwt
import msgspec
import requests
import schemathesis
from hypothesis import HealthCheck

from benchmarks.hostile.inputs import KINDS
from benchmarks.hostile.inputs import requests as upgrades
from benchmarks.hostile.victim import OWN_CODES, Surprise, judge
from benchmarks.raw_websocket import CLOSE, CUT, RawClient
from portfolio_realtime.config import child_environment
from portfolio_realtime.model import Account, Publication
from portfolio_realtime.state import keys, open_state
from portfolio_realtime.state.embedded import EmbeddedServer, free_port
from portfolio_realtime.wire.examples import POSITIONS_EXAMPLE
from portfolio_realtime.wire.messages import is_account_id

READY_S_MAX: Final = 60.0
AT_ONCE: Final = 20  # connections
HTTP_S_MAX: Final = 20.0
LEASE_MS: Final = 600_000
SHARDS: Final = 16
ACCOUNT_ID: Final = "a"
STREAM: Final = "/v1/portfolio/{account_id}/stream"  # never ends
STREAM_BYTES: Final = 1024  # of its beginning
UNDOCUMENTED: Final = frozenset({400, 405, 431})  # of any HTTP server: no request, no such method, too long


@dataclass(frozen=True)
class Attacked:
    """A server process under attack."""

    port: int
    pid: int
    secret: str
    api_key: str

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def bearer(self) -> dict[str, str]:
        """Good credentials."""
        claims = {"sub": secrets.token_hex(8), "exp": int(time.time()) + 600, "accounts": [ACCOUNT_ID]}
        return {"Authorization": f"Bearer {jwt.encode(claims, self.secret, 'HS256')}"}

    def resident_bytes(self) -> int:
        """Its memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * 4096


@contextlib.asynccontextmanager
async def attacked() -> AsyncGenerator[Attacked]:
    """A server with one account. Raises Surprise when it did not survive or has logged a stack trace."""
    async with EmbeddedServer() as valkey:
        with TemporaryDirectory(prefix="hostile-") as folder:
            log = Path(folder) / "server.log"
            with log.open("wb") as output:
                secret, api_key, port = secrets.token_urlsafe(48), secrets.token_urlsafe(48), free_port()
                process = subprocess.Popen(  # noqa: ASYNC220  # returns at once
                    [sys.executable, "-m", "portfolio_realtime.websocket_server"],
                    stderr=output,
                    env=child_environment(
                        REDIS_URL=valkey.url,
                        JWT_SECRET=secret,
                        API_KEY_SECRET=api_key,
                        WEBSOCKET_HOST="127.0.0.1",
                        WEBSOCKET_PORT=str(port),
                        LOG_LEVEL="warning",
                    ),
                )
            try:
                await _add_account(valkey.url)
                target = Attacked(port, process.pid, secret, api_key)
                await _wait_ready(target, process, log)
                yield target
                _check_survived(target, process, log)
            finally:
                process.terminate()
                await asyncio.to_thread(process.wait, 10)


async def _add_account(url: str) -> None:
    state = open_state(url, holder="hostile", shards=SHARDS, lease_ms=LEASE_MS)
    lease = await state.leases.acquire("symbol_collector")
    assert lease is not None
    zero = Decimal(0)
    await state.accounts.write(
        lease, [Account(ACCOUNT_ID, 1, "ACTIVE", "USD", zero, zero, "2026-11-20", zero, (), 0)]
    )
    shard = keys.shard_of(ACCOUNT_ID, SHARDS)
    lease = await state.leases.acquire(keys.shard_lease(shard))
    assert lease is not None
    value = {**POSITIONS_EXAMPLE, "account_id": ACCOUNT_ID, "epoch": lease.fencing_token, "sequence": 1}
    await state.valuations.publish(lease, shard, [Publication(ACCOUNT_ID, 1, msgspec.json.encode(value))])
    await state.close()


async def _wait_ready(target: Attacked, process: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up_s = time.monotonic() + READY_S_MAX
    async with httpx.AsyncClient(base_url=target.url) as client:
        while time.monotonic() < give_up_s and process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get("/health")).is_success:  # nobody publishes here
                    return
            await asyncio.sleep(0.1)
    raise Surprise(f"the server did not start: {log.read_text()[-2000:]}")  # noqa: ASYNC240  # a small file


def _check_survived(target: Attacked, process: "subprocess.Popen[bytes]", log: Path) -> None:
    text = log.read_text()
    if process.poll() is not None:
        raise Surprise(f"the server ended with code {process.returncode}: {text[-2000:]}")
    if "Traceback" in text:
        raise Surprise(f"the server has logged a stack trace: {text[:4000]}")
    if not httpx.get(f"{target.url}/health").is_success:
        raise Surprise("the server does not answer any more")


async def over_sockets(target: Attacked, count: int, seed: int) -> Counter[str]:
    """`count` connections, a quarter of them broken before the upgrade. Raises Surprise."""
    outcomes = Counter[str]()
    numbers = iter(range(count))

    async def attack() -> None:
        for number in numbers:
            outcomes[await _one(target, random.Random(f"{seed}/socket/{number}"))] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(attack())
    return outcomes


async def _one(target: Attacked, draw: random.Random) -> str:
    async with RawClient(target.port) as client:
        if draw.random() < 0.25:
            await client.send(upgrades(draw))
            client.end_sending()
            status, _ = await client.response()
            if status >= 500:
                raise Surprise(f"status {status}")
            return "cut" if status == CUT else f"HTTP {status}"
        headers = target.bearer if draw.random() < 0.7 else {}
        if await client.upgrade("/ws/portfolio/" + ACCOUNT_ID, headers) != 101:
            raise Surprise("a good upgrade was refused")
        sent = KINDS[draw.choice(list(KINDS))](draw)
        await client.send(sent)
        client.end_sending()
        received = bytearray()
        while (got := await client.read()) is not None:
            received += bytes((0x80 * got.is_last | got.opcode, 127))
            received += len(got.payload).to_bytes(8) + got.payload
            if got.opcode == CLOSE:
                break
        verdict = judge(sent, bytes(received))
        return f"close {verdict.code}" if verdict.code in OWN_CODES else "cut or the client's own code"


def over_http(target: Attacked, count: int, seed: int) -> Counter[str]:
    """About `count` requests made up from our OpenAPI document. Raises Surprise."""
    schema = schemathesis.openapi.from_url(f"{target.url}/openapi.json")
    found: list[Any] = list(schema.get_all_operations())
    operations = [result.ok() for result in found]  # an error in the document is raised
    statuses = Counter[str]()
    each = max(1, count // (2 * len(operations)))
    for operation in operations:
        for headers in ({}, {"X-API-Key": target.api_key}):
            _attack_operation(operation, headers, each, seed, statuses)
    return statuses


def _attack_operation(
    operation: Any, headers: dict[str, str], count: int, seed: int, statuses: Counter[str]
) -> None:
    documented = set(operation.definition.raw["responses"])

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy())
    def attack(case: Any) -> None:
        is_stream = operation.path == STREAM
        if is_stream and (is_account_id(case.path_parameters["account_id"]) or statuses.total() % 2):
            case.path_parameters["account_id"] = ACCOUNT_ID  # has a value: the beginning is there at once
        status, text = _begun(case, headers) if is_stream else _called(case, headers)
        statuses[f"{status} stream" if is_stream else str(status)] += 1
        if str(status) not in documented and status not in UNDOCUMENTED:
            raise Surprise(f"{operation.method} {operation.path}: status {status} is not documented")
        if "Traceback" in text or 'File "' in text:
            raise Surprise(f"{operation.method} {operation.path}: a stack trace: {text[:500]}")

    attack()


STREAM_BEGINS = ("event: portfolio\nid: ", "event: freshness\ndata: {")


def _called(case: Any, headers: dict[str, str]) -> tuple[int, str]:
    """Status and text of a whole answer."""
    answer = case.call(headers=headers, timeout=HTTP_S_MAX)
    return answer.status_code, answer.text


def _begun(case: Any, headers: dict[str, str]) -> tuple[int, str]:
    """Status and the first bytes of a stream, which is then left. Raises Surprise when it is none."""
    asked = case.as_transport_kwargs(headers=headers)
    with requests.request(**asked, stream=True, timeout=HTTP_S_MAX) as answer:
        text = next(answer.iter_content(STREAM_BYTES), b"").decode(errors="replace")
        if answer.status_code == HTTPStatus.OK and not text.startswith(STREAM_BEGINS):
            raise Surprise(f"a stream that begins with {text[:500]}")
        return answer.status_code, text
