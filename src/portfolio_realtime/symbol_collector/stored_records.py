"""Is everything in Valkey that was written there, and nothing else?

What was evicted, or deleted by hand, tells nobody; nor do records of a former life.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

import structlog

from portfolio_realtime.state.accounts import Accounts
from portfolio_realtime.symbol_collector.records.account_records import Roster

COMPARE_S: Final = 2.0  # between two looks

log = structlog.get_logger()


async def write_lost_again(
    roster: Roster, stored: Accounts, shards: Sequence[int], changed: Callable[[], None]
) -> NoReturn:
    """Have records and symbols written again that Valkey has lost, forever. Raises StateUnavailable.

    The counts are compared, so that a look costs the same however much is stored; `changed` is called when
    the roster has something to write.
    """
    while True:
        await asyncio.sleep(COMPARE_S)
        if roster.has_changes or not roster.known_count:
            continue
        if roster.known_count > await stored.count(shards):
            lost = set(roster.known_ids).difference(await stored.ids())
            log.warning("records are missing in Valkey and written again", count=len(lost))
            roster.write_again(lost)
            changed()
        if roster.universe_size > await stored.count_universe():
            log.warning("symbols are missing in the universe and written again")
            roster.write_universe_again(await stored.read_universe())
            changed()


async def find_left_over(roster: Roster, stored: Accounts) -> set[str]:
    """Have records removed that are of no listed account; symbols of the universe that nobody holds.

    Raises StateUnavailable.
    """
    for account_id in set(await stored.ids()) - roster.listed:
        roster.remove_stale(account_id)
    roster.prune()
    return (await stored.read_universe()).keys() - roster.universe.keys()
