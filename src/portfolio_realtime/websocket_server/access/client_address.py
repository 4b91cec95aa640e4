"""Where a request comes from: its address behind proxies, whether by TLS, and from which page.

Header names are in lower case. Headers about the path of a request count only from trusted proxies.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from portfolio_realtime.config import Settings, listed

FORWARDING: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
HOPS_MAX: Final = 10
SECURE: Final = ("https", "wss")
HOSTS_KEPT_MAX: Final = 64  # looked at before
ADDRESSES_KEPT_MAX: Final = 4096  # parsed before: one costs as much as a twentieth of a connect
DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
IPV6_PREFIX: Final = 64  # what one customer of a provider has


class ClientAddress(NamedTuple):
    """Where a request comes from."""

    ip: str
    limit_key: str | None  # whose limits it counts for; None: this very machine, which has none


class NetworkRules:
    """What the settings say about proxies, TLS and the origins of pages."""

    def __init__(self, settings: Settings) -> None:
        self._trusted: list[IPv4Network | IPv6Network] = [
            ip_network(part, strict=False) for part in listed(settings.trusted_proxies)
        ]
        self._origins = frozenset(_plain_origin(origin) for origin in listed(settings.allowed_origins))
        self._is_tls_required = settings.require_tls

    def client_address(self, peer: str, headers: Mapping[str, str]) -> ClientAddress:
        """The client's address, and whose limits it counts for."""
        address = self.address(peer, headers)
        return ClientAddress(address, None if is_local(peer, headers) else limit_key_of(address))

    def address(self, peer: str, headers: Mapping[str, str]) -> str:
        """The client's address: the peer, or what trusted proxies say that it is."""
        if not self._is_trusted(peer):
            return peer
        address = peer
        hops = listed(headers.get("x-forwarded-for", ""))  # empty ones do not count (RFC 9110 §5.6.1)
        for hop in reversed(hops[-HOPS_MAX:]):  # each proxy adds whom it has seen at the end
            if (found := _parsed(hop)) is None:
                break
            address = found
            if not self._is_trusted(address):
                break
        return address

    def is_refused_as_plain(self, peer: str, headers: Mapping[str, str]) -> bool:
        """Is TLS required, and did this not come through it?"""
        if not self._is_tls_required:
            return False
        last = headers.get("x-forwarded-proto", "").split(",")[-1].strip().lower()
        return not self._is_trusted(peer) or last not in SECURE

    def is_origin_allowed(self, peer: str, headers: Mapping[str, str]) -> bool:
        """May a page from this Origin open a WebSocket?"""
        return is_origin_allowed(peer, headers, self._origins)

    def _is_trusted(self, address: str) -> bool:
        if not self._trusted:
            return False
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)


def joined(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by name in lower case; those that come several times are one, in order (RFC 9110 §5.3)."""
    headers: dict[str, str] = {}
    for name, value in items:
        key = name.lower()
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    return headers


def _parsed(hop: str) -> str | None:
    """An address as text that may be logged, or None when it is none."""
    host = hop[1:].partition("]")[0] if hop.startswith("[") else hop
    if host.count(":") == 1:  # an IPv4 address with a port
        host = host.partition(":")[0]
    plain = plain_address(host)
    return plain if plain != host or _is_address(plain) else None


@lru_cache(maxsize=ADDRESSES_KEPT_MAX)
def plain_address(text: str) -> str:
    """An address in one spelling: an IPv4 address inside IPv6 (`::ffff:…`) as IPv4."""
    try:
        parsed = ip_address(text)
    except ValueError:
        return text
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return str(mapped or parsed)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=ADDRESSES_KEPT_MAX)
def limit_key_of(address: str) -> str:
    """The key for limits: an IPv4 address, or an IPv6 network of IPV6_PREFIX bits."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        mapped = parsed.ipv4_mapped  # ::ffff:192.0.2.7 is 192.0.2.7, spelled by a socket for both families
        return str(mapped or ip_network((parsed, IPV6_PREFIX), strict=False))
    return address


@lru_cache(maxsize=HOSTS_KEPT_MAX)
def is_loopback(host: str) -> bool:
    """Whether it is an address or name of this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_local(peer: str, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from this machine and nowhere else.

    A request that came through a proxy, or that names a host which is not this machine (a page of another
    site whose name was made to point here), is not local.
    """
    is_forwarded = any(name in headers for name in FORWARDING)
    return is_loopback(peer) and not is_forwarded and has_loopback_host(headers)


def has_loopback_host(headers: Mapping[str, str]) -> bool:
    """Whether the Host header names this machine."""
    return is_loopback(_host_of(f"//{headers.get('host', '')}"))


def is_origin_allowed(peer: str, headers: Mapping[str, str], allowed: frozenset[str]) -> bool:
    """May a page from this Origin open a WebSocket?

    No Origin: not a browser, yes. Else it must be in the list, or the very host that it asks; with an empty
    list, on this very machine, any page of this very machine may, too.
    """
    origin = headers.get("origin")
    if origin is None:
        return True
    if origin in allowed:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:  # a bracket that is not closed
        return False
    if parts.scheme not in DEFAULT_PORTS or not parts.netloc:
        return False
    if _plain_host(parts.netloc, parts.scheme) == _plain_host(headers.get("host", ""), parts.scheme):
        return True
    if allowed:
        return False
    return is_loopback(peer) and is_loopback(_host_of(origin)) and has_loopback_host(headers)


def _plain_origin(origin: str) -> str:
    """An origin of the settings as browsers send it: no slash at its end, no port that it has anyway."""
    scheme, separator, host = origin.rstrip("/").partition("://")
    return f"{scheme}{separator}{_plain_host(host, scheme)}"


def _plain_host(host: str, scheme: str) -> str:
    return host.lower().removesuffix(DEFAULT_PORTS.get(scheme, " "))


@lru_cache(maxsize=HOSTS_KEPT_MAX)
def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
