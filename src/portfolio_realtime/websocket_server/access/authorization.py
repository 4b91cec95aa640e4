"""Which accounts a user may see, if the token does not say so: by webhook, or by entitlements in Valkey.

Both are checked again while a user is connected, so that removed access ends within seconds. Without an
answer no new client is let in; a connected client stays for at most UNCONFIRMED_S_MAX.
"""

from typing import Final, Protocol

from portfolio_realtime.config import Settings
from portfolio_realtime.errors import StateError
from portfolio_realtime.state import State
from portfolio_realtime.websocket_server.access.identity import Confirmed, Held, Identity, Unverifiable

UNCONFIRMED_S_MAX: Final = 30.0


class Access(Protocol):
    """Decides which accounts an identity may see."""

    async def admit(self, identity: Identity) -> Identity:
        """The identity with the accounts known at once. Raises Unverifiable."""
        ...

    async def may_see(self, identity: Identity, account_id: str) -> bool:
        """Whether it may see the account. Raises Unverifiable."""
        ...

    async def confirm(self, held: Held) -> dict[str, Confirmed]:
        """Check again for connected clients; a subject without an answer is left out."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


def open_access(settings: Settings, state: State) -> Access:
    """The implementation that ACCOUNT_ACCESS names."""
    match settings.account_access:
        case "claim":
            return ByClaim()
        case "entitlements":
            return ByEntitlements(state)
        case "webhook":
            # It imports an HTTP client, which is 2 MB and needed for nothing else here.
            from portfolio_realtime.websocket_server.access.webhook import ByWebhook

            return ByWebhook(
                settings.authz_url, settings.authz_secret.get_secret_value(), settings.authz_interval
            )


class ByClaim:
    """The token's claim decides, for its lifetime."""

    async def admit(self, identity: Identity) -> Identity:
        """As it is."""
        return identity

    async def may_see(self, identity: Identity, account_id: str) -> bool:
        """What the claim says."""
        return identity.may_see(account_id)

    async def confirm(self, held: Held) -> dict[str, Confirmed]:
        """Nothing changes."""
        return {}

    async def close(self) -> None:
        """Nothing is open."""


class ByEntitlements(ByClaim):
    """The hash in Valkey decides."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def admit(self, identity: Identity) -> Identity:
        """With the accounts of the hash. Raises Unverifiable."""
        if not identity.is_by_token:
            return identity
        try:
            found = await self._state.entitlements.read([identity.subject])
        except StateError:
            raise Unverifiable("entitlements_unavailable") from None
        return identity.with_accounts(found[identity.subject])

    async def confirm(self, held: Held) -> dict[str, Confirmed]:
        """What the hash says now."""
        try:
            found = await self._state.entitlements.read(list(held))
        except StateError:
            return {}
        return {subject: Confirmed(accounts, is_certain=True) for subject, accounts in found.items()}
