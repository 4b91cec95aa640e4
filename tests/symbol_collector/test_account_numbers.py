"""Numbers of accounts, as the broker's list has them, reach the shared state and leave it."""

from typing import Any

import pytest

from portfolio_realtime.state import State
from portfolio_realtime.symbol_collector.account_numbers import NumbersKept, is_number
from portfolio_realtime.symbol_collector.sources.parse import ListedAccount, listed_account


def listed(numbers: dict[str, str]) -> list[ListedAccount]:
    """An account list with these numbers."""
    return [ListedAccount(one, "ACTIVE", "", number) for one, number in numbers.items()]


async def test_the_numbers_of_the_newest_list_are_kept_and_no_others(state: State) -> None:
    """A new one, one that has changed, one whose account is gone, and one that cannot be read."""
    kept = NumbersKept(state)
    await kept.keep(listed({"a": "1", "b": "2", "c": "3", "odd": "\n"}))
    assert await state.account_numbers.read(["a", "b", "c", "odd"]) == {"a": "1", "b": "2", "c": "3"}
    await kept.keep(listed({"a": "1", "b": "20", "d": "4"}))
    assert await state.account_numbers.read(["a", "b", "c", "d"]) == {"a": "1", "b": "20", "d": "4"}
    assert await state.account_numbers.read([]) == {}


async def test_numbers_that_the_state_has_lost_are_written_again(state: State) -> None:
    """The same list is enough; what a former collector left behind goes, too."""
    await state.account_numbers.write({"left": "0"})
    kept = NumbersKept(state)
    await kept.keep(listed({"a": "1", "b": "2"}))
    assert await state.account_numbers.read(["a", "left"]) == {"a": "1"}
    await state.account_numbers.write({"b": "2"})
    await kept.keep(listed({"a": "1", "b": "2"}))
    assert await state.account_numbers.read(["a"]) == {"a": "1"}


async def test_more_numbers_than_one_write_carries(state: State) -> None:
    """All arrive, and all but one go."""
    many = {f"account-{index}": str(index) for index in range(2_500)}
    await state.account_numbers.write(many)
    assert await state.account_numbers.read(many) == many
    await state.account_numbers.write({"account-7": "7"})
    assert await state.account_numbers.count() == 1


@pytest.mark.parametrize(
    ("payload", "number"),
    [({"account_number": "900000012"}, "900000012"), ({"account_number": 7}, ""), ({}, "")],
)
def test_a_number_is_a_text_of_the_list(payload: dict[str, Any], number: str) -> None:
    """Without one an account is listed all the same."""
    assert listed_account({"id": "a", **payload}).number == number


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("900000012", True), ("PA3ABC", True), ("", False), ("1\n2", False), ("1" * 65, False)],
)
def test_a_number_is_one_short_line(text: str, is_one: bool) -> None:
    """Anything else is none."""
    assert is_number(text) is is_one
