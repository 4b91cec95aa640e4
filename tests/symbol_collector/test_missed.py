"""Accounts that are watched and not listed: asked for once, told no for a moment, and bounded."""

import pytest

from portfolio_realtime.symbol_collector import unlisted_accounts as missed_module
from portfolio_realtime.symbol_collector.unlisted_accounts import ABSENT_NS, Missed


def test_who_is_missed_is_asked_for_once_and_in_order() -> None:
    """However many want the account meanwhile."""
    missed = Missed()
    for account_id in ("b", "a", "b", "c"):
        missed.add(account_id)

    assert missed.take(2) == ["b", "a"]
    assert missed.take(2) == ["c"]
    assert missed.take(2) == []


def test_a_no_is_good_for_a_moment() -> None:
    """Then the broker is asked again."""
    missed = Missed()
    assert not missed.has_no("a", 0)
    missed.put_no("a", 0)

    assert missed.has_no("a", ABSENT_NS - 1)
    assert not missed.has_no("a", ABSENT_NS)


def test_who_stays_watched_is_not_asked_for_again() -> None:
    """Interest outlives a refused client by half a minute; once it has ended nothing is remembered."""
    missed = Missed()
    missed.watch({"a", "b"})
    assert sorted(missed.take(9)) == ["a", "b"]
    missed.put_no("a", 0)

    missed.watch({"a", "b"})
    assert missed.take(9) == ["b"], "nobody has said anything about b"
    missed.watch(set())
    missed.watch({"a"})
    assert missed.take(9) == ["a"]


def test_the_missed_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes beyond waits for the next list, as before."""
    monkeypatch.setattr(missed_module, "MISSED_MAX", 2)
    missed = Missed()
    for account_id in "abc":
        missed.add(account_id)

    assert missed.take(9) == ["a", "b"]
