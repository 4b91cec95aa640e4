"""Which of two marks counts: the one with the higher version, whatever clocks say."""

from portfolio_realtime.valuation.valuer import Valuer

from .records import NOW_NS, account, mark, position


def test_a_mark_is_shown_although_another_lease_has_given_higher_versions() -> None:
    """Stocks and crypto have consumers of their own: their versions cannot be compared."""
    valuer = Valuer(price_ttl_s=60.0, min_update_interval_s=1.0)
    valuer.watch(account("bob", [position("STOCK", 1), position("COIN", 1)]), 1, with_positions=True)
    valuer.apply_marks([mark("STOCK", 10.0, version=2_000), mark("COIN", 20.0, version=1_000)])
    assert valuer.flush(NOW_NS, 10.0).publications
    assert not valuer.flush(NOW_NS, 20.0).publications
    valuer.apply_marks([mark("COIN", 20.0, version=1_001, as_of_ns=NOW_NS + 1)])
    assert [one.account_id for one in valuer.flush(NOW_NS, 30.0).publications] == ["bob"]


def test_after_a_new_subscription_the_stored_versions_count() -> None:
    """Valkey has lost its data and its tokens: what is written from then on is believed."""
    valuer = Valuer(price_ttl_s=60.0, min_update_interval_s=1.0)
    assert valuer.apply_marks([mark("A", 100.0, version=2_000)])
    assert not valuer.apply_marks([mark("A", 1.0, version=1_000)])
    valuer.apply_stored([mark("A", 2.0, version=1_500)])
    assert valuer.book.marks["A"].price == 100.0, "a replica that lacks the last writes"
    assert not valuer.apply_marks([mark("A", 3.0, version=1_500)])
    assert valuer.apply_marks([mark("A", 4.0, version=1_501)])
    valuer.apply_stored([])
    assert valuer.apply_marks([mark("A", 5.0, version=1)])
    assert valuer.book.marks["A"].price == 5.0
