"""A password that is renewed while services run, as by IAM or a vault: each connection reads its file.

What authorises an open connection is not asked again. When the server ends it, the next one has the new
password. So whoever renews the file does it before the old password ends.
"""

from pathlib import Path

import structlog
from redis.credentials import CredentialProvider

from portfolio_realtime import logs, redaction

log = structlog.get_logger()


class PasswordFile(CredentialProvider):
    """User and password for the client library; `user` "" is the default user."""

    def __init__(self, user: str, path: str) -> None:
        self._user = user
        self._path = path
        self._password = ""  # the last one that was read

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """The user and what is in the file now; if it cannot be read, what was in it before."""
        try:
            password = Path(self._path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            log.error(
                "the file with the password of Valkey cannot be read: the last one is used",
                path=self._path,
                reason=reason,
                **logs.once("password file"),
            )
        else:
            redaction.learn(password)
            self._password = password or self._password
        return (self._user, self._password) if self._user else (self._password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """As `get_credentials`: a small local file needs no thread."""
        return self.get_credentials()
