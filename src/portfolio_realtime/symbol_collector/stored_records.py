"""Whether Valkey still has what was written, and nothing else.

Nobody reports entries that were evicted or deleted by hand, or records of a former collector.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

import structlog

from portfolio_realtime.state.accounts import Accounts
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords

COMPARE_S: Final = 2.0  # between two looks

log = structlog.get_logger()


async def write_lost_again(
    records: AccountRecords,
    stored: Accounts,
    shards: Sequence[int],
    writing: asyncio.Lock,
    changed: Callable[[], None],
) -> NoReturn:
    """Write records and symbols again that Valkey has lost, forever. Raises StateUnavailable.

    Only counts are compared, so that a check costs the same however much is stored. `changed` is called when
    `records` has something to write.
    """
    while True:
        await asyncio.sleep(COMPARE_S)
        async with writing:
            if records.has_changes or not records.known_count:
                continue
            if records.known_count > await stored.count(shards):
                lost = set(records.known_ids).difference(await stored.ids())
                log.warning("records are missing in Valkey and written again", count=len(lost))
                records.write_again(lost)
                changed()
            if records.universe_size > await stored.count_universe():
                log.warning("symbols are missing in the universe and written again")
                records.write_universe_again(await stored.read_universe())
                changed()


async def find_left_over(records: AccountRecords, stored: Accounts) -> set[str]:
    """Remove records of accounts that are not listed. Returns universe symbols that nobody holds.

    Raises StateUnavailable.
    """
    for account_id in set(await stored.ids()) - records.listed:
        records.remove_stale(account_id)
    records.prune()
    return (await stored.read_universe()).keys() - records.universe.keys()
