"""What `revoke` and `entitle` do: revoke tokens, and set which accounts a user may see."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from portfolio_realtime.config import Settings, valkey_url
from portfolio_realtime.errors import SettingsError, StateRefused, StateUnavailable
from portfolio_realtime.state import State, keys, state_of
from portfolio_realtime.state.revocations import Revocation, SubjectRevocation, TokenRevocation

HOLDER: Final = "operator"
ANSWER_S_MAX: Final = (
    15.0  # of what a command asks Valkey: a lost connection is noticed after 5 s and asked again
)
MARGIN_S: Final = 60  # a token may live longer than its lifetime, because servers' clocks differ


async def revoke(
    settings: Settings, *, subject: str = "", token_id: str = "", issuer: str = ""
) -> Revocation:
    """Revoke one token, or all tokens issued to a subject until now.

    One token is named by its `jti` and its issuer (default: JWT_ISSUER). Its connections are closed at once,
    and it is refused until it would have expired. Raises SettingsError, StateUnavailable.
    """
    if bool(subject) == bool(token_id):
        raise SettingsError("choose what to revoke: --subject SUBJECT or --token-id JTI")
    revocation: Revocation = (
        TokenRevocation(issuer or settings.jwt_issuer, token_id)
        if token_id
        else SubjectRevocation(subject, int(time.time()))
    )
    async with opened_state(settings) as state:
        await state.revocations.write(revocation, settings.jwt_lifetime_max + MARGIN_S)
    return revocation


async def entitle(settings: Settings, subject: str, account_ids: Sequence[str]) -> None:
    """Let a subject see these accounts and no others. Raises SettingsError, StateUnavailable."""
    if settings.account_access != "entitlements":
        raise SettingsError("entitlements are used only with ACCOUNT_ACCESS=entitlements: set it")
    async with opened_state(settings) as state:
        await state.entitlements.write(subject, account_ids)


@contextlib.asynccontextmanager
async def opened_state(settings: Settings, *, is_long: bool = False) -> AsyncGenerator[State]:
    """The state of a running system, for at most ANSWER_S_MAX seconds unless the use `is_long`.

    Raises SettingsError with an embedded Valkey, which is not reachable, StateRefused when its host name
    cannot be resolved, and StateUnavailable after that time: Valkey may answer byte by byte.
    """
    if settings.is_embedded:
        raise SettingsError("an embedded Valkey serves only its own process: set REDIS_HOST or REDIS_URL")
    keys.use_prefix(settings.key_prefix)
    state = state_of(settings, HOLDER)
    try:
        async with within(None if is_long else ANSWER_S_MAX, settings):
            yield state
    except StateUnavailable as error:
        if error.is_nameless:
            raise StateRefused(str(error)) from error
        raise
    finally:
        await state.close()


@contextlib.asynccontextmanager
async def within(seconds_max: float | None, settings: Settings) -> AsyncGenerator[None]:
    """Raise StateUnavailable when the block takes longer (None: never)."""
    limit = asyncio.timeout(seconds_max)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        place = valkey_url.place_of(settings.state_url)
        raise StateUnavailable(
            f"Valkey at {place} is too slow: no whole answer within {seconds_max:g} s; check the network, "
            "and whether something else than Valkey listens there"
        ) from None
