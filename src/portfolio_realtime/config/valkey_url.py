"""Where Valkey is: the URL that the settings make, and what a URL of somebody's own may say."""

from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

SCHEMES: Final = ("redis", "rediss")
EXAMPLES: Final = "redis://127.0.0.1:6379/0 or rediss://:password@host:6380/0"
CERTIFICATE_CHECKS: Final = ("required", "optional", "none")
TLS_OPTIONS: Final = (
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_check_hostname",
    "ssl_cert_reqs",
)


def check_url(url: str) -> None:
    """Raises ValueError with the remedy when a URL is none, or says what we do not understand."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"must be a URL such as {EXAMPLES}") from None
    if parts.scheme not in SCHEMES or not parts.hostname or port == 0:
        raise ValueError(f"must be a URL such as {EXAMPLES}")
    database = unquote(parts.path).strip("/")
    if database and not database.isdecimal():
        raise ValueError("must end with the number of a database, such as /0")
    if parts.fragment:
        raise ValueError("contains '#': write it as %23")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        _check_option(name, value, parts.scheme)


def _check_option(name: str, value: str, scheme: str) -> None:
    if name not in TLS_OPTIONS:
        known = ", ".join(TLS_OPTIONS)
        raise ValueError(f"has the option {name!r}, which is not supported: remove it; supported are {known}")
    if scheme != "rediss":
        raise ValueError(f"has the option {name!r}, which is for TLS: begin with rediss://")
    if name == "ssl_cert_reqs" and value not in CERTIFICATE_CHECKS:
        raise ValueError(f"ssl_cert_reqs must be one of {', '.join(CERTIFICATE_CHECKS)}")
    if name == "ssl_check_hostname" and value not in ("true", "false"):
        raise ValueError("ssl_check_hostname must be true or false")
    if not value:
        raise ValueError(f"has an empty option {name!r}: remove it, or name a file")


def check_host(host: str) -> None:
    """Raises ValueError with the remedy when a host is none, or more than that."""
    if not host or is_ipv6(host):
        return
    if any(sign in host for sign in "/@?#") or "://" in host:
        raise ValueError("must be a host only; a whole URL goes into REDIS_URL")
    name, colon, port = host.partition(":")
    if colon:
        raise ValueError(f"must be a host only: REDIS_HOST={name} and REDIS_PORT={port}")


def is_ipv6(host: str) -> bool:
    """Is it an IPv6 address, with or without brackets?"""
    try:
        return ip_address(host.strip("[]")).version == 6
    except ValueError:
        return False


def url_of(
    host: str, port: int, database: int, *, user: str, password: str, tls_files: dict[str, str] | None
) -> str:
    """The URL of these parts; `tls_files` (option -> path) is None without TLS."""
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    place = f"[{host.strip('[]')}]" if is_ipv6(host) else host
    scheme = "redis" if tls_files is None else "rediss"
    options = urlencode({name: path for name, path in (tls_files or {}).items() if path})
    return f"{scheme}://{login}{place}:{port}/{database}{options and '?'}{options}"


def password_of(url: str) -> str:
    """The password in a URL, "" without one."""
    try:
        return unquote(urlsplit(url).password or "")
    except ValueError:
        return ""
