"""Accounts that are watched and not listed: asked for once, told no for a moment, and bounded."""

import pytest

from portfolio_realtime.symbol_collector import unlisted_accounts as unlisted_module
from portfolio_realtime.symbol_collector.unlisted_accounts import ABSENT_NS, UnlistedAccounts


def test_who_is_missed_is_asked_for_once_and_in_order() -> None:
    """However many want the account meanwhile."""
    unlisted = UnlistedAccounts()
    for account_id in ("b", "a", "b", "c"):
        unlisted.add(account_id)

    assert unlisted.next_to_fetch(2) == ["b", "a"]
    assert unlisted.next_to_fetch(2) == ["c"]
    assert unlisted.next_to_fetch(2) == []


def test_a_no_is_good_for_a_moment() -> None:
    """Then the broker is asked again."""
    unlisted = UnlistedAccounts()
    assert not unlisted.is_absent("a", 0)
    unlisted.mark_absent("a", 0)

    assert unlisted.is_absent("a", ABSENT_NS - 1)
    assert not unlisted.is_absent("a", ABSENT_NS)


def test_who_stays_watched_is_not_asked_for_again() -> None:
    """Interest outlives a refused client by half a minute; once it has ended nothing is remembered."""
    unlisted = UnlistedAccounts()
    unlisted.watch({"a", "b"})
    assert sorted(unlisted.next_to_fetch(9)) == ["a", "b"]
    unlisted.mark_absent("a", 0)

    unlisted.watch({"a", "b"})
    assert unlisted.next_to_fetch(9) == ["b"], "nobody has said anything about b"
    unlisted.watch(set())
    unlisted.watch({"a"})
    assert unlisted.next_to_fetch(9) == ["a"]


def test_the_missed_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes beyond waits for the next list, as before."""
    monkeypatch.setattr(unlisted_module, "MISSED_MAX", 2)
    unlisted = UnlistedAccounts()
    for account_id in "abc":
        unlisted.add(account_id)

    assert unlisted.next_to_fetch(9) == ["a", "b"]
