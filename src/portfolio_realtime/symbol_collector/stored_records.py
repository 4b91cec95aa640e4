"""Finds records that Valkey has lost, and records that should not be there any more.

Nothing reports entries that were evicted or deleted by hand, writes that a replica lacked when it took over,
or records left by a former collector.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, NoReturn

import structlog

from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.state.accounts import Accounts
from portfolio_realtime.symbol_collector.record_writer import UNIVERSE, RecordWriter
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords

COMPARE_S: Final = 2.0  # between two comparisons; at once when another server keeps a part

log = structlog.get_logger()


async def write_lost_again(
    records: AccountRecords,
    stored: Accounts,
    shards: Sequence[int],
    writer: RecordWriter,
    tell_whole: Callable[[Sequence[int]], Awaitable[None]] | None = None,
) -> NoReturn:
    """Have records and symbols that Valkey has lost written again, without end. Raises StateUnavailable.

    Only counts are compared, so the cost does not depend on how much is stored. A batch that is being written
    is not counted as lost. Shards that were away are written whole once they answer, and those that another
    server keeps: a replica that took over may lack what was written last, although nothing was ever away.
    `tell_whole` is awaited with the shards of which nothing is missing or still to be written.
    """
    kept = {shard: _keeper(stored, shard) for shard in (*shards, UNIVERSE)}
    turns = stored.turns
    while True:
        await stored.wait_turn(COMPARE_S, turns)
        turns = stored.turns
        _find_moved(stored, writer, kept)
        await _find_back(stored, writer)
        async with writer.writing:
            if writer.has_changes:
                continue
            here = await _count(stored, shards, writer)
            if writer.has_changes:  # what came while stored records were counted is not among them
                continue
            if _known_count(records, stored, writer, here) > sum(here.values()):
                lost = set(records.known_ids) - await stored.ids_with_bookings(here)
                log.warning("records are missing in Valkey and are written again", count=len(lost))
                records.write_again(lost)
                writer.request_write()
            elif tell_whole is not None:
                await tell_whole(list(here))
            if UNIVERSE not in writer.away:
                with writer.sparing(UNIVERSE):
                    await _find_lost_symbols(records, stored, writer)


def _known_count(
    records: AccountRecords, stored: Accounts, writer: RecordWriter, shards: Collection[int]
) -> int:
    """How many accounts of these shards have a record here. `shards` are those that are not away."""
    if not writer.away:
        return records.known_count
    return sum(stored.shard_of(account_id) in shards for account_id in records.known_ids)


def _keeper(stored: Accounts, shard: int) -> object:
    return stored.keeper(None if shard == UNIVERSE else shard)


def _find_moved(stored: Accounts, writer: RecordWriter, kept: dict[int, object]) -> None:
    """Have what another server keeps now written whole; `kept`: who has kept each shard until now."""
    for shard, before in kept.items():
        keeper = _keeper(stored, shard)
        if keeper is not None and keeper != before:
            kept[shard] = keeper
            if before is not None:
                writer.note_back(shard)


async def _find_back(stored: Accounts, writer: RecordWriter) -> None:
    """Note what was away and answers again. It may answer late, so nothing waits for it."""
    shards = sorted(writer.away - {UNIVERSE})
    for shard, count in zip(shards, await stored.counts(shards), strict=True):
        if not isinstance(count, StateUnavailable):
            writer.note_back(shard)
    if UNIVERSE in writer.away:
        with writer.sparing(UNIVERSE):
            await stored.count_universe()
            writer.note_back(UNIVERSE)


async def _count(stored: Accounts, shards: Sequence[int], writer: RecordWriter) -> dict[int, int]:
    """Shard -> number of its records with bookings, of those that are not away."""
    asked, here = [shard for shard in shards if shard not in writer.away], dict[int, int]()
    for shard, count in zip(asked, await stored.counts(asked), strict=True):
        with writer.sparing(shard):
            if isinstance(count, StateUnavailable):
                raise count
            here[shard] = count
    return here


async def _find_lost_symbols(records: AccountRecords, stored: Accounts, writer: RecordWriter) -> None:
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
