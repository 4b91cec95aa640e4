"""The services run from the task definitions: `sudo .venv/bin/python -m benchmarks.aws.run_tasks`.

Environment, secrets, user and Valkey's rights exactly as the standard template says, in a network of its own
with the names and addresses of an emulated account: secrets from its Secrets Manager, TLS before Valkey and
before the server. A simulator stands for Alpaca. Every account is compared with its ledger; each task ends
as in ECS. Prints what was seen as JSON. Exit code 1 when a value differs, somebody was refused a right, a
task did not end in time, or an alarm looks at a metric that no service has written.
"""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import uvloop
from deploy.aws.checks.template import Template, container
from deploy.aws.files import read
from deploy.aws.resolve import Account
from deploy.aws.services import IMAGE_USER, KEPT_RUNNING, SERVICES

from benchmarks.aws.metrics import unwritten
from benchmarks.aws.place import BALANCER, VALKEY, Place, lay_network, place
from portfolio_harness.clients import Clients
from portfolio_harness.convergence import converge
from portfolio_harness.oracle import Oracle
from portfolio_harness.progress import say
from portfolio_harness.system import SIMULATOR_KEY, SIMULATOR_SECRET, TOKEN_S, start_simulator, token
from portfolio_realtime.errors import PortfolioRealtimeError
from portfolio_realtime.processes import end_all

ROOT: Final = Path(__file__).resolve().parent.parent.parent
ISOLATED: Final = ("unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc")
ACCOUNT: Final = (str(ROOT / ".venv-aws/bin/python"), "-m", "benchmarks.aws.account")
ACCOUNT_PORT: Final = 4566
DOMAIN: Final = "realtime.example.com"
SIGNED: Final = "AWS4-HMAC-SHA256 Credential=test/20261129/eu-north-1/secretsmanager/aws4_request"
ACCOUNTS: Final = 20
WATCH_S: Final = 6.0
REVOKED: Final = 401
READY_S_MAX: Final = 180.0
INTERVAL_S: Final = 2.0
# Of the image (Dockerfile), which stands behind what the task definition says.
IMAGE: Final = {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}  # noqa: S108


class DrillFailed(PortfolioRealtimeError):
    """Something that should hold does not."""


@dataclass
class Seen:
    """What was seen."""

    user: str = ""
    accounts: int = 0
    mismatches: int = 0
    converged_s: float | None = None
    messages: int = 0
    leaks: int = 0
    regressions: int = 0
    revoked_status: int = 0  # of a request with a token that the operator's task has revoked
    denials: list[str] = field(default_factory=list[str])
    read_back_wrongly: list[str] = field(default_factory=list[str])
    unwritten_metrics: list[str] = field(default_factory=list[str])
    endings_s: dict[str, float] = field(default_factory=dict[str, float])
    exit_codes: dict[str, int] = field(default_factory=dict[str, int])
    stop_timeout_s: int = 0

    @property
    def is_clean(self) -> bool:
        """Did everything hold?"""
        wrong = self.mismatches + self.leaks + self.regressions + sum(map(abs, self.exit_codes.values()))
        lists = (self.denials, self.read_back_wrongly, self.unwritten_metrics)
        ended = all(ending_s < self.stop_timeout_s for ending_s in self.endings_s.values())
        return not wrong and not any(lists) and ended and self.messages > 0 and self.revoked_status == REVOKED


@dataclass(frozen=True)
class Tasks:
    """The task definitions, with everything that an account would fill in."""

    template: Template
    account: Account
    client: httpx.AsyncClient

    async def secret(self, origin: str) -> str:
        """What ECS puts into the environment for `ARN:KEY::`."""
        arn, key = origin.removesuffix("::").rsplit(":", 1)
        answer = await self.client.post(
            "/",
            json={"SecretId": arn},
            headers={
                "X-Amz-Target": "secretsmanager.GetSecretValue",
                "Content-Type": "application/x-amz-json-1.1",
                "Authorization": SIGNED,
            },
        )
        answer.raise_for_status()
        return json.loads(answer.json()["SecretString"])[key]

    async def environment(self, service: str) -> dict[str, str]:
        """Environment and secrets of one container."""
        definition = self.account.value(container(self.template.task(service)))
        plain = {one["Name"]: one["Value"] for one in definition["Environment"]}
        hidden = {one["Name"]: await self.secret(one["ValueFrom"]) for one in definition["Secrets"]}
        return {**plain, **hidden}

    async def add_users(self, valkey: Place) -> None:
        """Valkey's users, as CloudFormation would make them."""
        for user in self.template.all("ElastiCache::User"):
            name, rights = str(user.get("UserName")), str(user.get("AccessString"))
            (resolved,) = self.account.value(user.get("AuthenticationMode.Passwords"))
            _, _, origin = resolved.strip("{}").partition("resolve:secretsmanager:")
            arn, _, key = origin.partition(":SecretString:")
            await valkey.add_user(name, await self.secret(f"{arn}:{key}::"), rights)


class Runner:
    """Starts and ends tasks as Fargate does."""

    def __init__(self, folder: Path, trusted: Path, simulator_url: str) -> None:
        self._folder = folder
        self._user, self._group = map(int, IMAGE_USER.split(":"))
        self.runs_as_written = self._may_read()
        # Beside the task definition: where the simulator is, and whom this machine trusts.
        self._machine = {
            **IMAGE,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SSL_CERT_FILE": str(trusted),
            "ALPACA_BROKER_URL": simulator_url,
            "ALPACA_TRADING_URL": simulator_url,
            "ALPACA_DATA_URL": simulator_url,
            "ALPACA_STREAM_URL": simulator_url.replace("http", "ws", 1),
        }

    def _may_read(self) -> bool:
        """May the image's user read this Python and this project at all?"""
        command = (sys.executable, "-c", "import portfolio_realtime.service")
        try:
            asked = subprocess.run(command, **self._identity(), cwd="/", capture_output=True, check=False)
        except PermissionError:  # a Python in somebody's home
            return False
        return asked.returncode == 0

    def _identity(self) -> dict[str, Any]:
        return {"user": self._user, "group": self._group, "extra_groups": []}

    async def start(
        self, name: str, environment: Mapping[str, str], *command: str
    ) -> asyncio.subprocess.Process:
        """A task's process; its log is kept in the folder."""
        identity = self._identity() if self.runs_as_written else {}
        with (self._folder / f"{name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *command,
                env={**self._machine, **environment},
                cwd=self._folder / "empty",  # no .env
                stdout=log,
                stderr=log,
                **identity,
            )

    def log(self, name: str) -> str:
        """What a task has written."""
        return (self._folder / f"{name}.log").read_text(errors="replace")


@contextlib.asynccontextmanager
async def _account() -> AsyncGenerator[dict[str, Any]]:
    """The emulated account, filled as an operator would."""
    filled = {
        "alpaca": {
            "BROKER_API_KEY": SIMULATOR_KEY,
            "BROKER_SECRET_KEY": SIMULATOR_SECRET,
            "MARKET_API_KEY": SIMULATOR_KEY,
            "MARKET_SECRET_KEY": SIMULATOR_SECRET,
        },
        "clients": {
            name: secrets.token_urlsafe(48)
            for name in ("JWT_SECRET", "JWT_SECRET_PREVIOUS", "API_KEY_SECRET", "METRICS_TOKEN")
        },
    }
    process = await asyncio.create_subprocess_exec(
        *ACCOUNT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        limit=1 << 22,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(filled).encode() + b"\n")
    try:
        line = await process.stdout.readline()
        if not line:
            raise DrillFailed("the emulated account was not made; its reason is above")
        yield {**json.loads(line), "jwt_secret": filled["clients"]["JWT_SECRET"]}
    finally:
        process.stdin.close()
        await process.wait()


async def drill(folder: Path, *, with_redis: bool) -> Seen:
    """Run everything once. Raises DrillFailed."""
    seen = Seen()
    (folder / "empty").mkdir()
    started_s = time.monotonic()
    template = Template(read("standard"), "standard", read("base"))
    async with contextlib.AsyncExitStack() as stack:
        made = await stack.enter_async_context(_account())
        say(f"the emulated account has both stacks after {time.monotonic() - started_s:.1f} s")
        seen.read_back_wrongly = made["wrong"]
        known: dict[str, str] = made["names"]
        account = Account(
            made["parameters"], made["exports"], lambda name: known[name], {"IsBehindCloudflare": False}
        )
        endpoint = known[f"{template.one('ElastiCache::ReplicationGroup').name}.PrimaryEndPoint.Address"]
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{ACCOUNT_PORT}")
        )
        tasks = Tasks(template, account, client)
        names = {endpoint: VALKEY, DOMAIN: BALANCER}
        trusted = await asyncio.to_thread(lay_network, folder, names, with_redis=with_redis)
        valkey = await stack.enter_async_context(place(folder, trusted, with_redis=with_redis))
        await tasks.add_users(valkey)
        simulator, simulator_url = await start_simulator(["--accounts", str(ACCOUNTS)])
        stack.push_async_callback(end_all, [simulator])
        runner = Runner(folder, valkey.trusted, simulator_url)
        seen.user = (
            IMAGE_USER if runner.runs_as_written else "the user of this drill: the image's may not read"
        )
        environments = {service.name: await tasks.environment(service.name) for service in SERVICES}
        await _run(seen, runner, environments, simulator_url, made["jwt_secret"], str(valkey.trusted))
        seen.denials = await valkey.denials()
    seen.stop_timeout_s = min(container(task)["StopTimeout"] for task in template.all("ECS::TaskDefinition"))
    seen.unwritten_metrics = sorted(
        unwritten(template, [runner.log(service.name) for service in KEPT_RUNNING])
    )
    return seen


async def _run(
    seen: Seen,
    runner: Runner,
    environments: Mapping[str, Mapping[str, str]],
    simulator_url: str,
    jwt_secret: str,
    trusted: str,
) -> None:
    os.environ["SSL_CERT_FILE"] = trusted  # for the clients
    processes = {
        service.name: await runner.start(
            service.name,
            environments[service.name],
            *("python", "-m", f"portfolio_realtime.{environments[service.name]['SERVICE']}"),
        )
        for service in KEPT_RUNNING
    }
    try:
        await _wait_ready(processes, runner)
        await _compare(seen, simulator_url, jwt_secret)
        await _revoke(seen, runner, environments["operator"], jwt_secret)
        await _end(seen, processes)
    finally:
        await end_all([*processes.values()])


async def _wait_ready(processes: Mapping[str, asyncio.subprocess.Process], runner: Runner) -> None:
    give_up_s = time.monotonic() + READY_S_MAX
    async with httpx.AsyncClient(base_url=f"https://{DOMAIN}", timeout=2.0) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get("/ready")).is_success:
                    return
            ended = [name for name, process in processes.items() if process.returncode is not None]
            if ended or time.monotonic() > give_up_s:
                logs = "\n".join(f"--- {name}\n{runner.log(name)[-1500:]}" for name in ended or processes)
                raise DrillFailed(f"{', '.join(ended) or 'the services'} did not start:\n{logs}")
            await asyncio.sleep(0.2)


async def _compare(seen: Seen, simulator_url: str, jwt_secret: str) -> None:
    oracle = Oracle(simulator_url)
    account_ids = await oracle.account_ids()

    def token_for(account_id: str) -> str:
        return token(jwt_secret, "viewer", [account_id], TOKEN_S)

    clients = Clients(f"https://{DOMAIN}", account_ids, token_for, interval_s=INTERVAL_S, detail=True)
    try:
        await clients.start()
        await asyncio.sleep(WATCH_S)
        await oracle.pause()
        differing, seen.converged_s = await converge(oracle, clients)
    finally:
        await clients.stop()
        await oracle.close()
    seen.accounts, seen.mismatches = len(account_ids), len(differing)
    counts = clients.counts
    seen.messages, seen.leaks, seen.regressions = counts["messages"], counts["leaks"], counts["regressions"]


async def _revoke(seen: Seen, runner: Runner, environment: Mapping[str, str], jwt_secret: str) -> None:
    """`aws ecs run-task` of the operator's task definition with another command."""
    stolen = token(jwt_secret, "thief", ["*"], TOKEN_S)
    await asyncio.sleep(1.1)  # the second of the revocation itself counts as before
    command = ("portfolio-realtime", "revoke", "--subject", "thief")
    process = await runner.start("operator", environment, *command)
    if await process.wait() != 0:
        raise DrillFailed(f"the operator's task failed:\n{runner.log('operator')}")
    async with httpx.AsyncClient(base_url=f"https://{DOMAIN}", timeout=5.0) as client:
        for _ in range(50):
            answer = await client.get("/v1/portfolio/any", headers={"Authorization": f"Bearer {stolen}"})
            seen.revoked_status = answer.status_code
            if seen.revoked_status == REVOKED:
                return
            await asyncio.sleep(0.1)


async def _end(seen: Seen, processes: Mapping[str, asyncio.subprocess.Process]) -> None:
    """SIGTERM to all, as when a stack is deleted: how long each takes, and its exit code."""
    began_s = time.monotonic()

    async def ended(name: str, process: asyncio.subprocess.Process) -> None:
        process.send_signal(signal.SIGTERM)
        seen.exit_codes[name] = await process.wait()
        seen.endings_s[name] = round(time.monotonic() - began_s, 2)

    await asyncio.gather(*(ended(name, process) for name, process in processes.items()))


def main() -> None:
    """Run the drill in a network of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", action="store_true", help="Debian's redis-server, which does TLS itself")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("only root can make a network: sudo")
    if not Path(ACCOUNT[0]).exists():
        sys.exit("the emulated account is not installed: make aws-check")
    if asked.redis and shutil.which("redis-server") is None:
        sys.exit("--redis needs redis-server: apt-get install redis-server")
    if not asked.inside:
        inside = (sys.executable, "-m", "benchmarks.aws.run_tasks", "--inside", *sys.argv[1:])
        sys.exit(subprocess.run((*ISOLATED, *inside), cwd=ROOT, check=False).returncode)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with TemporaryDirectory(prefix="run-tasks-") as folder:
        Path(folder).chmod(0o755)
        try:
            seen = uvloop.run(drill(Path(folder), with_redis=asked.redis))
        except PortfolioRealtimeError as error:
            sys.exit(f"failed: {error}")
    print(json.dumps(asdict(seen), indent=2))
    sys.exit(not seen.is_clean)


if __name__ == "__main__":
    main()
