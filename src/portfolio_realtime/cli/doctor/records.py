"""Checks the account records in a shared Valkey: whether they are current and confirmed by the broker."""

import time
from typing import Final

from portfolio_realtime.cli.doctor.findings import Finding, Status
from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import StateError, StateRefused
from portfolio_realtime.model import Account
from portfolio_realtime.state import State, feeds, state_of
from portfolio_realtime.state.error_answers import RIGHTS

CHECK: Final = "account records"
RECORDS_MAX: Final = 1_000  # records that are read, in Valkey's order
LISTED_MAX: Final = 3


async def examine(settings: Settings) -> Finding:
    """Count the records of a shared Valkey that are old or not confirmed."""
    state = state_of(settings, "doctor")
    try:
        is_heard = bool(await state.feeds.live([feeds.ACCOUNTS]))
        return judged(await _records(state, settings.shards), settings.record_ttl, is_heard=is_heard)
    except StateError as error:
        if isinstance(error, StateRefused) and RIGHTS in str(error):
            found = "this user may not read them; the portfolio calculator's may"
            return Finding(CHECK, Status.SKIP, found)
        return Finding(CHECK, Status.SKIP, f"Valkey: {error}")
    finally:
        await state.close()


async def _records(state: State, shards: int) -> list[Account]:
    found: list[Account] = []
    for shard in range(shards):
        cursor: int | None = 0
        while cursor is not None and len(found) < RECORDS_MAX:
            cursor, page = await state.accounts.read_page(shard, cursor)
            found += page
    return found


def judged(records: list[Account], record_ttl_s: float, *, is_heard: bool) -> Finding:
    """The finding for these records; `is_heard`: the collector reports that the broker answers."""
    if not records:
        return Finding(CHECK, Status.OK, "there are none yet")
    if not is_heard:
        remedy = "check that the symbol collector runs; its log says whether Alpaca's events or answers fail"
        found = f"no news from the broker; {len(records)} records are as old as its last answer"
        return Finding(CHECK, Status.FAIL, found, remedy)
    oldest_ns = time.time_ns() - int(record_ttl_s * NS_PER_S)
    old = [one.account_id for one in records if one.is_unreadable or one.as_of_ns < oldest_ns]
    unconfirmed = [one.account_id for one in records if one.unconfirmed is not None]
    found = f"{len(records)} checked, {len(old)} old, {len(unconfirmed)} not confirmed"
    if not old and not unconfirmed:
        return Finding(CHECK, Status.OK, found)
    named = ", ".join(sorted({*old, *unconfirmed})[:LISTED_MAX])
    remedy = "GET /v1/portfolio/ID/explain shows what is not confirmed, and since when"
    return Finding(CHECK, Status.WARN, f"{found}: {named}", remedy)
