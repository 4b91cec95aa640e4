"""Whether Valkey still has what was written, and nothing else.

Nobody reports entries that were evicted or deleted by hand, or records of a former collector.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, NoReturn

import structlog

from portfolio_realtime.state.accounts import Accounts
from portfolio_realtime.symbol_collector.record_writer import RecordWriter
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords

COMPARE_S: Final = 2.0  # between two looks

log = structlog.get_logger()


async def write_lost_again(
    records: AccountRecords, stored: Accounts, shards: Sequence[int], writer: RecordWriter
) -> NoReturn:
    """Have records and symbols written again that Valkey has lost, forever. Raises StateUnavailable.

    The counts are compared, so that a look costs the same however much is stored. What the writer is writing
    is not lost.
    """
    while True:
        await asyncio.sleep(COMPARE_S)
        async with writer.writing:
            if records.has_changes or not records.known_count:
                continue
            if records.known_count > await stored.count(shards):
                lost = set(records.known_ids).difference(await stored.ids())
                log.warning("records are missing in Valkey and written again", count=len(lost))
                records.write_again(lost)
                writer.request_write()
            if records.universe_size > await stored.count_universe():
                log.warning("symbols are missing in the universe and written again")
                records.write_universe_again(await stored.read_universe())
                writer.request_write()


async def find_left_over(records: AccountRecords, stored: Accounts) -> set[str]:
    """Remove records of accounts that are not listed. Returns universe symbols that nobody holds.

    Raises StateUnavailable.
    """
    for account_id in set(await stored.ids()) - records.listed:
        records.remove_stale(account_id)
    records.prune()
    return (await stored.read_universe()).keys() - records.universe.keys()
