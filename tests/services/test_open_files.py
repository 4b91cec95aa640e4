"""The server has as many open files as it may have, and takes no more connections than there is room for."""

import asyncio
import resource
import subprocess
import sys

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from portfolio_realtime.websocket_server.clients import gateway as gateway_module
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.server import FILES_BESIDE
from tests.support.websocket_servers import serving

HARD = 3000
SOFT = 256
LOOK = """
import resource
from portfolio_realtime.websocket_server.server import allow_open_files
print(allow_open_files(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_the_limit_is_raised_as_far_as_it_may_be_and_what_it_allows_is_said() -> None:
    """A shell's usual 1,024 must not be the end of it, nor may the accept loop run into the hard limit."""

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, HARD))

    look = subprocess.run(  # one that lowers only its own limit
        (sys.executable, "-c", LOOK), preexec_fn=lower, capture_output=True, text=True, timeout=60, check=True
    )
    *said, answer = look.stdout.splitlines()
    assert answer.split() == [str(HARD - FILES_BESIDE), str(HARD)]
    assert any("ulimit -Hn" in line and str(HARD - FILES_BESIDE) in line for line in said)


async def test_who_comes_when_there_is_no_room_is_asked_to_come_back(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, and those who are in stay in."""
    gateways: list[Gateway] = []
    create = gateway_module.Gateway.__init__

    def remember(gateway: Gateway, *arguments: object) -> None:
        create(gateway, *arguments)  # type: ignore[arg-type]  # passed on as they came
        gateways.append(gateway)

    monkeypatch.setattr(gateway_module.Gateway, "__init__", remember)
    async with serving(valkey_url) as served:
        gateways[0].connections_max = 1
        url = f"ws://127.0.0.1:{served.port}/ws"
        async with connect(url, compression=None) as first:
            with pytest.raises(InvalidStatus) as refused:
                await connect(url, compression=None)
            assert refused.value.response.status_code == 503
            await asyncio.wait_for(await first.ping(), 10)
