"""Numbers of accounts from the broker's account list: what a person calls an account by."""

from collections.abc import Iterable
from typing import Final

from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.service import spare
from portfolio_realtime.state import State
from portfolio_realtime.symbol_collector.sources.parse import ListedAccount

NUMBER_LENGTH_MAX: Final = 64


class NumbersKept:
    """Writes the numbers of a list if any has changed, or if the shared state has lost them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._written: dict[str, str] | None = None

    async def keep(self, listed: Iterable[ListedAccount]) -> None:
        """Keep the numbers of these accounts and of no others. Raises StateUnavailable of a single server."""
        numbers = {one.account_id: one.number for one in listed if is_number(one.number)}
        try:
            if numbers == self._written and await self._state.account_numbers.count() == len(numbers):
                return
            await self._state.account_numbers.write(numbers)
        except StateUnavailable as error:
            spare(error, is_cluster=self._state.connection.is_cluster)
            return
        self._written = numbers


def is_number(text: str) -> bool:
    """Whether people can read it, on one line."""
    return text.isprintable() and 0 < len(text) <= NUMBER_LENGTH_MAX
