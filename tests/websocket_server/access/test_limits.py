"""How much one user and one address may have: a bucket that fills evenly, connections that are given back."""

import pytest

from portfolio_realtime.websocket_server.access import limits
from portfolio_realtime.websocket_server.access.client_address import joined, limit_key_of
from portfolio_realtime.websocket_server.access.limits import OpenConnections, PerMinute


def test_a_bucket_gives_its_allowance_at_once_and_then_evenly() -> None:
    """Never more than the allowance in any minute that begins when it is full, plus what has come back."""
    bucket = PerMinute(60)
    assert [bucket.try_acquire("a", 0.0) for _ in range(61)] == [True] * 60 + [False]
    assert bucket.try_acquire("b", 0.0)
    assert not bucket.try_acquire("a", 0.5)
    assert bucket.try_acquire("a", 1.0)
    assert not bucket.try_acquire("a", 1.5)
    assert [bucket.try_acquire("a", 1000.0) for _ in range(61)] == [True] * 60 + [False]


def test_buckets_are_bounded_and_the_idle_ones_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker with many addresses fills no memory; when all are busy, newcomers are refused."""
    monkeypatch.setattr(limits, "BUCKETS_MAX", 3)
    bucket = PerMinute(5)
    assert [bucket.try_acquire(key, 0.0) for key in "abcd"] == [True, True, True, False]
    assert bucket.try_acquire("a", 1.0)
    assert bucket.try_acquire("d", limits.MINUTE_S)
    assert [bucket.try_acquire(key, limits.MINUTE_S + 1) for key in "ef"] == [True, True]


def test_who_leaves_makes_room_and_leaves_nothing_behind() -> None:
    """Back ends are counted, and not limited."""
    connections = OpenConnections(2)
    assert [connections.enter("a") for _ in range(3)] == [True, True, False]
    assert connections.enter("a", is_limited=False)
    for _ in range(3):
        connections.leave("a")
    assert connections.has_room("a")
    assert connections._open == {}


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", ""),
    ],
)
def test_one_customer_is_one_place(address: str, place: str) -> None:
    """An IPv6 customer has more addresses than anybody can count."""
    assert limit_key_of(address) == place


def test_headers_that_come_twice_are_one() -> None:
    """So that the last of them cannot hide what a proxy has added, nor the first."""
    assert joined([("X-Forwarded-For", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2"), ("A", "b")]) == {
        "x-forwarded-for": "1.1.1.1,2.2.2.2",
        "a": "b",
    }
