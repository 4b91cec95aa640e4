"""Whose turn it is: what somebody waits for first, then who has been due for longest; nobody is forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.symbol_collector import fetch_schedule as turns_module
from portfolio_realtime.symbol_collector.fetch_schedule import Turn, Turns


def test_watched_accounts_come_first_even_when_they_begin_to_be_watched_late() -> None:
    """An announcement of interest jumps the line."""
    turns = Turns()
    for account_id in "abcd":
        turns.set_due(account_id, 0)
    turns.watch({"c"})

    assert turns.next(1) == Turn("c", True)
    turns.begin_to_watch("d")
    assert turns.next(1) == Turn("d", True)
    assert turns.next(1, is_urgent_only=True) is None
    assert turns.next(1) == Turn("a", False)
    assert turns.next(1) == Turn("b", False)
    assert turns.next(1) is None


def test_who_is_watched_already_does_not_join_the_line_again() -> None:
    """Many clients of one account begin to watch it one after the other; the line stays as long as it is."""
    turns = Turns()
    turns.set_due("a", 0)
    for _ in range(3):
        turns.begin_to_watch("a")

    assert turns.next(1) == Turn("a", True)
    turns.begin_to_watch("a")
    assert turns.next(1) is None
    turns.done("a", 5)
    assert turns.next(5) == Turn("a", True)
    turns.watch(set())
    turns.done("a", 6)
    assert turns.next(6) == Turn("a", False)


def test_nobody_is_fetched_twice_at_the_same_time() -> None:
    """An account that becomes due while it is being fetched waits until that is done."""
    turns = Turns()
    turns.set_due("a", 0)
    turns.next(1)
    turns.set_due("a", 1, is_hurried=True)

    assert turns.next(2) is None
    turns.done("a", 5)
    assert turns.next(4) is None
    assert turns.next(5) == Turn("a", False)


def test_a_cut_off_fetch_is_due_again() -> None:
    """What was being fetched when everything stopped is fetched later."""
    turns = Turns()
    turns.set_due("a", 0)
    turns.next(1)
    turns.release_all()

    assert turns.next(1) == Turn("a", False)


@given(
    st.lists(
        st.tuples(st.sampled_from(["watch", "due", "hurry", "next", "done", "forget"]), st.integers(0, 4)),
        max_size=60,
    )
)
def test_every_account_that_is_due_gets_its_turn(story: list[tuple[str, int]]) -> None:
    """Whatever happened before: all due accounts come, once each, the urgent ones first."""
    turns, due, fetching = Turns(), set[str](), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns_module, "STALE_MAX", 3)
        for now_ns, (action, number) in enumerate(story):
            account_id = f"account-{number}"
            match action:
                case "watch":
                    turns.watch({f"account-{n}" for n in range(number)})
                case "due" | "hurry":
                    turns.set_due(account_id, now_ns, is_hurried=action == "hurry")
                    due.add(account_id)
                case "forget":
                    turns.forget(account_id)
                    due.discard(account_id)
                case "next":
                    turn = turns.next(now_ns)
                    fetching += [turn.account_id] if turn else []
                case _:
                    if fetching:
                        turns.done(fetching.pop(), now_ns)
    for account_id in fetching:
        turns.done(account_id, 100)

    got = list(iter(lambda: turns.next(1_000), None))

    assert due == {turn.account_id for turn in got}
    assert len(due) == len(got)
    assert got == sorted(got, key=lambda turn: not turn.is_urgent)
