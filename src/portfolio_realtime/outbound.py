"""Outgoing connections: through the proxy that the environment names, but to this machine directly.

The usual variables HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY apply to HTTP, event streams and
WebSockets.
"""

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from portfolio_realtime import redaction
from portfolio_realtime.errors import SettingsError

SCHEMES: Final = ("http", "https", "socks5", "socks5h")
HTTP_SCHEMES: Final = {"ws": "http", "wss": "https"}


def proxy_of(url: str) -> str | None:
    """The URL of the proxy for a URL; None: connect directly. Raises SettingsError."""
    parts = urlsplit(url)
    host, scheme = parts.hostname or "", HTTP_SCHEMES.get(parts.scheme, parts.scheme)
    if is_here(host) or proxy_bypass(f"{host}:{parts.port}" if parts.port else host):
        return None
    proxies = getproxies()
    name = next((name for name in (scheme, "all") if proxies.get(name)), None)
    return None if name is None else _checked(f"{name.upper()}_PROXY", proxies[name])


def is_here(host: str) -> bool:
    """Whether a host is this machine: `localhost` or a loopback address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked(name: str, proxy: str) -> str:
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(proxy)
        is_good = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
        parts = None
    if not is_good or parts is None:
        raise SettingsError(
            f"{name} is not a usable proxy: write it as http://proxy.example.com:3128 or "
            "socks5://proxy.example.com:1080, or put Alpaca's hosts into NO_PROXY"
        )
    redaction.learn(parts.password or "")
    return proxy
