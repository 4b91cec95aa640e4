"""Snapshots over REST: each symbol's latest trade and daily bars, which the stream does not repeat.

Symbols that the venue does not know are missing from the answer, and parts of a snapshot may be missing. Both
are normal. If one malformed symbol makes the feed refuse a request, the request is split until that symbol is
alone.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import httpx
import msgspec

from portfolio_realtime.alpaca.credentials import MarketLogin
from portfolio_realtime.backoff import Backoff
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import FeedRefused, FeedUnavailable, TokenRefused
from portfolio_realtime.market_data_consumer.feeds import Feed
from portfolio_realtime.market_data_consumer.messages import Snapshot
from portfolio_realtime.market_data_consumer.stream import KEYS_REMEDY
from portfolio_realtime.outbound import transport_to

SYMBOLS_MAX: Final = 100  # per request
TIMEOUT_S: Final = 10.0
ATTEMPTS_MAX: Final = 4
PAUSE_S_MIN: Final = 0.6  # between two attempts
PAUSE_S_MAX: Final = 2.4
BODY_SHOWN_MAX: Final = 200  # characters of a refusal that our message quotes

_MISFORMED: Final = (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND, httpx.codes.UNPROCESSABLE_ENTITY)
_REFUSED: Final = (httpx.codes.UNAUTHORIZED, httpx.codes.PAYMENT_REQUIRED, httpx.codes.FORBIDDEN)
_NO_PERMISSION: Final = b"subscription does not permit"

_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_PARTS: Final = ("latestTrade", "dailyBar", "prevDailyBar", "latestQuote")

_by_symbol = msgspec.json.Decoder(dict[str, msgspec.Raw])
_snapshot = msgspec.json.Decoder(Snapshot)


class _Wrapped(msgspec.Struct):
    snapshots: dict[str, msgspec.Raw] = {}


_wrapped = msgspec.json.Decoder(_Wrapped)


class Snapshots:
    """The snapshot endpoint of one feed."""

    def __init__(
        self,
        settings: Settings,
        feed: Feed,
        login: MarketLogin,
        refused: Callable[[str, str], None] = lambda symbol, reason: None,
    ) -> None:
        """`refused` is called with symbol and reason for each snapshot with an unreadable part."""
        self.feed = feed
        self._refused = refused
        url = settings.host("data")
        self._client = httpx.AsyncClient(
            base_url=url, timeout=TIMEOUT_S, auth=login.auth, transport=transport_to(url)
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def read(self, symbols: Sequence[str]) -> dict[str, Snapshot]:
        """Snapshots of at most SYMBOLS_MAX symbols, without those that the venue does not know.

        Raises FeedRefused, FeedUnavailable.
        """
        assert len(symbols) <= SYMBOLS_MAX
        answer = await self._get(symbols)
        if answer.status_code in _MISFORMED:
            if len(symbols) <= 1:
                return {}
            half = len(symbols) // 2
            return {**await self.read(symbols[:half]), **await self.read(symbols[half:])}
        return self._decode(answer.content)

    def _decode(self, body: bytes) -> dict[str, Snapshot]:
        try:
            is_bare = self.feed.snapshots_path.startswith("/v2/")
            found = _by_symbol.decode(body) if is_bare else _wrapped.decode(body).snapshots
        except _UNREADABLE as error:
            raise FeedUnavailable(f"snapshots of {self.feed.name} cannot be read: {error}") from error
        snapshots: dict[str, Snapshot] = {}
        for symbol, raw in found.items():
            try:
                snapshots[symbol] = _snapshot.decode(raw)
            except _UNREADABLE as error:
                self._refused(symbol, str(error))
                if (rest := _readable(raw)) is not None:
                    snapshots[symbol] = rest
        return snapshots

    async def _get(self, symbols: Sequence[str]) -> httpx.Response:
        parameters = {"symbols": ",".join(symbols)}
        if self.feed.snapshots_feed is not None:
            parameters["feed"] = self.feed.snapshots_feed
        reason, backoff = "", Backoff(PAUSE_S_MIN, PAUSE_S_MAX)
        for attempt in range(ATTEMPTS_MAX):
            if attempt:
                await asyncio.sleep(backoff.next_s())
            try:
                answer = await self._client.get(self.feed.snapshots_path, params=parameters)
            except TokenRefused as error:
                raise FeedRefused(str(error)) from error
            except httpx.HTTPError as error:
                reason = f"{type(error).__name__} {error}"
                continue
            if answer.status_code in _REFUSED or _NO_PERMISSION in answer.content:
                raise FeedRefused(_refusal(self.feed, answer))
            if answer.is_success or answer.status_code in _MISFORMED:
                return answer
            reason = f"HTTP {answer.status_code}"
        raise FeedUnavailable(f"no snapshots of {self.feed.name}: {reason}")


def _readable(raw: msgspec.Raw) -> Snapshot | None:
    """The parts of a snapshot that can be read; None if there are none."""
    try:
        parts = _by_symbol.decode(raw)
    except _UNREADABLE:
        return None
    found: dict[str, msgspec.Raw] = {}
    for name in _PARTS:
        try:
            if name in parts:
                _snapshot.decode(msgspec.json.encode({name: parts[name]}))
                found[name] = parts[name]
        except _UNREADABLE:
            continue
    return _snapshot.decode(msgspec.json.encode(found)) if found else None


def _refusal(feed: Feed, answer: httpx.Response) -> str:
    body = answer.text[:BODY_SHOWN_MAX]
    return (
        f"snapshots of {feed.name} are refused (HTTP {answer.status_code}: {body}); {KEYS_REMEDY}, and that "
        f"the plan includes {feed.setting}={feed.source}"
    )
