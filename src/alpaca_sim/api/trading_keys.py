"""Trading API keys. Each account has a key and secret made from its number, the same after a restart."""

import secrets
from collections.abc import Mapping

from alpaca_sim.core.ledger import Account

KEY_PREFIX = "PK"  # the beginning of a paper account's key


class TradingKeys:
    """The keys of all accounts of one simulator."""

    def __init__(self, accounts: Mapping[str, Account], secret: str) -> None:
        """`accounts` only grow; the accounts' secrets are made from `secret`, the simulator's own."""
        self._accounts = accounts
        self._secret = secret
        self._ids: dict[str, str] = {}  # key → account id

    def pair(self, account: Account) -> tuple[str, str]:
        """The key and the secret of an account."""
        return f"{KEY_PREFIX}{account.account_number}", f"{self._secret}-{account.account_number}"

    def account_id(self, key: str, secret: str) -> str | None:
        """The id of the account whose key and secret these are; None without one."""
        if len(self._ids) != len(self._accounts):
            self._ids = {self.pair(account)[0]: account_id for account_id, account in self._accounts.items()}
        account_id = self._ids.get(key)
        if account_id is None:
            return None
        wanted = self.pair(self._accounts[account_id])[1]
        return account_id if secrets.compare_digest(secret.encode(), wanted.encode()) else None
