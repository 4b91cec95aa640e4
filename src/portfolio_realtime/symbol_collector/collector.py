"""Service 1: reads the record of every account from the broker and writes it to the shared state.

The collector follows the activity events, replays the day's history, and fetches every account once, watched
ones first. Then events change the records and REST confirms them, each account in turn within the rate limit.
If clients watch an account that is not in the broker's list, the collector asks the broker for it, and tells
the clients if it does not exist. One instance is active, by lease. Records are kept in memory: after a loss
of Valkey or of the lease they are written again, not fetched.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn

import structlog

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.config import described_source
from portfolio_realtime.errors import BrokerUnavailable
from portfolio_realtime.service import Context, keep_running, spared, together, under_lease
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.symbol_collector import activity_types
from portfolio_realtime.symbol_collector.account_numbers import NumbersKept
from portfolio_realtime.symbol_collector.broker_silence import BrokerSilence, Heard, keep_live
from portfolio_realtime.symbol_collector.broker_time import Moment, now, tell_difference
from portfolio_realtime.symbol_collector.day_history import DayHistory
from portfolio_realtime.symbol_collector.event_stream_lag import EventStreamLag
from portfolio_realtime.symbol_collector.fetch_schedule import DueFetch
from portfolio_realtime.symbol_collector.fetch_turns import FetchTurns
from portfolio_realtime.symbol_collector.model import CLOSED, Activity, Statement
from portfolio_realtime.symbol_collector.moved_accounts import MovedAccounts
from portfolio_realtime.symbol_collector.pending_accounts import PendingAccounts
from portfolio_realtime.symbol_collector.record_writer import RecordWriter
from portfolio_realtime.symbol_collector.records import cash_flows
from portfolio_realtime.symbol_collector.records.account_record import Outcome
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from portfolio_realtime.symbol_collector.records.equity_drift import EquityDrift
from portfolio_realtime.symbol_collector.records.record_metrics import show_records
from portfolio_realtime.symbol_collector.sources import parse
from portfolio_realtime.symbol_collector.sources.account_source import AccountSource
from portfolio_realtime.symbol_collector.sources.asset_names import learn_names
from portfolio_realtime.symbol_collector.sources.closed_days import serve_closed_days
from portfolio_realtime.symbol_collector.sources.opening import open_client
from portfolio_realtime.symbol_collector.sources.parse import CurrencyRefused, PayloadRefused
from portfolio_realtime.symbol_collector.stored_records import find_left_over, write_lost_again
from portfolio_realtime.symbol_collector.strangers import NAME, refuse_strangers
from portfolio_realtime.symbol_collector.unlisted_lookup import UnlistedLookup
from portfolio_realtime.symbol_collector.watched_follower import WatchedFollower
from portfolio_realtime.telemetry import CollectorMetrics
from portfolio_realtime.waiting import wait_at_most

FETCHES_MAX: Final = 8  # accounts fetched at the same time …
URGENT_FETCHES: Final = 2  # … of which these are kept for accounts that are waited for
RETRY_S: Final = 2.0  # after a failed request
REPORT_S: Final = 1.0
RELIST_S_MIN: Final = 5.0
STAND_BY_S: Final = 300.0  # between two looks at the list and the day while standing by
FIRST_SPREAD: Final = (0.2, 1.0)  # share of the interval until an account's second fetch
SPREAD: Final = (0.8, 1.0)  # the same, until any later fetch
EVENTS_S_MAX: Final = 20.0  # longest wait for the event stream at the start
REFUSED_AGAIN_NS: Final = 30 * NS_PER_S  # until a statement that could not be read is tried again
FAILURES_MAX: Final = 2  # in a row for one account, while requests for others succeed
BACK_OFF_MAX: Final = 6  # doublings of the pause before such an account is tried again

log = structlog.get_logger()


async def run(context: Context) -> None:
    """Collect while the lease is ours, otherwise stand by. Raises BrokerRefused, SettingsError."""
    metrics = CollectorMetrics(context.registry)

    def count(status: str) -> None:
        metrics.broker_requests.labels(status).inc()

    log.info("accounts", source=described_source(context.settings))
    async with open_client(context.settings, count) as client:
        collector = Collector(context, client, metrics)
        work = keep_running(
            lambda: under_lease(context, NAME, collector.work, collector.stand_by), context.clock, NAME
        )
        follow = keep_running(collector.follow, context.clock, "account events")
        telling = tell_difference(client.broker_time, context.clock, metrics.clock_difference)
        strangers = keep_running(lambda: refuse_strangers(context, client), context.clock, NAME)
        await together(work, follow, telling, strangers)


class Collector:
    """What one process knows about all accounts. It is kept when the lease or Valkey is lost."""

    def __init__(self, context: Context, client: AccountSource, metrics: CollectorMetrics) -> None:
        self._state = context.state
        self._clock = context.clock
        self._shards = list(range(context.settings.shards))
        interval_s = context.settings.symbol_collection_interval
        self._interval_ns = int(min(interval_s, client.interval_s_max) * NS_PER_S)
        self._client = client
        self._metrics = metrics
        self._lag = EventStreamLag(metrics.event_stream_lag, context.clock)
        self._silence = BrokerSilence(context.clock)
        self._relist = asyncio.Event()  # an event names an account that is not in the list
        self._begun = asyncio.Event()  # everything has begun anew
        self._is_active = False  # the lease is ours
        self._begin()

    def _begin(self) -> None:
        """Start without any knowledge of accounts."""
        self._records = AccountRecords()
        self._turns = FetchTurns(self._clock)
        self._schedule = self._turns.schedule
        self._follower = self._client.follower(self._clock, self)
        self._numbers = NumbersKept(self._state)
        self._untried: set[str] = set()  # listed and not fetched yet
        self._is_complete = False  # every account has been fetched once
        self._has_begun = False  # the list and the day's bookings are known
        self._has_list = False  # the list has been read, maybe while standing by
        self._is_list_new = False  # it has been read under this lease
        self._moved = MovedAccounts()  # while standing by
        self._pending = PendingAccounts()
        self._writer = RecordWriter(
            self._state.accounts, self._records, self._pending, lambda: self._follower.cursor
        )
        self._history = DayHistory(
            self._client, self._follower, self._records, self._clock, self._writer.request_write
        )
        self._interest = WatchedFollower(
            self._state, self._shards, self._clock, self._schedule, self._records, self._writer
        )
        self._unlisted = UnlistedLookup(
            self._client, self._clock, self._records, self._interest, self._begin_to_fetch
        )
        self._failures: dict[str, int] = {}  # account -> failed requests in a row
        self._equity_drift = EquityDrift(self._records, self._state, self._clock, self._metrics)
        self._begun.set()

    async def follow(self) -> NoReturn:
        """Follow, with or without the lease, what may be followed without it.

        It begins at the place up to which the active collector has written. Raises StateUnavailable,
        BrokerRefused.
        """
        while True:
            self._begun.clear()
            follower, clock = self._follower, self._clock
            if follower.cursor is None:
                follower.cursor = await self._writer.read_cursor(clock.now_ns())
            parts = (keep_running(part, clock, name) for name, part in follower.ahead)
            await together(self._begun.wait(), *parts)

    async def stand_by(self) -> NoReturn:
        """While another collector is active: know the list and the day's bookings before the lease is ours.

        Statements are not read: two collectors would need twice the requests.
        """
        if self._records.known_count:
            self._begin()
        if not self._follower.ahead:
            await asyncio.Event().wait()
        await self._follower.connected.wait()
        while True:
            await self._until_done(self._list_accounts)
            await self._until_done(self._history.keep)
            self._moved.forget_old(self._clock.now_ns())
            await asyncio.sleep(STAND_BY_S)

    async def work(self, lease: Lease) -> None:
        """Run all parts until cancelled. Raises LeaseLost, StateUnavailable, BrokerRefused."""
        await self._resume()
        try:
            await self._work(lease)
        except asyncio.CancelledError:
            await self._writer.hand_over(lease, is_whole=self._is_whole)
            raise
        finally:
            self._is_active = False

    async def _work(self, lease: Lease) -> None:
        self._records.begin_versions(lease.fencing_token)
        state, records = self._state, self._records

        def tell_whole(shards: Sequence[int]) -> Awaitable[None]:
            return state.accounts.write_listed(lease, shards if self._is_list_new else ())

        need_one_part = (
            self._tidy,
            self._report,
            self._equity_drift.compare_marks,
            lambda: keep_live(self._heard, state.feeds, self._metrics.broker_heard, self._clock),
            lambda: serve_closed_days(state, self._client, self._clock, self._metrics.refused_days.inc),
            lambda: learn_names(state, self._client, lambda: self._records.universe, self._clock),
        )
        await together(
            *(keep_running(part, self._clock, name) for name, part in self._follower.parts),
            self._collect(),
            self._writer.write(lease),
            write_lost_again(records, state.accounts, self._shards, self._writer, tell_whole),
            self._lag.measure(self._follower),
            self._interest.follow(),
            self._interest.poll(),
            *(spared(part, state.connection) for part in need_one_part),
        )

    @property
    def _is_whole(self) -> bool:
        """Whether every account that an event has moved has a record of ours."""
        return self._has_begun and not self._schedule.is_behind

    def _heard(self) -> Heard:
        """Whether the broker answers, and what it tells is known and written in time."""
        is_in_time = self._has_begun and not self._writer.is_slow
        if not (is_in_time and self._silence.is_heard(self._follower)):
            return Heard.AWAY
        return Heard.LIVE if self._is_whole else Heard.BEHIND

    async def _resume(self) -> None:
        """Continue with the records in memory, unless another collector has been active since."""
        self._has_begun = self._is_list_new = False
        for shard in self._shards if self._records.known_count else ():
            with self._writer.sparing(shard):
                if self._records.is_older_than(await self._state.accounts.read_all(shard)):
                    log.warning("another collector was active: starting again")
                    self._begin()
                    break
        self._records.write_all_again()
        self._pending.write_all_again()
        self._writer.request_write()
        self._schedule.release_all()
        written = await self._writer.read_cursor(self._clock.now_ns())
        for account_id in self._moved.take(parse.published_ns(written) if written else None):
            self._schedule.put_first(account_id)
        self._is_active = True

    # Events

    def take_activity(self, activity: Activity, *, is_live: bool) -> None:
        """Apply a booking from the follower."""
        if is_live:
            self._note_moved(activity)
        is_new = self._records.apply_activity(activity, self._clock.now_ns())
        is_known_type = activity_types.is_described(activity.activity_type)
        outcome = ("applied" if is_known_type else "unknown_type") if is_new else "repeated"
        if self._is_active:
            self._metrics.activities.labels(outcome).inc()
        if not self._records.is_listed(activity.account_id):
            self._relist.set()
        elif is_new and (look_ns := self._records.look_again_ns(activity.account_id)) is not None:
            self._schedule.set_due(activity.account_id, self._turn_ns(look_ns), is_hurried=True)
        if self._records.has_changes:
            self._writer.request_write()

    def _note_moved(self, activity: Activity) -> None:
        if not self._is_active:
            at_ns = parse.published_ns(activity.event_id) or self._clock.now_ns()
            self._moved.note(activity.account_id, at_ns)
            return
        self._lag.note_event(activity.event_id)
        if not self._records.is_known(activity.account_id):
            self._schedule.put_first(activity.account_id)

    def take_rows(self, rows: list[Activity]) -> None:
        """Apply the client's own bookings that REST lists and no event has reported."""
        by_account = dict[str, list[Activity]]()
        for one in rows:
            by_account.setdefault(one.account_id, []).append(one)
        latest_ns = self._client.broker_time.latest_ns(now(self._clock))
        for account_id, own in by_account.items():
            for one in self._records.untold(account_id, own, latest_ns):
                said = "a booking is in the list of activities but not among the events"
                log.error(said, account_id=account_id, ref_id=one.ref_id)
                self._metrics.activities.labels("untold").inc()
                self.take_activity(one, is_live=False)

    def refuse_activity(self, account_id: str | None, reason: str) -> None:
        """An unreadable event may have moved money: fetch its account, or all if it names none."""
        self._metrics.rejected.labels("activity").inc()
        log.warning("activity refused", account_id=account_id, reason=reason)
        now_ns = self._clock.now_ns()
        for one in self._records.listed if account_id is None else [account_id]:
            if self._records.is_listed(one):
                if not self._is_active:
                    self._moved.note(one, now_ns)
                self._records.refuse_activity(one, now_ns)
                self._schedule.set_due(one, self._turn_ns(), is_hurried=account_id is not None)
        self._writer.request_write()

    async def _fill_gap(self) -> None:
        await self._follower.fill_gap()
        for account_id in self._records.listed:
            self._schedule.set_due(account_id, self._turn_ns())

    # REST

    async def _collect(self) -> None:
        if not (self._follower.connected.is_set() and self._has_list and self._follower.has_history):
            await asyncio.gather(self._wait_for_events(), self._until_done(self._list_accounts))
            await self._until_done(self._history.begin)
        self._has_begun = True
        await together(
            self._keep_list(),
            self._unlisted.ask(),
            keep_running(self._fill_gap, self._clock, "gap"),
            *(self._fetch_in_turn(index < URGENT_FETCHES) for index in range(FETCHES_MAX)),
        )

    async def _wait_for_events(self) -> None:
        """Wait for the stream, so that nothing is missed, but for at most EVENTS_S_MAX."""
        try:
            async with asyncio.timeout(EVENTS_S_MAX):
                await self._follower.connected.wait()
        except TimeoutError:
            log.error("no event stream yet: accounts follow REST only", waited_s=EVENTS_S_MAX)

    async def _until_done(self, attempt: Callable[[], Awaitable[Any]]) -> None:
        while True:
            try:
                return await attempt()
            except (BrokerUnavailable, PayloadRefused) as error:
                log.warning("broker request failed: trying again", reason=str(error))
            await asyncio.sleep(RETRY_S)

    async def _keep_list(self) -> NoReturn:
        if not self._is_list_new:
            await self._until_done(self._list_accounts)
        while True:
            await asyncio.sleep(min(RELIST_S_MIN, self._interval_ns / NS_PER_S))
            await wait_at_most(max(0.0, self._interval_ns / NS_PER_S - RELIST_S_MIN), self._relist)
            await self._until_done(self._list_accounts)

    async def _list_accounts(self) -> None:
        self._relist.clear()
        listed = await self._client.accounts()
        self._silence.note_answer()
        for reason in self._client.refused:
            self._metrics.rejected.labels("account").inc()
            log.error("an account is ignored: its entry in the account list could not be read", reason=reason)
        open_ids = (one.account_id for one in listed if one.status != CLOSED)
        new, gone = self._records.list_accounts(open_ids, is_whole=not self._client.refused)
        for account_id in new:
            self._begin_to_fetch(account_id)
        for account_id in gone:
            self._untried.discard(account_id)
            self._pending.discard(account_id)
            self._failures.pop(account_id, None)
            self._schedule.forget(account_id)
        if new or gone:
            log.info("accounts listed", new=len(new), gone=len(gone), listed=len(self._records.listed))
        self._writer.request_write()
        self._has_list, self._is_list_new = True, self._is_active
        if self._is_active:
            await self._numbers.keep(listed)

    def _begin_to_fetch(self, account_id: str) -> None:
        self._untried.add(account_id)
        self._pending.add(account_id, "the broker has not been asked about it yet")
        self._schedule.set_due(account_id, 0)

    async def _fetch_in_turn(self, is_urgent_only: bool) -> NoReturn:
        while True:
            await self._fetch(await self._turns.next(is_urgent_only=is_urgent_only))

    async def _fetch(self, turn: DueFetch) -> None:
        account_id, began = turn.account_id, now(self._clock)
        wait_ns, is_answered = int(RETRY_S * NS_PER_S), False
        try:
            statement = await self._client.statement(account_id, is_urgent=turn.is_urgent)
            ended = now(self._clock)
            if statement is not None:
                day_ns = cash_flows.cut_off_ns(statement.state.balance_asof)
                await self._history.know_since(day_ns, account_id)
            self._untried.discard(account_id)
            self._silence.note_answer()
            self._failures.pop(account_id, None)
            wait_ns, is_answered = self._observe(account_id, statement, began, ended), True
            if statement is not None:
                self._equity_drift.compare(statement)
        except BrokerUnavailable as error:
            self._metrics.reconciled.labels("unavailable").inc()
            log.warning("account could not be fetched", account_id=account_id, reason=str(error))
            wait_ns, is_answered = await self._note_unavailable(account_id)
        except PayloadRefused as error:
            self._silence.note_answer()
            self._metrics.rejected.labels("statement").inc()
            log.error("statement refused", account_id=account_id, reason=str(error))
            await self._refuse(account_id, str(error), is_final=isinstance(error, CurrencyRefused))
            wait_ns, is_answered = min(self._interval_ns, REFUSED_AGAIN_NS), True
        finally:
            self._finish(account_id, self._turn_ns() + wait_ns, is_answered=is_answered)

    async def _note_unavailable(self, account_id: str) -> tuple[int, bool]:
        """Find out whether all requests fail or only this account's.

        Returns the ns until the next try, and whether the failure is the broker's answer about this account:
        then its record is marked.
        """
        self._silence.note_failure()
        failures = self._failures[account_id] = self._failures.get(account_id, 0) + 1
        try:
            await self._client.prove()
        except BrokerUnavailable as error:
            log.warning("the broker does not answer", reason=str(error))
            return int(RETRY_S * NS_PER_S), False
        self._silence.note_answer()
        is_refused = failures >= FAILURES_MAX
        if is_refused:
            await self._refuse(account_id, "the broker answers about other accounts, but not about this one")
        wait_ns = min(self._interval_ns, int(RETRY_S * NS_PER_S) << min(failures, BACK_OFF_MAX))
        return wait_ns, is_refused

    async def _refuse(self, account_id: str, reason: str, *, is_final: bool = False) -> None:
        """Mark the account's record as old: no answer about it can be read. That of a former owner, too."""
        self._untried.discard(account_id)
        is_missing = self._records.is_listed(account_id) and not self._records.is_known(account_id)
        stored = await self._writer.read_stored(account_id) if is_missing else None
        now_ns = self._clock.now_ns()
        if self._records.is_known(account_id):
            self._records.refuse_statement(account_id, now_ns)
        elif stored is not None and self._records.is_listed(account_id):  # it may have left meanwhile
            self._records.inherit_unreadable(stored, now_ns)
            self._pending.discard(account_id)
        elif self._records.is_listed(account_id):
            self._pending.add(account_id, reason, is_final=is_final)
        self._writer.request_write()

    def _observe(self, account_id: str, statement: Statement | None, began: Moment, ended: Moment) -> int:
        """Apply a statement. Returns the ns until the account's next fetch."""
        if statement is None or not self._records.is_listed(account_id):  # it may have left meanwhile
            self._metrics.reconciled.labels("absent").inc()
            return self._interval_ns
        asked = self._client.broker_time.span(began, ended)
        outcome = self._records.observe(statement, began.at_ns, ended.at_ns, asked)
        self._pending.discard(account_id)
        self._metrics.reconciled.labels(outcome).inc()
        if outcome is Outcome.DRIFT:
            log.warning("drift: the broker's statement replaces the record", account_id=account_id)
        self._writer.request_write()
        spread = FIRST_SPREAD if outcome is Outcome.FIRST else SPREAD
        return int(self._interval_ns * random.uniform(*spread))

    def _finish(self, account_id: str, due_ns: int, *, is_answered: bool) -> None:
        look_ns = self._records.look_again_ns(account_id)
        is_hurried = look_ns is not None and self._turn_ns(look_ns) < due_ns
        if is_hurried:
            due_ns = self._turn_ns(look_ns)
        self._schedule.done(account_id, due_ns, is_hurried=is_hurried, is_answered=is_answered)

    def _turn_ns(self, at_ns: int | None = None) -> int:
        """Now, or the wall-clock time `at_ns`, in ns of the monotonic clock, which is never set."""
        ahead_ns = 0 if at_ns is None else at_ns - self._clock.now_ns()
        return int(self._clock.monotonic_s() * NS_PER_S) + ahead_ns

    # The shared state

    async def _tidy(self) -> NoReturn:
        """After the first full pass, and after each later one, remove what is no longer held or listed."""
        while True:
            if self._is_complete:
                self._writer.remove_symbols(await find_left_over(self._records, self._state.accounts))
                self._writer.request_write()
                await asyncio.sleep(self._interval_ns / NS_PER_S)
            await asyncio.sleep(REPORT_S)

    async def _report(self) -> NoReturn:
        while True:
            show_records(self._metrics, self._records, len(self._pending), self._clock.now_ns())
            self._report_progress()
            if self._is_whole:
                await self._writer.write_cursor()
            await asyncio.sleep(REPORT_S)

    def _report_progress(self) -> None:
        if not self._is_complete and self._follower.has_history:
            self._is_complete = self._is_list_new and not self._untried
            said = "all accounts are known" if self._is_complete else "collecting"
            log.info(said, known=self._records.known_count, listed=len(self._records.listed))
