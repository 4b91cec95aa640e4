"""One market-data session without its socket: it takes a client's messages and sends control messages."""

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from alpaca_sim.core.credentials import Credentials
from alpaca_sim.streams.feeds import STAR, Feed, Subscriber
from alpaca_sim.streams.messages import encode

AUTH_ATTEMPTS_MAX = 30
AUTOMATIC_CHANNELS = ("corrections", "cancelErrors")  # part of a stock feed's trades channel
ERRORS = {
    400: "invalid syntax",
    401: "not authenticated",
    402: "auth failed",
    403: "already authenticated",
    404: "auth timeout",
    405: "symbol limit exceeded",
    406: "connection limit exceeded",
    407: "slow client",
    409: "insufficient subscription",
    410: "invalid subscribe action for this feed",
    412: "option messages are only available in MsgPack format",
    413: "star subscription is not allowed for option quotes",
}
_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9./\-]{0,31}")
_BEARER_KEYS = ("access_token", "oauth")  # the `key` of an auth message whose `secret` is a token


class SessionError(Exception):
    """An error of the protocol, sent as `{"T":"error", …}`."""

    def __init__(self, code: int) -> None:
        """`code` is one of `ERRORS`."""
        super().__init__(ERRORS[code])
        self.code = code


class Session:
    """The state of one connection: whether it is authenticated, and its subscriptions."""

    def __init__(
        self,
        feed: Feed,
        subscriber: Subscriber,
        credentials: Credentials,
        connection_limit: int,
        symbol_limit: int,
        is_denied: bool,
        has_ghosts: Callable[[], bool] = lambda: False,
        greets_first: bool = True,
    ) -> None:
        """Start unauthenticated.

        `symbol_limit` 0: no limit. `is_denied`: the subscription does not include the feed. `has_ghosts`:
        sessions that were cut still count as connections. `greets_first`: `connected` is sent before
        `authenticated` also after a handshake with credentials.
        """
        self.is_authenticated = False
        self.auth_attempt_count = 0
        self._feed = feed
        self._subscriber = subscriber
        self._credentials = credentials
        self._connection_limit = connection_limit
        self._symbol_limit = symbol_limit
        self._is_denied = is_denied
        self._has_ghosts = has_ghosts
        self._greets_first = greets_first

    def welcome(self, headers: Mapping[str, str]) -> None:
        """Send `connected`, and authenticate at once if the handshake has credentials."""
        has_credentials = "authorization" in headers or "apca-api-key-id" in headers
        if self._greets_first or not has_credentials:
            self._say({"T": "success", "msg": "connected"})
        if has_credentials:
            holder = self._credentials.holder(headers, with_apca=True)
            self._subscriber.has_token = headers.get("authorization", "").lower().startswith("bearer")
            self._answer(lambda: self._admit(holder is not None))

    def receive(self, message: object) -> None:
        """Handle one decoded client message. `None` means a message that could not be decoded."""
        self._answer(lambda: self._handle(message))

    def fail(self, code: int) -> None:
        """Send the error `code`, one of `ERRORS`."""
        self._say({"T": "error", "code": code, "msg": ERRORS[code]})

    def _answer(self, action: Any) -> None:
        try:
            action()
        except SessionError as error:
            self.fail(error.code)

    def _handle(self, message: object) -> None:
        if not isinstance(message, dict):
            raise SessionError(400)
        body = cast("dict[str, Any]", message)
        action = body.get("action")
        if action == "auth":
            if self.is_authenticated:
                raise SessionError(403)
            self._admit(self._is_accepted(str(body.get("key", "")), str(body.get("secret", ""))))
        elif action not in ("subscribe", "unsubscribe"):
            raise SessionError(400)
        elif not self.is_authenticated:
            raise SessionError(401)
        else:
            self._change(body, action == "subscribe")

    def _is_accepted(self, key: str, secret: str) -> bool:
        if key in _BEARER_KEYS:
            self._subscriber.has_token = True
            return self._credentials.is_token(secret)
        return self._credentials.is_data_pair(key, secret)

    def _admit(self, is_accepted: bool) -> None:
        self.auth_attempt_count += 1
        if not is_accepted:
            raise SessionError(402)
        if self._is_denied:
            raise SessionError(409)
        if len(self._feed.subscribers) >= self._connection_limit or self._has_ghosts():
            raise SessionError(406)
        self.is_authenticated = True
        self._feed.subscribers.add(self._subscriber)
        self._say({"T": "success", "msg": "authenticated"})

    def _change(self, body: dict[str, Any], is_subscribe: bool) -> None:
        wanted = {channel: symbols for channel, symbols in body.items() if channel != "action"}
        for channel, symbols in wanted.items():
            self._check(channel, symbols)
        if is_subscribe:
            self._check_limit(wanted)
        change = self._feed.subscribe if is_subscribe else self._feed.unsubscribe
        for channel, symbols in wanted.items():
            if channel not in AUTOMATIC_CHANNELS:
                change(self._subscriber, channel, symbols)
        self._say({"T": "subscription", **self._listing()})

    def _check(self, channel: str, symbols: object) -> None:
        if channel not in self._feed.kind.channels and channel not in AUTOMATIC_CHANNELS:
            raise SessionError(410)
        if not isinstance(symbols, list):
            raise SessionError(400)
        for symbol in cast("list[object]", symbols):
            if symbol == STAR and channel == "quotes" and self._feed.kind.asset_class == "us_option":
                raise SessionError(413)
            if not isinstance(symbol, str) or (symbol != STAR and not _SYMBOL.fullmatch(symbol)):
                raise SessionError(400)

    def _check_limit(self, wanted: dict[str, list[str]]) -> None:
        named = {symbol for symbols in wanted.values() for symbol in symbols}
        named.update(*self._subscriber.subscriptions.values())
        if self._symbol_limit and len(named - {STAR}) > self._symbol_limit:
            raise SessionError(405)

    def _listing(self) -> dict[str, list[str]]:
        listing = {channel: sorted(symbols) for channel, symbols in self._subscriber.subscriptions.items()}
        if self._feed.kind.asset_class == "us_equity":
            listing |= dict.fromkeys(AUTOMATIC_CHANNELS, listing["trades"])
        return listing

    def _say(self, message: dict[str, Any]) -> None:
        self._subscriber.send_control(encode(message, self._subscriber.encoding))
