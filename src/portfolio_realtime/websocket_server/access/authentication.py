"""Who a client is: by a signed token, a back end's key, or its address. Doubtful credentials are refused."""

import hmac
from collections.abc import Mapping

from portfolio_realtime.config import Settings
from portfolio_realtime.websocket_server.access.authorization import Access, ByClaim
from portfolio_realtime.websocket_server.access.client_address import is_local
from portfolio_realtime.websocket_server.access.identity import (
    BACK_END_IDENTITY,
    LOOPBACK_IDENTITY,
    Identity,
    Unauthorized,
    Unverifiable,
)
from portfolio_realtime.websocket_server.access.revocations import KnownRevocations
from portfolio_realtime.websocket_server.access.tokens import Tokens
from portfolio_realtime.websocket_server.clients.handshake import SUBPROTOCOL


class Authenticator:
    """Turns credentials into an identity, or raises Unauthorized or Unverifiable."""

    def __init__(
        self, settings: Settings, access: Access | None = None, revoked: KnownRevocations | None = None
    ) -> None:
        self._tokens = Tokens(settings)
        self._access = access or ByClaim()
        self._revocations = revoked
        self._is_immediate = not settings.jwks_url and settings.account_access == "claim"
        self._api_key = settings.api_key_secret.get_secret_value()
        self._allow_token_in_url = settings.allow_token_in_url

    @property
    def is_off(self) -> bool:
        """Whether no tokens can be checked, so that only clients on this machine are served."""
        return self._tokens.is_off

    @property
    def is_immediate(self) -> bool:
        """Whether a token can be checked without a request to another service."""
        return self._is_immediate

    async def by_token(self, token: str) -> Identity:
        """The identity in a JSON Web Token. Raises Unauthorized, Unverifiable."""
        return await self.admitted(await self._tokens.identity(token))

    async def admitted(self, identity: Identity) -> Identity:
        """An identity whose signature was checked, with its accounts. Raises Unauthorized, Unverifiable."""
        if self._revocations is not None and identity.is_by_token:
            if not self._revocations.is_current:
                raise Unverifiable("revocations_unavailable")
            if identity in self._revocations:
                raise Unauthorized("revoked")
            if not self._revocations.can_tell(identity):
                raise Unauthorized("revocations_unknown")
        return await self._access.admit(identity)

    def by_api_key(self, key: str) -> Identity:
        """The identity of a trusted back end. Raises Unauthorized."""
        if not self._api_key or not hmac.compare_digest(key.encode(), self._api_key.encode()):
            raise Unauthorized("api_key")
        return BACK_END_IDENTITY

    def by_place(self, peer: str, headers: Mapping[str, str]) -> Identity:
        """The identity of a client on this machine, if authentication is off. Raises Unauthorized."""
        if not self.is_off or not is_local(peer, headers):
            raise Unauthorized("missing")
        return LOOPBACK_IDENTITY

    async def by_headers(self, peer: str, headers: Mapping[str, str]) -> Identity:
        """The identity behind an HTTP request; header names in lower case. Raises as `by_token`."""
        if "x-api-key" in headers:
            return self.by_api_key(headers["x-api-key"])
        if self.is_off:
            return self.by_place(peer, headers)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("missing")
        return await self.by_token(token.strip())

    async def by_handshake(
        self, peer: str, headers: Mapping[str, str], url_token: str | None
    ) -> Identity | None:
        """The identity in a WebSocket handshake; None if it is in the first message. Raises as `by_token`."""
        if self.is_off or "x-api-key" in headers or "authorization" in headers:
            return await self.by_headers(peer, headers)
        offered = [name.strip() for name in headers.get("sec-websocket-protocol", "").split(",")]
        if len(offered) == 2 and offered[0] == SUBPROTOCOL:
            return await self.by_token(offered[1])
        if url_token is None:
            return None
        if not self._allow_token_in_url:
            raise Unauthorized("token_in_url")
        return await self.by_token(url_token)

    def issue(self, subject: str, accounts: list[str], lifetime_s: int) -> str:
        """A token signed by us, for the demo page. Only with a secret."""
        return self._tokens.issue(subject, accounts, lifetime_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._tokens.close()
