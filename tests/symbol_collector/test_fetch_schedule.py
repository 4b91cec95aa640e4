"""Whose turn it is: what somebody waits for first, then who has been due for longest; nobody is forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.symbol_collector import fetch_schedule as schedule_module
from portfolio_realtime.symbol_collector.fetch_schedule import DueFetch, FetchSchedule
from portfolio_realtime.symbol_collector.moved_accounts import KEPT_NS, OVERLAP_NS, MovedAccounts

NOW_NS = 1_795_000_000 * NS_PER_S


def test_watched_accounts_come_first_even_when_they_begin_to_be_watched_late() -> None:
    """An announcement of interest jumps the line."""
    schedule = FetchSchedule()
    for account_id in "abcd":
        schedule.set_due(account_id, 0)
    schedule.watch({"c"})

    assert schedule.next(1) == DueFetch("c", True)
    schedule.begin_to_watch("d")
    assert schedule.next(1) == DueFetch("d", True)
    assert schedule.next(1, is_urgent_only=True) is None
    assert schedule.next(1) == DueFetch("a", False)
    assert schedule.next(1) == DueFetch("b", False)
    assert schedule.next(1) is None


def test_who_is_watched_already_does_not_join_the_line_again() -> None:
    """Many clients of one account begin to watch it one after the other; the line stays as long as it is."""
    schedule = FetchSchedule()
    schedule.set_due("a", 0)
    for _ in range(3):
        schedule.begin_to_watch("a")

    assert schedule.next(1) == DueFetch("a", True)
    schedule.begin_to_watch("a")
    assert schedule.next(1) is None
    schedule.done("a", 5)
    assert schedule.next(5) == DueFetch("a", True)
    schedule.watch(set())
    schedule.done("a", 6)
    assert schedule.next(6) == DueFetch("a", False)


def test_nobody_is_fetched_twice_at_the_same_time() -> None:
    """An account that becomes due while it is being fetched waits until that is done."""
    schedule = FetchSchedule()
    schedule.set_due("a", 0)
    schedule.next(1)
    schedule.set_due("a", 1, is_hurried=True)

    assert schedule.next(2) is None
    schedule.done("a", 5)
    assert schedule.next(4) is None
    assert schedule.next(5) == DueFetch("a", False)


def test_a_cut_off_fetch_is_due_again() -> None:
    """What was being fetched when everything stopped is fetched later."""
    schedule = FetchSchedule()
    schedule.set_due("a", 0)
    schedule.next(1)
    schedule.release_all()

    assert schedule.next(1) == DueFetch("a", False)


@given(
    st.lists(
        st.tuples(st.sampled_from(["watch", "due", "hurry", "next", "done", "forget"]), st.integers(0, 4)),
        max_size=60,
    )
)
def test_every_account_that_is_due_gets_its_turn(story: list[tuple[str, int]]) -> None:
    """Whatever happened before: all due accounts come, once each, the urgent ones first."""
    schedule, due, fetching = FetchSchedule(), set[str](), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule_module, "STALE_MAX", 3)
        for now_ns, (action, number) in enumerate(story):
            account_id = f"account-{number}"
            match action:
                case "watch":
                    schedule.watch({f"account-{n}" for n in range(number)})
                case "due" | "hurry":
                    schedule.set_due(account_id, now_ns, is_hurried=action == "hurry")
                    due.add(account_id)
                case "forget":
                    schedule.forget(account_id)
                    due.discard(account_id)
                case "next":
                    turn = schedule.next(now_ns)
                    fetching += [turn.account_id] if turn else []
                case _:
                    if fetching:
                        schedule.done(fetching.pop(), now_ns)
    for account_id in fetching:
        schedule.done(account_id, 100)

    got = list(iter(lambda: schedule.next(1_000), None))

    assert due == {turn.account_id for turn in got}
    assert len(due) == len(got)
    assert got == sorted(got, key=lambda turn: not turn.is_urgent)


def test_who_has_moved_comes_before_all_others_also_when_it_is_due_only_later() -> None:
    """A new owner hears of a booking before it has the list, or after it has begun to ask for everybody."""
    schedule = FetchSchedule()
    schedule.put_first("d")
    for account_id in "abcd":
        schedule.set_due(account_id, 0)
    schedule.watch({"c"})
    assert schedule.next(1, is_urgent_only=True) == DueFetch("d", True)
    schedule.put_first("b")
    assert [schedule.next(1) for _ in range(4)] == [
        DueFetch("b", True),
        DueFetch("c", True),
        DueFetch("a", False),
        None,
    ]
    schedule.done("d", 5)
    schedule.put_first("e")
    schedule.forget("e")
    schedule.set_due("e", 0)
    assert schedule.next(1) == DueFetch("e", False)


def test_accounts_that_are_never_listed_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes beyond waits like everybody."""
    monkeypatch.setattr(schedule_module, "MOVED_MAX", 1)
    schedule = FetchSchedule()
    for account_id in "ab":
        schedule.put_first(account_id)
        schedule.set_due("c", 0)
    for account_id in "ab":
        schedule.set_due(account_id, 0)
    assert schedule.next(1) == DueFetch("a", True)
    assert schedule.next(1) == DueFetch("c", False)


def test_a_new_owner_is_behind_until_who_has_moved_is_fetched() -> None:
    """Also when fetches were cut off or failed; one that is gone, or never listed, holds nothing up."""
    schedule = FetchSchedule()
    schedule.put_first("never listed")
    assert not schedule.is_behind
    for account_id in ("a", "b"):
        schedule.set_due(account_id, 10)
        schedule.put_first(account_id)
    assert schedule.next(0) == DueFetch("a", is_urgent=True)
    schedule.release_all()
    assert schedule.next(0) is not None
    schedule.done("a", 100)
    assert schedule.is_behind
    schedule.done("b", 50, is_answered=False)
    assert schedule.is_behind
    assert schedule.next(50) == DueFetch("b", is_urgent=True)
    schedule.forget("b")
    assert not schedule.is_behind
    schedule.put_first("c")
    schedule.set_due("c", 10)
    assert schedule.is_behind


def test_only_who_has_moved_since_then_is_named_once() -> None:
    """By the newest event of each account, and a little from before: events of one moment have no order."""
    moved = MovedAccounts()
    moved.note("long ago", NOW_NS - OVERLAP_NS - 1)
    moved.note("just before", NOW_NS - OVERLAP_NS)
    moved.note("twice", NOW_NS + 1)
    moved.note("twice", NOW_NS - NS_PER_S)
    assert moved.take(NOW_NS) == ["just before", "twice"]
    assert moved.take(None) == []


def test_without_a_place_all_count_that_are_kept() -> None:
    """Nothing was written down, or it was lost: everybody of the last hour is asked for."""
    moved = MovedAccounts()
    moved.note("old", NOW_NS - KEPT_NS)
    moved.note("new", NOW_NS - KEPT_NS + 1)
    moved.forget_old(NOW_NS)
    assert moved.take(None) == ["new"]
