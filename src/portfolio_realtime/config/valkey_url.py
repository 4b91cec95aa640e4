"""URLs of Valkey: built from the settings, checked, and taken apart.

A URL may name several hosts, separated by commas: nodes of a cluster, or with the option `sentinel_master`
the Sentinels that know the primary.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from portfolio_realtime.config.urls import is_host

SCHEMES: Final = ("redis", "rediss")
SOCKET: Final = "unix"  # the scheme of a socket in the file system
PORT: Final = 6379  # of a URL without a port
SENTINEL_PORT: Final = 26379  # of an entry of REDIS_SENTINELS without a port
# Our own options: the password is in this file and may change; the hosts are Sentinels that know this name.
PASSWORD_FILE: Final = "password_file"  # noqa: S105  # the option's name
SENTINEL_MASTER: Final = "sentinel_master"
EXAMPLES: Final = (
    "redis://127.0.0.1:6379/0, rediss://:password@host:6380/0 or unix:///run/valkey/valkey.sock?db=0"
)
CERTIFICATE_CHECKS: Final = ("required", "optional", "none")
OF_A_SERVER: Final = ("redis_port", "redis_db", "redis_user", "redis_ssl")
TLS_OPTIONS: Final = (
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_check_hostname",
    "ssl_cert_reqs",
)


def check_url(url: str) -> None:
    """Raises ValueError with the remedy when a URL is not valid or has an option that is not supported."""
    if url.startswith(f"{SOCKET}:"):
        _check_socket(urlsplit(url))
        return
    try:
        hosts = [urlsplit(one) for one in each_host(url)]
        is_wrong = any(
            one.scheme not in SCHEMES or not is_host(one.hostname or "") or one.port == 0 for one in hosts
        )
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
    """Raises ValueError with the remedy when one of the hosts (separated by commas) is not only a host."""
    for host in hosts.split(","):
        if is_ipv6(host) or not hosts:
            continue
        if not host.strip() or any(sign in host for sign in "/@?#") or "://" in host:
            raise ValueError("must be a host only; a whole URL goes into REDIS_URL")
        name, colon, port = host.partition(":")
        if colon and "," in hosts:
            raise ValueError(f"must be hosts only; with ports: REDIS_URL=redis://{hosts}/0")
        if colon:
            raise ValueError(f"must be a host only: REDIS_HOST={name} and REDIS_PORT={port}")
        if not is_host(host.strip()):
            raise ValueError("is not a host: it has a blank, a quotation mark, or an empty part between dots")


def check_no_server(changed: Iterable[str]) -> None:
    """Raises ValueError when parts of OF_A_SERVER are set, and no server to which they belong."""
    if names := " and ".join(name.upper() for name in changed):
        raise ValueError(
            f"{names} without REDIS_HOST: an embedded Valkey would be started, which has none of it; set "
            "REDIS_HOST, for example to localhost"
        )


def check_alone(url: str, *, is_tls: bool, user: str, password: str, database: int) -> None:
    """Raises ValueError when a part that is also set would be ignored, because the whole URL lacks it."""
    parts = urlsplit(url)
    if is_tls and parts.scheme == SCHEMES[0]:
        raise ValueError("REDIS_SSL=true is not used with REDIS_URL: begin REDIS_URL with rediss://")
    if (user or password) and not (parts.username or parts.password):
        raise ValueError(
            "REDIS_USER and REDIS_PASSWORD are not used with REDIS_URL: write "
            "REDIS_URL=redis://USER:PASSWORD@HOST:PORT/0, or set REDIS_HOST instead of REDIS_URL"
        )
    if database and not _database(parts):
        raise ValueError(f"REDIS_DB is not used with REDIS_URL: end REDIS_URL with /{database}")


def each_host(url: str) -> list[str]:
    """One URL per host of a URL with several, such as `redis://a:7000,b:7001/0` for nodes of a cluster."""
    parts = urlsplit(url)
    login, sign, hosts = parts.netloc.rpartition("@")
    return [parts._replace(netloc=login + sign + host.strip()).geturl() for host in hosts.split(",")]


def at(url: str, host: str, port: int) -> str:
    """The same URL with another host and port."""
    parts = urlsplit(url)
    login, sign, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{login}{sign}{_bracketed(host)}:{port}").geturl()


def host_of(url: str) -> str:
    """The host of a URL with one host; "" without one."""
    return urlsplit(url).hostname or ""


def place_of(url: str) -> str:
    """Where a URL leads, for people: host and port, the path of a socket, or primary and Sentinels."""
    parts = urlsplit(url)
    if parts.scheme == SOCKET:
        return unquote(parts.path)
    if name := sentinel_master_of(url):
        return f"the primary {name!r} of the Sentinels {parts.netloc.rpartition('@')[2]}"
    return f"{_bracketed(parts.hostname or '')}:{parts.port or PORT}"


def database_of(url: str) -> int:
    """The database number in a URL; 0 without one."""
    return int(_database(urlsplit(url)) or 0)


def _database(parts: SplitResult) -> str:
    if parts.scheme == SOCKET:
        return dict(parse_qsl(parts.query)).get("db", "")
    return unquote(parts.path).strip("/")


def _bracketed(host: str) -> str:
    return f"[{host.strip('[]')}]" if is_ipv6(host) else host


def is_ipv6(host: str) -> bool:
    """Whether a host is an IPv6 address, with or without brackets."""
    try:
        return ip_address(host.strip("[]")).version == 6
    except ValueError:
        return False


def url_of(
    host: str, port: int, database: int, *, user: str, password: str, tls_files: dict[str, str] | None
) -> str:
    """Build a URL; `host` may be several hosts, separated by commas.

    `tls_files` maps TLS options to paths, of which empty ones are left out; None: without TLS.
    """
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    places = ",".join(f"{_bracketed(one.strip())}:{port}" for one in host.split(","))
    scheme = "redis" if tls_files is None else "rediss"
    options = urlencode({name: path for name, path in (tls_files or {}).items() if path})
    return f"{scheme}://{login}{places}/{database}{options and '?'}{options}"


def sentinels_of(text: str) -> list[tuple[str, int]]:
    """Host and port of each entry of REDIS_SENTINELS. Raises ValueError with the remedy."""
    found: list[tuple[str, int]] = []
    for one in text.split(","):
        try:
            parts = urlsplit(f"//{one.strip()}")
            host, port = parts.hostname, SENTINEL_PORT if parts.port is None else parts.port
        except ValueError:
            host, port = None, 0
        else:
            host = None if parts.path or parts.query or parts.username is not None else host
        if not host or not port or not is_host(host):
            raise ValueError(f"{one.strip()!r} is not host:port: write host1:26379,host2:26379,host3:26379")
        found.append((host, port))
    return found


def by_sentinel(url: str, sentinels: list[tuple[str, int]], name: str) -> str:
    """A URL for the primary that these Sentinels know as `name`.

    Login, database and TLS options of `url` are the primary's.
    """
    parts = urlsplit(url)
    login, sign, _ = parts.netloc.rpartition("@")
    places = ",".join(f"{_bracketed(host)}:{port}" for host, port in sentinels)
    query = "&".join(part for part in (parts.query, urlencode({SENTINEL_MASTER: name})) if part)
    return parts._replace(netloc=login + sign + places, query=query).geturl()


def sentinel_master_of(url: str) -> str:
    """The name of the primary in a URL of Sentinels; "" for any other URL."""
    return dict(parse_qsl(urlsplit(url).query)).get(SENTINEL_MASTER, "")


def without_sentinels(url: str) -> tuple[str, list[tuple[str, int]]]:
    """Split a URL of Sentinels into a URL for the client library, and host and port of each Sentinel."""
    parts = urlsplit(url)
    login, sign, places = parts.netloc.rpartition("@")
    sentinels = sentinels_of(places)
    query = urlencode([pair for pair in parse_qsl(parts.query) if pair[0] != SENTINEL_MASTER])
    host, port = sentinels[0]
    return parts._replace(netloc=f"{login}{sign}{_bracketed(host)}:{port}", query=query).geturl(), sentinels


def with_password_file(url: str, path: str) -> str:
    """A URL whose password is read from a file for each connection."""
    parts = urlsplit(url)
    query = "&".join(part for part in (parts.query, urlencode({PASSWORD_FILE: path})) if part)
    return parts._replace(query=query).geturl()


def without_password_file(url: str) -> tuple[str, str, str]:
    """Split such a URL into one without login, the user, and the path; the path is "" for any other URL."""
    parts = urlsplit(url)
    options = parse_qsl(parts.query)
    if not (path := dict(options).get(PASSWORD_FILE, "")):
        return url, "", ""
    query = urlencode([pair for pair in options if pair[0] != PASSWORD_FILE])
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=place, query=query).geturl(), unquote(parts.username or ""), path


def without_login(url: str) -> str:
    """The URL without user, password and database: Sentinels do not have those of their servers."""
    parts = urlsplit(without_password_file(url)[0])
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], path="").geturl()


def password_of(url: str) -> str:
    """The password in a URL; "" without one or when the URL is not valid."""
    try:
        return unquote(urlsplit(url).password or "")
    except ValueError:
        return ""
