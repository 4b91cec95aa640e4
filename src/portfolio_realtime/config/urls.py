"""What makes a URL or a list in a setting a good one."""

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit


def listed(text: str) -> list[str]:
    """The parts of a setting that are separated by commas, without blanks and empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]


def is_near(host: str) -> bool:
    """Is it this machine, or a name without a dot: a container beside this one?"""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return "." not in host


def base_url(url: str, schemes: tuple[str, ...]) -> str:
    """The URL without a trailing slash, "" stays so. Raises ValueError when it is more than a place."""
    if not url:
        return url
    parts = parts_of(url, schemes)
    if parts is None or parts.path not in ("", "/") or parts.query or parts.username is not None:
        raise ValueError(f"must be a base URL without a path, such as {schemes[0]}://127.0.0.1:8900")
    return url.rstrip("/")


def parts_of(url: str, schemes: tuple[str, ...]) -> SplitResult | None:
    """The URL's parts, or None when it lacks one of these schemes, a host or a possible port."""
    try:
        parts = urlsplit(url)
        is_complete = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no such port
        return None
    return parts if is_complete else None
