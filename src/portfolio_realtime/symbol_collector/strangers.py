"""Notices a second system on the same Valkey: another collector is active there, for other accounts.

Its records would be removed as soon as we took over, and until then each would serve the other's clients.
`python -m portfolio_realtime.symbol_collector.strangers` looks once; exit code 2: there is one.
"""

import asyncio
import contextlib
from typing import Final

import structlog

from portfolio_realtime import interrupts
from portfolio_realtime.errors import BrokerRefused, BrokerUnavailable, SettingsError
from portfolio_realtime.service import Context, main
from portfolio_realtime.symbol_collector.sources.account_source import AccountSource
from portfolio_realtime.symbol_collector.sources.opening import open_client
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused

NAME: Final = "symbol_collector"  # the lease of whoever is active
LOOK_S: Final = 0.5  # between two looks, until the other one's accounts are known

log = structlog.get_logger()


async def refuse_strangers(context: Context, client: AccountSource) -> None:
    """Compare our accounts, once, with those of another collector that is active; it never ends normally.

    Raises SettingsError, StateUnavailable, BrokerUnavailable, BrokerRefused.
    """
    while not await _is_among_its_own(context, client):
        await asyncio.sleep(LOOK_S)
    await asyncio.Event().wait()


async def _is_among_its_own(context: Context, client: AccountSource) -> bool:
    """Whether another collector is active, for accounts of which we see at least one.

    Records of a former life are no stranger's: a collector that is gone has no lease any more. Raises
    SettingsError if we see none of its accounts, and as `refuse_strangers`.
    """
    state = context.state
    if not await state.leases.is_held_by_another(NAME) or not (theirs := set(await state.accounts.ids())):
        return False
    try:
        ours = {one.account_id for one in await client.accounts()}
    except PayloadRefused as error:
        log.warning("the accounts could not be listed", reason=str(error))
        ours = set[str]()
    if ours & theirs:
        return True
    await asyncio.sleep(context.settings.lease_ms / 1000)
    if ours and await state.leases.is_held_by_another(NAME):
        raise SettingsError(
            f"another system runs in this Valkey: none of its {len(theirs)} accounts is among the "
            f"{len(ours)} of our key. Set KEY_PREFIX for one of the two, or give it another Valkey. "
            "To replace the other one, stop all of its services first"
        )
    return False


async def look_once(context: Context) -> None:
    """Look before any service of a system starts, so that none takes a lease of a stranger's.

    A broker that does not answer now is left to the collector. Raises SettingsError, StateUnavailable.
    """
    with contextlib.suppress(BrokerUnavailable, BrokerRefused):
        async with open_client(context.settings, lambda _: None) as client:
            await _is_among_its_own(context, client)


if __name__ == "__main__":
    with interrupts.quiet():
        main(NAME, look_once)
