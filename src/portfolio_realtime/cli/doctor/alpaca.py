"""Checks Alpaca's host, the keys, this machine's clock and the rate limit.

One request answers all four: the market clock, which all valid credentials may read.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from portfolio_realtime.alpaca.credentials import key_headers
from portfolio_realtime.alpaca.http import Authentication, HttpClient
from portfolio_realtime.cli.doctor.findings import Finding, Status
from portfolio_realtime.cli.doctor.limits import Asked
from portfolio_realtime.clock import NS_PER_S, parse_rfc3339
from portfolio_realtime.config import Settings, described_source
from portfolio_realtime.errors import RequestFailed, TokenRefused
from portfolio_realtime.symbol_collector.sources.broker_client import credentials
from portfolio_realtime.symbol_collector.sources.trading_client import REMEDY as TRADING_REMEDY

SKEW_S_WARN: Final = 0.5  # account records tolerate this difference from the broker's clock
SKEW_S_FAIL: Final = 5.0
REMAINING_SHARE_WARN: Final = 0.1
OK: Final = 200
TOO_MANY: Final = 429
REFUSED: Final = (401, 403)

_BROKER_REMEDY: Final = (
    "check BROKER_API_KEY and BROKER_SECRET_KEY (or BROKER_CLIENT_ID and BROKER_CLIENT_SECRET), and that "
    "ALPACA_SANDBOX matches them: true for the sandbox, false for production"
)
_SECOND_NS: Final = NS_PER_S


@dataclass(frozen=True)
class TimedAnswer:
    """An HTTP answer, with the times of the request and of the answer by our clock, in ns since the epoch."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_ns: int
    received_ns: int


def authentication(settings: Settings) -> Authentication:
    """The authentication of requests to the account source."""
    if settings.account_source == "trading":
        return key_headers(settings.apca_api_key_id, settings.apca_api_secret_key.get_secret_value())
    return credentials(settings)


def source(settings: Settings) -> Finding:
    """Which accounts the keys let us follow."""
    told, _, missing = described_source(settings).partition(": ")
    if settings.account_source == "none":
        return Finding("keys", Status.FAIL, told, missing)
    return Finding("keys", Status.OK, told)


def asked(settings: Settings) -> Asked:
    """The host of the account source."""
    name = "broker" if settings.account_source == "broker" else "trading"
    return Asked(settings.host(name), remedy(name))


def remedy(host: str) -> str:
    """What to do when this host of Alpaca does not answer."""
    return f"check the network, a proxy or firewall in between, and ALPACA_{host.upper()}_URL"


async def ask(settings: Settings) -> TimedAnswer | Finding:
    """Request the market clock. Returns the answer, or a Finding when there is none."""
    is_broker = settings.account_source == "broker"
    name = "broker" if is_broker else "trading"
    url = settings.host(name)
    try:
        async with HttpClient(url, authentication(settings)) as http:
            sent_ns = time.time_ns()
            answer = await http.get(f"/{'v1' if is_broker else 'v2'}/clock")
    except TokenRefused as error:
        return Finding("Alpaca host", Status.FAIL, str(error), _BROKER_REMEDY)
    except RequestFailed as error:
        return Finding("Alpaca host", Status.FAIL, f"{url}: {error}", remedy(name))
    return TimedAnswer(answer.status, answer.headers, answer.body, sent_ns, time.time_ns())


def access(settings: Settings, answer: TimedAnswer) -> Finding:
    """Whether the host accepts the keys."""
    name = "broker" if settings.account_source == "broker" else "trading"
    host = settings.host(name)
    took_ms = (answer.received_ns - answer.sent_ns) / 1e6
    if answer.status in REFUSED:
        check_keys = _BROKER_REMEDY if name == "broker" else TRADING_REMEDY
        return Finding("Alpaca keys", Status.FAIL, f"{host} refuses them (HTTP {answer.status})", check_keys)
    if answer.status == TOO_MANY:
        return Finding(
            "Alpaca keys", Status.WARN, f"{host} answers HTTP 429", "wait a minute, then ask again"
        )
    if answer.status != OK or _clock(answer) is None:
        return Finding(
            "Alpaca keys",
            Status.FAIL,
            f"{host} answers HTTP {answer.status} and no clock",
            f"check ALPACA_{name.upper()}_URL; if it is right, try again later",
        )
    return Finding("Alpaca keys", Status.OK, f"{host} accepts them, {took_ms:.0f} ms")


def clock(answer: TimedAnswer) -> Finding:
    """Whether this machine's clock agrees with Alpaca's."""
    told = _told_ns(answer)
    if told is None:
        return Finding("clock", Status.SKIP, "Alpaca's answer has no time")
    earliest_ns, latest_ns = told
    skew_s = max(earliest_ns - answer.received_ns, answer.sent_ns - latest_ns, 0) / 1e9
    direction = "behind" if earliest_ns > answer.received_ns else "ahead"
    found = f"{skew_s:.1f} s {direction}" if skew_s >= SKEW_S_WARN else "the same as Alpaca's"
    is_open = (_clock(answer) or {}).get("is_open")
    if is_open is False:
        found += "; the stock market is closed: prices do not move"
    if skew_s < SKEW_S_WARN:
        return Finding("clock", Status.OK, found)
    status = Status.FAIL if skew_s >= SKEW_S_FAIL else Status.WARN
    return Finding("clock", status, found, "set this machine's clock by NTP: timedatectl set-ntp true")


def rate_limit(answer: TimedAnswer) -> Finding:
    """How many requests per minute are allowed, and how many are left."""
    limit, remaining = (_number(answer, f"x-ratelimit-{name}") for name in ("limit", "remaining"))
    if limit is None or remaining is None:
        return Finding(
            "rate limit",
            Status.WARN,
            "Alpaca sends no rate-limit headers",
            "check whether a proxy removes them",
        )
    found = f"{remaining} of {limit} requests a minute are left"
    if remaining < REMAINING_SHARE_WARN * limit:
        own_key = "another program may use this key: give each a key of its own"
        return Finding("rate limit", Status.WARN, found, own_key)
    return Finding("rate limit", Status.OK, found)


def _told_ns(answer: TimedAnswer) -> tuple[int, int] | None:
    """The times, by Alpaca's clock, between which it made the answer; None: it does not say."""
    try:
        text = str((_clock(answer) or {}).get("timestamp") or "")
        if "." in text:
            told_ns = parse_rfc3339(text)
            return told_ns, told_ns
        told_s = int(parsedate_to_datetime(answer.headers["date"]).astimezone(UTC).timestamp())
    except (KeyError, ValueError):
        return None
    return told_s * _SECOND_NS, (told_s + 1) * _SECOND_NS


def _clock(answer: TimedAnswer) -> dict[str, Any] | None:
    try:
        body = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return body if isinstance(body, dict) and "timestamp" in body else None


def _number(answer: TimedAnswer, name: str) -> int | None:
    text = answer.headers.get(name, "")
    return int(text) if text.isdecimal() else None
