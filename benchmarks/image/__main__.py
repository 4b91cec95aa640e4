"""The container image, built and run without Docker: `sudo .venv/bin/python -m benchmarks.image`.

buildah builds the Dockerfile on a Debian made by debootstrap; runc runs it as deploy/compose.yaml says: as
nobody, without rights, a root file system that is only read, limits, and no network but its own. All four
services in one container, then each in its own beside a Valkey, then each as its task definition for AWS
says, follow a simulator; every account is compared with its ledger. Exit code 1 when an account differs, a
container may write, or one does not end when asked.
"""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NoReturn

import httpx
import uvloop
import yaml
from deploy.aws.checks.template import Template, container
from deploy.aws.files import read
from deploy.aws.services import KEPT_RUNNING

from benchmarks.image.build import ROOT, Image, ImageFailed, build, missing_packages
from benchmarks.image.container import Confined, Container
from portfolio_harness.clients import Clients
from portfolio_harness.convergence import converge
from portfolio_harness.oracle import Oracle
from portfolio_harness.progress import say
from portfolio_harness.system import SIMULATOR_KEY, SIMULATOR_SECRET, TOKEN_S, token
from portfolio_realtime.errors import PortfolioRealtimeError

ACCOUNTS: Final = 20
WATCH_S: Final = 10.0
READY_S_MAX: Final = 60.0
PROOF_S_MAX: Final = 600.0
INTERVAL_S: Final = 1.0
PIDS_MAX: Final = 1024  # a task of Fargate has no limit of its own
SIMULATOR_URL: Final = "http://127.0.0.1:8900"
ALL_AT_ONCE: Final = {"mem_limit": "1024m", "pids_limit": 256}  # as docs/deploy.md says for one container
ISOLATED: Final = ("unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc")
VALKEY: Final = """
import os
from portfolio_realtime.state.embedded import server_binary
os.execv(server_binary(), ["valkey-server", "--bind", "127.0.0.1", "--save", "", "--dir", "/tmp"])
"""


@dataclass(frozen=True)
class Scene:
    """Which containers run the services, and where the server listens."""

    port: int
    commands: Mapping[str, tuple[dict[str, str], Sequence[str]]]  # name -> environment, command


@dataclass(frozen=True)
class Proof:
    """What was seen."""

    accounts: int
    ready_s: float
    mismatches: int
    converged_s: float | None
    regressions: int
    gaps: int
    leaks: int
    messages: int
    containers: list[Confined]

    @property
    def is_clean(self) -> bool:
        """Did everything hold?"""
        wrong = self.mismatches + self.regressions + self.gaps + self.leaks
        return not wrong and self.messages > 0 and all(container.is_clean for container in self.containers)


TOGETHER: Final = Scene(8000, {"together": ({}, ())})
APART: Final = Scene(
    8001,
    {
        "valkey": ({}, ("python", "-c", VALKEY)),
        "symbol_collector": ({"SERVICE": "symbol_collector"}, ()),
        "market_data_consumer": ({"SERVICE": "market_data_consumer"}, ()),
        "portfolio_calculator": ({}, ("python", "-m", "portfolio_realtime.portfolio_calculator")),
        "websocket_server": ({"SERVICE": "websocket_server"}, ()),
    },
)


async def prove(image: Image, folder: Path, scene: Scene, services: Mapping[str, Any]) -> Proof:
    """Run a scene against a simulator of its own and compare; `services` say how each is confined.

    Raises ImageFailed.
    """
    secret = secrets.token_urlsafe(48)
    settings = _settings(secret)
    if "valkey" in scene.commands:
        settings["REDIS_URL"] = "redis://127.0.0.1:6379/0"
    simulator = {"simulator": ({}, ("alpaca-sim", "--port", "8900", "--accounts", str(ACCOUNTS)))}
    async with contextlib.AsyncExitStack() as stack:
        containers = [
            await stack.enter_async_context(
                _running(image, folder, name, {**settings, **own}, command, services)
            )
            for name, (own, command) in {**simulator, **scene.commands}.items()
        ]
        started_s = time.monotonic()
        url = f"http://127.0.0.1:{scene.port}"
        await _wait_ready(url, containers)
        ready_s = round(time.monotonic() - started_s, 2)
        say(f"{', '.join(scene.commands)}: ready after {ready_s} s")
        return await _compare(url, secret, ready_s, containers)


async def _compare(url: str, secret: str, ready_s: float, containers: list[Container]) -> Proof:
    oracle = Oracle(SIMULATOR_URL)
    account_ids = await oracle.account_ids()

    def token_for(account_id: str) -> str:
        return token(secret, "proof", [account_id], TOKEN_S)

    clients = Clients(url, account_ids, token_for, interval_s=INTERVAL_S, detail=True)
    try:
        await clients.start()
        await asyncio.sleep(WATCH_S)
        await oracle.pause()
        differing, converged_s = await converge(oracle, clients)
    finally:
        await clients.stop()
        await oracle.close()
    counts = clients.counts
    return Proof(
        accounts=len(account_ids),
        ready_s=ready_s,
        mismatches=len(differing),
        converged_s=converged_s,
        regressions=counts["regressions"],
        gaps=counts["gaps"],
        leaks=counts["leaks"],
        messages=counts["messages"],
        containers=[await container.stop() for container in reversed(containers)],
    )


@contextlib.asynccontextmanager
async def _running(
    image: Image,
    folder: Path,
    name: str,
    environment: Mapping[str, str],
    command: Sequence[str],
    services: Mapping[str, Any],
) -> AsyncGenerator[Container]:
    service = services.get(name) or {**services["websocket_server"], **ALL_AT_ONCE}
    container = Container(image, folder, name, service)
    try:
        await container.start(environment, command)
        yield container
    except BaseException:
        say(f"--- {name}\n{container.log[-2000:]}")
        raise
    finally:
        await container.delete()


def _settings(secret: str) -> dict[str, str]:
    return {
        "BROKER_API_KEY": SIMULATOR_KEY,
        "BROKER_SECRET_KEY": SIMULATOR_SECRET,
        "ALPACA_BROKER_URL": SIMULATOR_URL,
        "ALPACA_DATA_URL": SIMULATOR_URL,
        "ALPACA_STREAM_URL": SIMULATOR_URL.replace("http", "ws", 1),
        "JWT_SECRET": secret,
        "DRAIN_SECONDS": "1",
    }


async def _wait_ready(url: str, containers: Sequence[Container]) -> None:
    give_up_s = time.monotonic() + READY_S_MAX
    async with httpx.AsyncClient(timeout=2.0) as client:
        while time.monotonic() < give_up_s:
            with contextlib.suppress(httpx.HTTPError):
                asked = [await client.get(f"{SIMULATOR_URL}/_sim/accounts"), await client.get(f"{url}/ready")]
                if all(answer.is_success for answer in asked):
                    return
            await asyncio.sleep(0.1)
    raise ImageFailed(f"{url}/ready did not answer yes within {READY_S_MAX:.0f} s")


def _by_compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]


def _by_task_definition() -> dict[str, Any]:
    """What each task definition says of user, root, /tmp, rights, memory and processor, as compose does."""
    confined = _by_compose()
    template = Template(read("standard"), "standard", read("base"))
    for service in KEPT_RUNNING:
        task = template.task(service.name)
        one, linux = container(task), container(task)["LinuxParameters"]
        confined[service.name] = {
            "user": one["User"],
            "read_only": one["ReadonlyRootFilesystem"],
            "cap_drop": linux["Capabilities"]["Drop"],
            "security_opt": [
                "no-new-privileges:true"
            ],  # Fargate has no such option; without rights none are got
            "tmpfs": [
                f"{tmpfs['ContainerPath']}:size={tmpfs['Size']}m,mode=1777,{','.join(tmpfs['MountOptions'])}"
                for tmpfs in linux["Tmpfs"]
            ],
            "mem_limit": f"{task.get('Memory')}m",
            "cpus": int(task.get("Cpu")) / 1024,
            "pids_limit": PIDS_MAX,
        }
    return confined


async def _prove_all(image: Image, folder: Path) -> bool:
    async with asyncio.timeout(PROOF_S_MAX):
        proofs = {
            "together": await prove(image, folder / "together", TOGETHER, _by_compose()),
            "apart": await prove(image, folder / "apart", APART, _by_compose()),
            "by task definition": await prove(image, folder / "tasks", APART, _by_task_definition()),
        }
    shown = {name: asdict(proof) for name, proof in proofs.items()}
    print(json.dumps({"size_mib": image.size_mib, **shown}, indent=2))
    return all(proof.is_clean for proof in proofs.values())


def _build_and_prove(folder: Path) -> int:
    """Build here; prove in a network, and among processes, of its own. The exit code."""
    say("building")
    image = build(folder)
    (folder / "image.json").write_text(json.dumps({"root": str(image.root), "config": image.config}))
    with TemporaryDirectory(dir=folder) as bundles:
        inside = (sys.executable, "-m", "benchmarks.image", "--inside", str(folder), bundles)
        return subprocess.run((*ISOLATED, *inside), cwd=ROOT, check=False).returncode


def _inside(folder: Path, bundles: Path) -> int:
    subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
    made = json.loads((folder / "image.json").read_text())
    image = Image(Path(made["root"]), made["config"])
    return 0 if uvloop.run(_prove_all(image, bundles)) else 1


def _require_tools() -> None:
    """Raises ImageFailed with the remedy."""
    if missing := missing_packages():
        raise ImageFailed(f"apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        raise ImageFailed("only root can make a root file system: sudo")


def _end(*_: object) -> NoReturn:
    """What was started is ended by the way out."""
    sys.exit(1)


def main() -> None:
    """Build, prove, and print what was seen as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, help="Keep what is built here, and take the base from it again"
    )
    parser.add_argument("--inside", type=Path, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    try:
        _require_tools()
        if asked.inside:
            sys.exit(_inside(*asked.inside))
        with contextlib.ExitStack() as stack:
            folder = asked.folder or Path(
                stack.enter_context(TemporaryDirectory(prefix="image-", dir="/var/tmp"))
            )
            sys.exit(_build_and_prove(folder.resolve()))
    except (ImageFailed, PortfolioRealtimeError, TimeoutError) as error:
        sys.exit(f"failed: {error}")


if __name__ == "__main__":
    main()
