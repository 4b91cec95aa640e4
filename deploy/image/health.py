"""Exit code 0 when this container is healthy: where a WebSocket server belongs, /health answers.

The other services listen nowhere: they are healthy while they run, and the container ends with them.
"""

import http.client
import os
import sys
from pathlib import Path

SERVERS = (b"portfolio_realtime.run_services", b"portfolio_realtime.websocket_server")
PORTS = {"RUN_SERVICES_PORT": 8000, "WEBSOCKET_PORT": 8001}
TIMEOUT_S = 2


def has_server(processes: Path) -> bool:
    """Is a process of this container a server, or what keeps one alive?"""
    return any(server in command for command in commands(processes) for server in SERVERS)


def commands(processes: Path) -> list[bytes]:
    """The command of each process that is still there when it is read."""
    found: list[bytes] = []
    for path in processes.glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return found


def answers(host: str, port: int) -> bool:
    """Does /health answer there?"""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def hosts() -> list[str]:
    """This machine, and the one address where the server listens if that is another."""
    listens = os.environ.get("WEBSOCKET_HOST", "").strip("[]")
    return ["127.0.0.1", "::1" if listens in ("", "0.0.0.0", "::") else listens]


def is_healthy(processes: Path) -> bool:
    """Is this container healthy?"""
    ports = [int(os.environ.get(name, default)) for name, default in PORTS.items()]
    return any(answers(host, port) for port in ports for host in hosts()) or not has_server(processes)


if __name__ == "__main__":
    sys.exit(not is_healthy(Path("/proc")))
