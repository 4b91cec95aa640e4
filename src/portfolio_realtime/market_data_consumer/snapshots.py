"""Snapshots over REST: each symbol's latest trade and daily bars, which the stream does not repeat.

Symbols that the venue does not know are missing from the answer, and parts of a snapshot may be missing. Both
are normal. If one malformed symbol makes the feed refuse a request, the request is split until that symbol is
alone.
"""

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

import msgspec

from portfolio_realtime.alpaca.credentials import MarketLogin
from portfolio_realtime.alpaca.http import Answer, HttpClient
from portfolio_realtime.backoff import Backoff
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import FeedRefused, FeedUnavailable, RequestFailed, TokenRefused
from portfolio_realtime.market_data_consumer.feeds import Feed
from portfolio_realtime.market_data_consumer.messages import Snapshot
from portfolio_realtime.market_data_consumer.stream import KEYS_REMEDY

SYMBOLS_MAX: Final = 100  # per request
ATTEMPTS_MAX: Final = 4
PAUSE_S_MIN: Final = 0.6  # between two attempts
PAUSE_S_MAX: Final = 2.4
BODY_SHOWN_MAX: Final = 200  # characters of a refusal that our message quotes

_MISFORMED: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)
_REFUSED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN)
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
        self._http = HttpClient(settings.host("data"), login.authentication)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def read(self, symbols: Sequence[str]) -> dict[str, Snapshot]:
        """Snapshots of at most SYMBOLS_MAX symbols, without those that the venue does not know.

        Raises FeedRefused, FeedUnavailable.
        """
        assert len(symbols) <= SYMBOLS_MAX
        answer = await self._get(symbols)
        if answer.status in _MISFORMED:
            if len(symbols) <= 1:
                return {}
            half = len(symbols) // 2
            return {**await self.read(symbols[:half]), **await self.read(symbols[half:])}
        return self._decode(answer.body)

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

    async def _get(self, symbols: Sequence[str]) -> Answer:
        parameters = {"symbols": ",".join(symbols)}
        if self.feed.snapshots_feed is not None:
            parameters["feed"] = self.feed.snapshots_feed
        reason, backoff = "", Backoff(PAUSE_S_MIN, PAUSE_S_MAX)
        for attempt in range(ATTEMPTS_MAX):
            if attempt:
                await asyncio.sleep(backoff.next_s())
            try:
                answer = await self._http.get(self.feed.snapshots_path, parameters)
            except TokenRefused as error:
                raise FeedRefused(str(error)) from error
            except RequestFailed as error:
                reason = str(error)
                continue
            if answer.status in _REFUSED or _NO_PERMISSION in answer.body:
                raise FeedRefused(_refusal(self.feed, answer))
            if answer.is_success or answer.status in _MISFORMED:
                return answer
            reason = f"HTTP {answer.status}"
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


def _refusal(feed: Feed, answer: Answer) -> str:
    body = answer.body.decode(errors="replace")[:BODY_SHOWN_MAX]
    return (
        f"snapshots of {feed.name} are refused (HTTP {answer.status}: {body}); {KEYS_REMEDY}, and that "
        f"the plan includes {feed.setting}={feed.source}"
    )
