#!/usr/bin/env bash
# aiohttp-socks 0.12.0 with aiohttp 3.14.5: a SOCKS proxy that is down, or that refuses, raises errors that are
# neither aiohttp.ClientError nor OSError nor TimeoutError, but plain Exceptions of the connector's own. An HTTP
# proxy that is down raises ClientProxyConnectionError, which is both ClientError and OSError. A program that
# catches what aiohttp documents works until somebody sets ALL_PROXY=socks5://…, and then ends by a traceback.
# Seen: "http proxy: ClientProxyConnectionError ClientError OSError", "socks proxy: ProxyConnectionError Exception",
# "socks refusal: ProxyError Exception".
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check aiohttp==3.14.5 aiohttp-socks==0.12.0 python-socks==3.2.1
cat > "$folder/try.py" <<'PY'
import asyncio, socket

import aiohttp
from aiohttp_socks import ProxyConnector

KINDS = (aiohttp.ClientError, OSError, TimeoutError)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def outcome(connector=None, proxy=None):
    async with aiohttp.ClientSession(connector=connector) as session:
        try:
            await session.get("http://service.test/", proxy=proxy)
        except Exception as error:
            kinds = [kind.__name__ for kind in KINDS if isinstance(error, kind)] or ["Exception"]
            return " ".join([type(error).__name__, *kinds])


async def refuse(reader, writer):
    """A SOCKS5 server (RFC 1928) that takes no authentication and answers: host unreachable."""
    await reader.read(512)
    writer.write(b"\x05\x00")
    await reader.read(512)
    writer.write(b"\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00")
    await writer.drain()


async def main():
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print("http proxy:", await outcome(proxy=f"http://127.0.0.1:{free_port()}"))
    print("socks proxy:", await outcome(ProxyConnector.from_url(f"socks5://127.0.0.1:{free_port()}")))
    print("socks refusal:", await outcome(ProxyConnector.from_url(f"socks5://127.0.0.1:{port}")))


asyncio.run(main())
PY
seen=$("$folder/env/bin/python" "$folder/try.py")
echo "$seen"
[ "$seen" = "http proxy: ClientProxyConnectionError ClientError OSError
socks proxy: ProxyConnectionError Exception
socks refusal: ProxyError Exception" ] || { echo "this has changed"; exit 1; }
