#!/usr/bin/env python3
"""Run all tests with branch coverage and an HTML report: `./run_tests.py [pytest arguments]`.

`--no-cov` runs them without coverage.

Finds Valkey or Redis, else starts one; finds a WebSocket server on port 8001 or 8000, else starts one; both
only for tests/test_websocket_server.py. All other tests start what they need themselves, on free ports, and
never touch a database that they find.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path

WORKERS = max(4, os.cpu_count() or 1)  # most tests wait for something more than they compute
ROOT = Path(__file__).resolve().parent
VENV_PYTHON = ROOT / ".venv" / "bin" / "python"
SERVER_PORTS = (8001, 8000)
START_S_MAX = 20


def main() -> int:
    """Start what is missing, run pytest, end what was started. The exit code is pytest's."""
    os.chdir(ROOT)
    with contextlib.ExitStack() as stack:
        redis_url = find_valkey() or stack.enter_context(started_valkey())
        if not find_server():
            stack.enter_context(started_server(redis_url))
        workers = [
            f"--numprocesses={WORKERS}",
            "--dist=loadfile",
            "--no-loadscope-reorder",
        ]  # long ones first
        command = [sys.executable, "-m", "pytest", *workers]
        is_counted = "--no-cov" not in sys.argv  # beside --cov, it breaks tests that are marked no_cover
        coverage = ["--cov", "--cov-branch", "--cov-report=html", "--cov-report=term"] if is_counted else []
        code = subprocess.call([*command, *coverage, *sys.argv[1:]])
    if is_counted:
        print(f"coverage report: {ROOT / 'htmlcov' / 'index.html'}")
    return code


def find_valkey() -> str | None:
    """URL of a server that answers at REDIS_HOST:REDIS_PORT, or None."""
    host, port = os.environ.get("REDIS_HOST", "localhost"), int(os.environ.get("REDIS_PORT", "6379"))
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            if connection.recv(64).startswith(b"+PONG"):
                print(f"Valkey or Redis: found at {host}:{port}")
                return f"redis://{host}:{port}/{os.environ.get('REDIS_DB', '0')}"
    except OSError:
        pass
    return None


@contextlib.contextmanager
def started_valkey() -> Generator[str]:
    """A Valkey of our own, for as long as the tests run."""
    from portfolio_realtime.state.embedded import free_port, server_binary

    port = free_port()
    command = [server_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with ended_afterwards(command) as process:
        wait_for(process, lambda: accepts(port), "Valkey")
        print(f"Valkey: started on port {port}")
        yield f"redis://127.0.0.1:{port}/0"


def find_server() -> bool:
    """Does a WebSocket server answer on one of the guide's ports?"""
    for port in SERVER_PORTS:
        if is_healthy(port):
            print(f"WebSocket server: found on port {port}")
            return True
    return False


@contextlib.contextmanager
def started_server(redis_url: str) -> Generator[None]:
    """A WebSocket server of our own on port 8001, for as long as the tests run."""
    port = SERVER_PORTS[0]
    environment = {**os.environ, "REDIS_URL": redis_url, "WEBSOCKET_PORT": str(port), "LOG_LEVEL": "warning"}
    with ended_afterwards(
        [sys.executable, "-m", "portfolio_realtime.websocket_server"], environment
    ) as process:
        wait_for(process, lambda: is_healthy(port), "the WebSocket server")
        print(f"WebSocket server: started on port {port}")
        yield


@contextlib.contextmanager
def ended_afterwards(
    command: list[str], environment: dict[str, str] | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """Run a command beside the tests."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(process: subprocess.Popen[bytes], is_there: object, what: str) -> None:
    """Wait until it is there; leave with a clear word when it does not come."""
    assert callable(is_there)
    give_up = time.monotonic() + START_S_MAX
    while not is_there():
        if process.poll() is not None or time.monotonic() > give_up:
            sys.exit(f"{what} did not start (exit code {process.poll()})")
        time.sleep(0.05)


def accepts(port: int) -> bool:
    """Does anything listen on this loopback port?"""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_healthy(port: int) -> bool:
    """Does /health answer on this loopback port?"""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError, ValueError):
        return False


if __name__ == "__main__":
    if VENV_PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
        os.execv(VENV_PYTHON, [str(VENV_PYTHON), *sys.argv])  # noqa: S606  # the same script, our Python
    sys.exit(main())
