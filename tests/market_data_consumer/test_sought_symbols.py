"""Each symbol that was sought is told once, and again when that is asked for."""

from portfolio_realtime.market_data_consumer.sought_symbols import SoughtSymbols


def test_each_is_told_once_until_all_are_told_again() -> None:
    """A second snapshot of one that was told changes nothing."""
    sought = SoughtSymbols()
    sought.note(["B", "A"])
    assert list(sought.take_untold()) == ["B", "A"]
    sought.note(["A", "C"])
    assert list(sought.take_untold()) == ["C"]
    assert list(sought.take_untold()) == []
    sought.tell_again()
    assert list(sought.take_untold()) == ["B", "A", "C"]


def test_what_is_forgotten_is_told_only_after_it_is_sought_again() -> None:
    """Also if it was not told yet."""
    sought = SoughtSymbols()
    sought.note(["A", "B", "C"])
    sought.forget("A")
    sought.tell_again()
    sought.forget("B")
    assert list(sought.take_untold()) == ["C"]
    sought.note(["A"])
    assert list(sought.take_untold()) == ["A"]
    sought.clear()
    sought.tell_again()
    assert list(sought.take_untold()) == []
