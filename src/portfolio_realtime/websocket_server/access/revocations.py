"""The revocations as one server knows them: read from the state as they come, asked for each credential.

Valkey may lose them. A server that was there before writes again what it knows. One that was not cannot know
what was revoked before, and refuses tokens that were issued earlier, until somebody who knows says that
nothing is missing. Why: docs/decisions/0014-who-cannot-know-refuses.md.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from portfolio_realtime.state import State
from portfolio_realtime.state.revocations import (
    ALWAYS,
    READ_ENTRIES_MAX,
    Known,
    Revocation,
    SubjectRevocation,
    TokenRevocation,
    entry_s,
    is_older,
)
from portfolio_realtime.websocket_server.access.identity import Identity

STALE_S_MAX: Final = 5.0  # not heard from the state for longer: nobody new gets in
EVERYTHING: Final = "0"
MARGIN_S: Final = 60  # servers' clocks differ, and let a token live a little longer
GAP_S_MAX: Final = 60  # of not hearing, in which nothing that we do not know can have been revoked and lost
WARNING_S: Final = 60.0

log = structlog.get_logger()


class KnownRevocations:
    """Revoked tokens and subjects; entries are kept until this process ends.

    `lifetime_s`: no token and no revocation matters for longer. `is_complete`: nothing can have been revoked
    before this process, as with a Valkey that is started with it. `lets_undated_in`: tokens without an issue
    time count as new where this is unknown; for development.
    """

    def __init__(
        self,
        lifetime_s: int,
        *,
        is_complete: bool = False,
        lets_undated_in: bool = False,
        monotonic_s: Callable[[], float] = time.monotonic,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._lifetime_s = lifetime_s
        self._is_complete = is_complete
        self._lets_undated_in = lets_undated_in
        self._monotonic_s = monotonic_s
        self._now_s = now_s
        self._tokens: set[tuple[str, str]] = set()
        self._subjects: dict[str, int] = {}
        self._entry = EVERYTHING
        self._heard_s: float | None = None
        self._since_s: int | None = ALWAYS if is_complete else None  # we know all that was revoked since then
        self._warned_s = float("-inf")

    @property
    def is_current(self) -> bool:
        """Whether everything revoked since our start is known."""
        return self._heard_s is not None and self._monotonic_s() - self._heard_s <= STALE_S_MAX

    def __contains__(self, identity: Identity) -> bool:
        """Whether this identity's token has been revoked."""
        if not identity.is_by_token:
            return False
        if (identity.issuer, identity.token_id) in self._tokens:
            return True
        until_s = self._subjects.get(identity.subject)
        if until_s is None:
            return False
        return identity.issued_at_s is None or identity.issued_at_s <= until_s

    def can_tell(self, identity: Identity) -> bool:
        """Whether a revocation of this identity's token would be known.

        It would not for a token issued before our knowledge begins, for as long as such a token may live.
        """
        if self._since_s == ALWAYS or not identity.is_by_token:
            return True
        if self._since_s is None:
            return False
        if identity.issued_at_s is None:
            is_issued_since = self._lets_undated_in
        else:
            is_issued_since = identity.issued_at_s >= self._since_s
        if is_issued_since or self._now_s() >= self._since_s + self._lifetime_s + MARGIN_S:
            return True
        self._warn()
        return False

    async def read_new(self, state: State) -> bool:
        """Take in what is new; is there anything? Waits a second for it. Raises StateUnavailable.

        More than one answer holds is not known before the answers end: until then nobody new gets in.
        """
        self._entry, found = await state.revocations.read_after(self._entry, waits=self.is_current)
        self._take(found)
        if len(found) < READ_ENTRIES_MAX:
            if not self._is_complete:
                await self._agree(state)
            self._heard_s = self._monotonic_s()
        return bool(found)

    def _take(self, found: Sequence[Revocation]) -> None:
        for revocation in found:
            match revocation:
                case TokenRevocation(issuer, token_id):
                    self._tokens.add((issuer, token_id))
                case SubjectRevocation(subject, until_s):
                    self._subjects[subject] = max(until_s, self._subjects.get(subject, until_s))

    async def _agree(self, state: State) -> None:
        """Compare with what Valkey says of itself since when we know all."""
        known = await state.revocations.known()
        if self._since_s is None:
            await self._begin(state, known)
        elif self._has_lost(known):
            await self._restore(state, known)
        elif known.since_s is not None and known.since_s < self._since_s:
            await self._read_all(state)  # what makes it complete was written before that was said
            self._since_s = known.since_s
            log.info("all revocations are known again", since_s=known.since_s)
        await state.revocations.see(int(self._now_s()), self._entry)

    async def _begin(self, state: State, known: Known) -> None:
        """Know what Valkey knows; nothing from before now, where it is empty or was filled from a copy."""
        now_s = int(self._now_s())
        if known.since_s is None:
            await state.revocations.begin(now_s)
        elif known.is_evicted(self._lifetime_s, now_s):
            log.error("Valkey has evicted revocations: set its maxmemory-policy to noeviction")
            await state.revocations.confirm(now_s)
        elif now_s - known.seen_s > GAP_S_MAX:
            started_s = now_s - await state.revocations.valkey_up_s()
            if started_s > known.seen_s:  # since a server has seen it: nobody knows how old its copy was
                await state.revocations.confirm(now_s)
        self._since_s = (await state.revocations.known()).since_s
        if self._since_s:
            log.info("revocations are known since", since_s=self._since_s)

    def _has_lost(self, known: Known) -> bool:
        assert self._since_s is not None
        if known.since_s is None or known.since_s > self._since_s:
            return True
        is_gone = self._entry != EVERYTHING and is_older(known.newest, self._entry)
        return is_gone and entry_s(self._entry) > self._now_s() - self._lifetime_s

    async def _restore(self, state: State, known: Known) -> None:
        """Write again what we know. Complete is it only if we have not been away: see GAP_S_MAX."""
        ours: list[Revocation] = [TokenRevocation(*token) for token in self._tokens]
        ours += [SubjectRevocation(subject, until_s) for subject, until_s in self._subjects.items()]
        await state.revocations.write_again(ours, self._lifetime_s + MARGIN_S)
        has_been_away = self._heard_s is None or self._monotonic_s() - self._heard_s > GAP_S_MAX
        if has_been_away:
            since_s = int(self._now_s()) if known.since_s is None else known.since_s
            self._since_s = max(since_s, self._since_s or ALWAYS)
        assert self._since_s is not None
        await state.revocations.confirm(self._since_s)
        log.error(
            "Valkey had lost revocations: those that this server knows are written again",
            count=len(ours),
            complete_since_s=self._since_s,
        )
        await self._read_all(state)

    async def _read_all(self, state: State) -> None:
        self._entry, is_all = EVERYTHING, False
        while not is_all:
            self._entry, found = await state.revocations.read_after(self._entry, waits=False)
            self._take(found)
            is_all = len(found) < READ_ENTRIES_MAX

    def _warn(self) -> None:
        if self._monotonic_s() - self._warned_s < WARNING_S:
            return
        self._warned_s = self._monotonic_s()
        log.error(
            "tokens issued earlier are refused: Valkey does not know what was revoked before; run "
            "portfolio-realtime revocations restore FILE, or --none when nothing was revoked",
            refused_before_s=self._since_s,
        )
