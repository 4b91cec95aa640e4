"""Notices a second system on the same Valkey: another collector is active there, for other accounts.

Its records would be removed as soon as we took over, and until then each would serve the other's clients.
"""

import asyncio
from typing import Final

import structlog

from portfolio_realtime.errors import SettingsError
from portfolio_realtime.service import Context
from portfolio_realtime.symbol_collector.sources.account_source import AccountSource
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused

NAME: Final = "symbol_collector"  # the lease of whoever is active
LOOK_S: Final = 0.5  # between two looks, until the other one's accounts are known

log = structlog.get_logger()


async def refuse_strangers(context: Context, client: AccountSource) -> None:
    """Compare our accounts, once, with those of another collector that is active; it never ends normally.

    Records of a former life are no stranger's: a collector that is gone has no lease any more. Raises
    SettingsError, StateUnavailable, BrokerUnavailable, BrokerRefused.
    """
    state = context.state
    while True:
        if await state.leases.is_held_by_another(NAME) and (theirs := set(await state.accounts.ids())):
            try:
                ours = {one.account_id for one in await client.accounts()}
            except PayloadRefused as error:
                log.warning("the accounts could not be listed", reason=str(error))
                ours = set()
            if ours & theirs:
                await asyncio.Event().wait()
            await asyncio.sleep(context.settings.lease_ms / 1000)
            if ours and await state.leases.is_held_by_another(NAME):
                raise SettingsError(
                    f"another system runs in this Valkey: none of its {len(theirs)} accounts is among the "
                    f"{len(ours)} of our key. Set KEY_PREFIX for one of the two, or give it another Valkey. "
                    "To replace the other one, stop all of its services first"
                )
        await asyncio.sleep(LOOK_S)
