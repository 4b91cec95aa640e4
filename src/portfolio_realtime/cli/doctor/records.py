"""The account records that a running collector has left in a shared Valkey: heard, old, or contradicted?"""

import time
from typing import Final

from portfolio_realtime.cli.doctor.findings import Finding, Status
from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import StateError
from portfolio_realtime.model import Account
from portfolio_realtime.state import State, feeds, open_state

CHECK: Final = "account records"
RECORDS_MAX: Final = 1_000  # looked at; of more, the first ones that Valkey gives
LISTED_MAX: Final = 3


async def examine(settings: Settings) -> Finding:
    """How many of the records of a shared Valkey are old or unconfirmed."""
    state = open_state(
        settings.state_url,
        holder="doctor",
        shards=settings.shards,
        lease_ms=settings.lease_ms,
        is_cluster=settings.is_cluster,
    )
    try:
        is_heard = bool(await state.feeds.live([feeds.ACCOUNTS]))
        return judged(await _records(state, settings.shards), settings.record_ttl, is_heard=is_heard)
    except StateError as error:
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
    """What is to be said of these records."""
    if not records:
        return Finding(CHECK, Status.OK, "there are none yet")
    if not is_heard:
        remedy = "is the symbol collector running? Its log says whether Alpaca's events or answers fail"
        found = f"the broker is not heard; {len(records)} records are as old as its last word"
        return Finding(CHECK, Status.FAIL, found, remedy)
    oldest_ns = time.time_ns() - int(record_ttl_s * NS_PER_S)
    old = [one.account_id for one in records if one.is_unreadable or one.as_of_ns < oldest_ns]
    doubted = [one.account_id for one in records if one.unconfirmed is not None]
    found = f"{len(records)} looked at, {len(old)} old, {len(doubted)} not confirmed"
    if not old and not doubted:
        return Finding(CHECK, Status.OK, found)
    named = ", ".join(sorted({*old, *doubted})[:LISTED_MAX])
    remedy = "GET /v1/portfolio/ID/explain says what of an account is not confirmed, and since when"
    return Finding(CHECK, Status.WARN, f"{found}: {named}", remedy)
