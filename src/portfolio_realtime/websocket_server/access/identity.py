"""A client's identity, what it may see, and the two errors: credentials refused, or not verifiable now."""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

EVERY_ACCOUNT: Final = "*"
FORBIDDEN: Final = "forbidden"  # the reason for who asks for an account that it may not see

Held = Mapping[str, frozenset[str]]
"""subject -> the accounts that it is being shown."""


class Unauthorized(Exception):
    """The credentials are refused; the reason is for our log and metrics, not for the client."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unverifiable(Unauthorized):
    """The credentials cannot be checked now: Valkey, the keys or the webhook do not answer."""


class Identity(msgspec.Struct, frozen=True):
    """Who it is, which accounts it may see (`*`: all), and until when (seconds since 1970).

    `issuer`, `token_id` and `issued_at_s` are its token's; without `expires_at_s` it has shown no token.
    `is_asked`: `accounts` are those that the webhook has allowed so far; it is asked for each.
    """

    subject: str
    accounts: frozenset[str]
    expires_at_s: float | None = None
    issuer: str = ""
    token_id: str = ""
    issued_at_s: float | None = None
    is_asked: bool = False

    @property
    def is_for_every_account(self) -> bool:
        """Whether it is a back end that may see all accounts."""
        return EVERY_ACCOUNT in self.accounts

    @property
    def is_by_token(self) -> bool:
        """Whether it has a token, which can be revoked, rather than a key or a local address."""
        return self.expires_at_s is not None

    def may_see(self, account_id: str) -> bool:
        """Whether the account is one of its own."""
        return self.is_for_every_account or account_id in self.accounts

    def with_accounts(self, accounts: frozenset[str]) -> "Identity":
        """The same identity with these accounts."""
        return msgspec.structs.replace(self, accounts=accounts)


LOOPBACK_IDENTITY: Final = Identity("loopback", frozenset({EVERY_ACCOUNT}))
BACK_END_IDENTITY: Final = Identity("back end", frozenset({EVERY_ACCOUNT}))


class Confirmed(NamedTuple):
    """What a subject may (still) see. `is_certain`: no part of it is an older answer."""

    accounts: frozenset[str]
    is_certain: bool
