"""Finds records that Valkey has lost, and records that should not be there any more.

Nothing reports entries that were evicted or deleted by hand, or records left by a former collector.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, NoReturn

import structlog

from portfolio_realtime.state.accounts import Accounts
from portfolio_realtime.symbol_collector.record_writer import RecordWriter
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords

COMPARE_S: Final = 2.0  # between two comparisons

log = structlog.get_logger()


async def write_lost_again(
    records: AccountRecords, stored: Accounts, shards: Sequence[int], writer: RecordWriter
) -> NoReturn:
    """Have records and symbols that Valkey has lost written again, without end. Raises StateUnavailable.

    Only counts are compared, so the cost does not depend on how much is stored. A batch that is being written
    is not counted as lost.
    """
    while True:
        await asyncio.sleep(COMPARE_S)
        async with writer.writing:
            if records.has_changes or not records.known_count:
                continue
            if records.known_count > await stored.count(shards):
                lost = set(records.known_ids).difference(await stored.ids())
                log.warning("records are missing in Valkey and are written again", count=len(lost))
                records.write_again(lost)
                writer.request_write()
            if records.universe_size > await stored.count_universe():
                log.warning("symbols are missing in the universe and are written again")
                records.write_universe_again(await stored.read_universe())
                writer.request_write()


async def find_left_over(records: AccountRecords, stored: Accounts) -> set[str]:
    """Remove stored records of accounts that are not listed; return universe symbols that no account holds.

    Raises StateUnavailable.
    """
    for account_id in set(await stored.ids()) - records.listed:
        records.remove_stale(account_id)
    records.prune()
    return (await stored.read_universe()).keys() - records.universe.keys()
