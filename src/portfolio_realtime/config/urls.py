"""Parses and checks URLs and lists in settings."""

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

_LABEL: Final = re.compile(r"[\w-]{1,63}")  # a part of a host name; also with other letters than ASCII


def listed(text: str) -> list[str]:
    """The parts of a comma-separated setting, stripped, without empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]


def is_near(host: str) -> bool:
    """Whether a host is this machine, or a name without a dot, such as a container in the same network."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return "." not in host


def is_host(host: str) -> bool:
    """Whether it is an IP address, or may be a host name. No resolver accepts anything else."""
    try:
        ip_address(host)
    except ValueError:
        return all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split("."))
    return True


def base_url(url: str, schemes: tuple[str, ...]) -> str:
    """The URL without a trailing slash; "" stays "". Raises ValueError when it has a path or a login."""
    if not url:
        return url
    parts = parts_of(url, schemes)
    if parts is None or parts.path not in ("", "/") or parts.query or parts.username is not None:
        raise ValueError(f"must be a base URL without a path, such as {schemes[0]}://127.0.0.1:8900")
    return url.rstrip("/")


def parts_of(url: str, schemes: tuple[str, ...]) -> SplitResult | None:
    """The parts of a URL; None when it has none of these schemes, no host, or an impossible port."""
    try:
        parts = urlsplit(url)
        is_complete = parts.scheme in schemes and is_host(parts.hostname or "") and parts.port != 0
    except ValueError:  # the port is not a number, or too large
        return None
    return parts if is_complete else None
