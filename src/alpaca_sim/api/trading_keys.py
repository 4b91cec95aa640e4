"""Trading API keys: every account has one pair of its own, made from its number, so it survives a restart."""

import secrets
from collections.abc import Mapping

from alpaca_sim.core.ledger import Account

KEY_PREFIX = "PK"  # as the keys of paper accounts begin


class TradingKeys:
    """The pairs of all accounts of one simulator."""

    def __init__(self, accounts: Mapping[str, Account], secret: str) -> None:
        """`accounts` only grow; `secret` is the simulator's, from which theirs are made."""
        self._accounts = accounts
        self._secret = secret
        self._ids: dict[str, str] = {}  # key → account id

    def pair(self, account: Account) -> tuple[str, str]:
        """Key and secret of an account."""
        return f"{KEY_PREFIX}{account.account_number}", f"{self._secret}-{account.account_number}"

    def account_id(self, key: str, secret: str) -> str | None:
        """Whose pair this is; None when it is nobody's."""
        if len(self._ids) != len(self._accounts):
            self._ids = {self.pair(account)[0]: account_id for account_id, account in self._accounts.items()}
        account_id = self._ids.get(key)
        if account_id is None:
            return None
        wanted = self.pair(self._accounts[account_id])[1]
        return account_id if secrets.compare_digest(secret.encode(), wanted.encode()) else None
