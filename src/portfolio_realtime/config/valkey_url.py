"""Where Valkey is: the URL that the settings make, and what a URL of somebody's own may say."""

from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

SCHEMES: Final = ("redis", "rediss")
SOCKET: Final = "unix"  # the scheme of a socket in the file system
PORT: Final = 6379  # where a URL names none
SENTINEL_PORT: Final = 26379  # where REDIS_SENTINELS names none
SENTINEL_MASTER: Final = "sentinel_master"  # option of our own: the hosts are Sentinels, which know this name
EXAMPLES: Final = (
    "redis://127.0.0.1:6379/0, rediss://:password@host:6380/0 or unix:///run/valkey/valkey.sock?db=0"
)
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
    if url.startswith(f"{SOCKET}:"):
        _check_socket(urlsplit(url))
        return
    try:
        hosts = [urlsplit(one) for one in each_host(url)]
        is_wrong = any(one.scheme not in SCHEMES or not one.hostname or one.port == 0 for one in hosts)
    except ValueError:
        raise ValueError(f"must be a URL such as {EXAMPLES}") from None
    if is_wrong:
        raise ValueError(f"must be a URL such as {EXAMPLES}")
    parts = hosts[0]
    database = _database(parts)
    if database and not database.isdecimal():
        raise ValueError("must end with the number of a database, such as /0")
    if parts.fragment:
        raise ValueError("contains '#': write it as %23")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        _check_option(name, value, parts.scheme)


def _check_socket(parts: SplitResult) -> None:
    if parts.hostname or not parts.path.strip("/"):
        raise ValueError("must name a socket by its whole path, such as unix:///run/valkey/valkey.sock?db=0")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name != "db" or not value.isdecimal():
            raise ValueError(f"has the option {name}={value}: a unix:// URL may only have db=NUMBER")
    if parts.fragment:
        raise ValueError("contains '#': write it as %23")


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


def check_host(hosts: str) -> None:
    """Raises ValueError with the remedy when a host, or one of several, is none, or more than that."""
    for host in hosts.split(","):
        if is_ipv6(host) or not hosts:
            continue
        if not host.strip() or any(sign in host for sign in "/@?#") or "://" in host:
            raise ValueError("must be a host only; a whole URL goes into REDIS_URL")
        name, colon, port = host.partition(":")
        if colon:
            raise ValueError(f"must be a host only: REDIS_HOST={name} and REDIS_PORT={port}")


def each_host(url: str) -> list[str]:
    """A URL of one host for each host of a URL: `redis://a:7000,b:7001/0` names nodes of a cluster."""
    parts = urlsplit(url)
    login, sign, hosts = parts.netloc.rpartition("@")
    return [parts._replace(netloc=login + sign + host.strip()).geturl() for host in hosts.split(",")]


def at(url: str, host: str, port: int) -> str:
    """The same URL at another place."""
    parts = urlsplit(url)
    login, sign, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{login}{sign}{_bracketed(host)}:{port}").geturl()


def host_of(url: str) -> str:
    """The host of a URL of one host."""
    return urlsplit(url).hostname or ""


def place_of(url: str) -> str:
    """Host and port of a URL of one host, or the path of its socket, as a person reads them."""
    parts = urlsplit(url)
    if parts.scheme == SOCKET:
        return unquote(parts.path)
    if name := sentinel_master_of(url):
        return f"the primary {name!r} of the Sentinels {parts.netloc.rpartition('@')[2]}"
    return f"{_bracketed(parts.hostname or '')}:{parts.port or PORT}"


def database_of(url: str) -> int:
    """The number of the database in a URL; 0 where it says none."""
    return int(_database(urlsplit(url)) or 0)


def _database(parts: SplitResult) -> str:
    if parts.scheme == SOCKET:
        return dict(parse_qsl(parts.query)).get("db", "")
    return unquote(parts.path).strip("/")


def _bracketed(host: str) -> str:
    return f"[{host.strip('[]')}]" if is_ipv6(host) else host


def is_ipv6(host: str) -> bool:
    """Is it an IPv6 address, with or without brackets?"""
    try:
        return ip_address(host.strip("[]")).version == 6
    except ValueError:
        return False


def url_of(
    host: str, port: int, database: int, *, user: str, password: str, tls_files: dict[str, str] | None
) -> str:
    """The URL of these parts, with one host or several by commas; `tls_files` is None without TLS."""
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    places = ",".join(f"{_bracketed(one.strip())}:{port}" for one in host.split(","))
    scheme = "redis" if tls_files is None else "rediss"
    options = urlencode({name: path for name, path in (tls_files or {}).items() if path})
    return f"{scheme}://{login}{places}/{database}{options and '?'}{options}"


def sentinels_of(text: str) -> list[tuple[str, int]]:
    """Host and port of each of REDIS_SENTINELS. Raises ValueError with the remedy."""
    found: list[tuple[str, int]] = []
    for one in text.split(","):
        try:
            parts = urlsplit(f"//{one.strip()}")
            host, port = parts.hostname, SENTINEL_PORT if parts.port is None else parts.port
        except ValueError:
            host, port = None, 0
        else:
            host = None if parts.path or parts.query or parts.username is not None else host
        if not host or not port:
            raise ValueError(f"{one.strip()!r} is no host:port: write host1:26379,host2:26379,host3:26379")
        found.append((host, port))
    return found


def by_sentinel(url: str, sentinels: list[tuple[str, int]], name: str) -> str:
    """A URL of the primary that these Sentinels call by this name: its login, database and files of TLS."""
    parts = urlsplit(url)
    login, sign, _ = parts.netloc.rpartition("@")
    places = ",".join(f"{_bracketed(host)}:{port}" for host, port in sentinels)
    query = "&".join(part for part in (parts.query, urlencode({SENTINEL_MASTER: name})) if part)
    return parts._replace(netloc=login + sign + places, query=query).geturl()


def sentinel_master_of(url: str) -> str:
    """The name of the primary in a URL of Sentinels; "" in any other."""
    return dict(parse_qsl(urlsplit(url).query)).get(SENTINEL_MASTER, "")


def without_sentinels(url: str) -> tuple[str, list[tuple[str, int]]]:
    """What is left of a URL of Sentinels for the library, and where these are."""
    parts = urlsplit(url)
    login, sign, places = parts.netloc.rpartition("@")
    sentinels = sentinels_of(places)
    query = urlencode([pair for pair in parse_qsl(parts.query) if pair[0] != SENTINEL_MASTER])
    host, port = sentinels[0]
    return parts._replace(netloc=f"{login}{sign}{_bracketed(host)}:{port}", query=query).geturl(), sentinels


def without_login(url: str) -> str:
    """The same without user, password and database: servers and their Sentinels have users of their own."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], path="").geturl()


def password_of(url: str) -> str:
    """The password in a URL, "" without one."""
    try:
        return unquote(urlsplit(url).password or "")
    except ValueError:
        return ""
