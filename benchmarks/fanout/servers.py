"""The servers under test: how each is started, and how it is told to send."""

import base64
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import jwt

from benchmarks.fanout import processes
from benchmarks.fanout.publisher import account_id, message
from portfolio_realtime.state.embedded import free_port, server_binary

INTERVAL_S = 0.2
EPOCH_NOW = time.time_ns() // 1_000_000
MESSAGE_BYTES = len(message(account_id(0), EPOCH_NOW, 1_000_000))
SECRET = secrets.token_urlsafe(48)
WEBSOCKET_KEY = base64.b64encode(b"fan-out benchmark").decode()[:22] + "=="
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
NPM_S_MAX = 60

HERE = Path(__file__).parent


class Skipped(Exception):
    """The server is not to be had here; says what is missing."""


@dataclass(frozen=True)
class Plan:
    """What all servers are given."""

    connections: int
    folder: Path  # for what is built and for configurations
    stack: ExitStack  # ends what is started
    port: int

    @property
    def core(self) -> set[int]:
        """Where the server runs."""
        return processes.cores()[0]

    @property
    def other_core(self) -> set[int]:
        """Where everything else runs."""
        return processes.cores()[1]


@dataclass(frozen=True)
class Running:
    """A started server."""

    pid: int
    toggle: Callable[[], None]  # begin to send, end sending
    greets: bool = False  # does each client get a first message of its own accord?


Start = Callable[[Plan], Running]


def upgrade(path: str, port: int, *headers: str) -> bytes:
    """An upgrade request."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {WEBSOCKET_KEY}",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def requests(name: str, plan: Plan) -> list[bytes]:
    """One upgrade request for each connection; for our server each with an account and a token of its own."""
    if name != "portfolio_realtime":
        return [upgrade("/all", plan.port)] * plan.connections
    expires = int(time.time()) + 3600
    return [
        upgrade(f"/ws/portfolio/{account}", plan.port, f"Authorization: Bearer {_token(account, expires)}")
        for account in map(account_id, range(plan.connections))
    ]


def _token(account: str, expires: int) -> str:
    return jwt.encode({"sub": f"user-{account}", "accounts": [account], "exp": expires}, SECRET, "HS256")


def _signalled(process: subprocess.Popen[str]) -> Callable[[], None]:
    return lambda: process.send_signal(signal.SIGUSR2)


def _simple(plan: Plan, *command: str, environment: dict[str, str] | None = None) -> Running:
    process = processes.start(plan.stack, command, plan.core, env={**os.environ, **(environment or {})})
    processes.wait_for_port(plan.port, process)
    return Running(process.pid, _signalled(process))


def portfolio_realtime(plan: Plan) -> Running:
    """Our server as it runs in production: tokens checked, publications through Valkey, one per account."""
    valkey_port = free_port()
    url = f"redis://127.0.0.1:{valkey_port}/0"
    options = ("--port", str(valkey_port), "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning")
    valkey = processes.start(
        plan.stack,
        (server_binary(), *options, "--dir", str(plan.folder)),
        plan.other_core,
        stdout=subprocess.DEVNULL,
    )
    processes.wait_for_port(valkey_port, valkey)
    command = ("-m", "benchmarks.fanout.publisher", url, str(plan.connections), str(INTERVAL_S))
    publisher = processes.start(
        plan.stack, (sys.executable, *command), plan.other_core, stdout=subprocess.PIPE
    )
    assert publisher.stdout is not None
    if publisher.stdout.readline() != "ready\n":
        raise RuntimeError("the publisher did not start")
    settings = {
        "REDIS_URL": url,
        "JWT_SECRET": SECRET,
        "WEBSOCKET_PORT": str(plan.port),
        "LOG_LEVEL": "warning",
        "DRAIN_GRACE_SECONDS": "0",
        "DRAIN_SECONDS": "0",
    }
    server = _simple(plan, sys.executable, "-m", "portfolio_realtime.websocket_server", environment=settings)
    return Running(server.pid, _signalled(publisher), greets=True)


def c_epoll(plan: Plan) -> Running:
    """The floor: epoll and send in C."""
    binary = compiled("floor", plan.folder)
    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1((WEBSOCKET_KEY + guid).encode()).digest()).decode()  # noqa: S324  # RFC 6455
    interval_ms = round(INTERVAL_S * 1000)
    return _simple(plan, str(binary), str(plan.port), str(MESSAGE_BYTES), str(interval_ms), accept)


def _python(name: str) -> Start:
    def start(plan: Plan) -> Running:
        script = str(HERE / "python_server.py")
        return _simple(
            plan, sys.executable, script, name, str(plan.port), str(MESSAGE_BYTES), str(INTERVAL_S)
        )

    return start


def node_ws(plan: Plan) -> Running:
    """Node's `ws`, from npm into a folder of the benchmark's own."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Skipped("node and npm are not installed")
    cache = Path.home() / ".cache" / "portfolio-realtime-benchmarks"
    if not (cache / "node_modules" / "ws").exists():
        cache.mkdir(parents=True, exist_ok=True)
        install = (npm, "install", "--no-audit", "--no-fund", "--prefix", str(cache), "ws@8")
        try:
            subprocess.run(install, check=True, capture_output=True, timeout=NPM_S_MAX)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            raise Skipped("the npm package ws cannot be had") from None
    interval_ms = str(round(INTERVAL_S * 1000))
    return _simple(
        plan,
        *(node, str(HERE / "node_server.cjs"), str(plan.port), str(MESSAGE_BYTES), interval_ms),
        environment={"NODE_PATH": str(cache / "node_modules")},
    )


def nginx_nchan(plan: Plan) -> Running:
    """nginx with nchan: all clients on one channel, one POST per interval, which is its best case."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None or not NCHAN_MODULE.exists():
        raise Skipped("install the Debian packages nginx-light and libnginx-mod-nchan")
    folder = plan.folder / "nginx"
    folder.mkdir(exist_ok=True)
    text = (HERE / "nginx.conf").read_text()
    text = text.replace("@MODULE@", str(NCHAN_MODULE)).replace("@PORT@", str(plan.port))
    (folder / "nginx.conf").write_text(text)
    command = (nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log"))
    process = processes.start(plan.stack, command, plan.core)
    processes.wait_for_port(plan.port, process)
    is_on = threading.Event()
    is_over = threading.Event()
    poster = threading.Thread(target=_post_messages, args=(plan.port, is_on, is_over), daemon=True)
    poster.start()
    plan.stack.callback(poster.join)
    plan.stack.callback(is_over.set)
    return Running(process.pid, lambda: is_on.clear() if is_on.is_set() else is_on.set())


def _post_messages(port: int, is_on: threading.Event, is_over: threading.Event) -> None:
    body = b"x" * MESSAGE_BYTES
    while not is_over.wait(INTERVAL_S):
        if is_on.is_set():
            request = urllib.request.Request(f"http://127.0.0.1:{port}/post", body)  # loopback
            urllib.request.urlopen(request, timeout=5).close()  # noqa: S310


def compiled(name: str, folder: Path) -> Path:
    """One of the C programs beside this file. Raises Skipped without a compiler."""
    binary = folder / name
    if binary.exists():
        return binary
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Skipped("install gcc: the benchmark's client and its floor are C programs")
    subprocess.run((compiler, "-O2", "-o", str(binary), str(HERE / f"{name}.c")), check=True)
    return binary


SERVERS: dict[str, Start] = {
    "portfolio_realtime": portfolio_realtime,
    "c_epoll": c_epoll,
    "picows": _python("picows"),
    "node_ws": node_ws,
    "websockets_broadcast": _python("websockets"),
    "fastapi_send_text": _python("fastapi"),
    "nginx_nchan": nginx_nchan,
}
