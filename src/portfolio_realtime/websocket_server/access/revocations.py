"""The revocations as one server knows them: read from the state as they come, asked for each credential."""

import time
from collections.abc import Callable
from typing import Final

from portfolio_realtime.state import State
from portfolio_realtime.state.revocations import READ_ENTRIES_MAX, SubjectRevocation, TokenRevocation
from portfolio_realtime.websocket_server.access.identity import Identity

STALE_S_MAX: Final = 5.0  # not heard from the state for longer: nobody new gets in
EVERYTHING: Final = "0"


class KnownRevocations:
    """Tokens and subjects that are good no more; old entries stay until this process ends."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._tokens: set[tuple[str, str]] = set()
        self._subjects: dict[str, int] = {}
        self._entry = EVERYTHING
        self._heard_s: float | None = None

    @property
    def is_current(self) -> bool:
        """Do we know all that is revoked?"""
        return self._heard_s is not None and self._monotonic_s() - self._heard_s <= STALE_S_MAX

    def __contains__(self, identity: Identity) -> bool:
        """Is this identity's token revoked?"""
        if not identity.is_by_token:
            return False
        if (identity.issuer, identity.token_id) in self._tokens:
            return True
        until_s = self._subjects.get(identity.subject)
        if until_s is None:
            return False
        return identity.issued_at_s is None or identity.issued_at_s <= until_s

    async def read_new(self, state: State) -> bool:
        """Take in what is new; is there anything? Waits a second for it. Raises StateUnavailable.

        More than one answer holds is not known before the answers end: until then nobody new gets in.
        """
        self._entry, found = await state.revocations.read_after(self._entry, waits=self.is_current)
        for revocation in found:
            match revocation:
                case TokenRevocation(issuer, token_id):
                    self._tokens.add((issuer, token_id))
                case SubjectRevocation(subject, until_s):
                    self._subjects[subject] = max(until_s, self._subjects.get(subject, until_s))
        if len(found) < READ_ENTRIES_MAX:
            self._heard_s = self._monotonic_s()
        return bool(found)
