"""The asset class of each symbol: what a position states, otherwise what the symbol's form suggests.

Bookings state no class, and the form can mislead (`ipo` becomes `us_equity`, a root may end in a digit). What
a position states replaces the guess at once, and may change back.
"""

from collections.abc import Collection

from portfolio_realtime.symbol_collector.model import Activity, Statement, asset_class_of


class AssetClasses:
    """What the positions of all accounts have stated."""

    def __init__(self) -> None:
        self._stated: dict[str, str] = {}
        self._changed: set[str] = set()

    def of(self, symbol: str) -> str:
        """The class of a symbol."""
        return self._stated.get(symbol) or asset_class_of(symbol)

    def knows(self, symbol: str) -> bool:
        """Whether a position has stated its class."""
        return symbol in self._stated

    def stated(self, activity: Activity) -> str:
        """The class that positions have stated for a booking's symbol, or an empty string."""
        return self._stated.get(activity.symbol or "", "")

    def learn(self, statement: Statement) -> None:
        """Take the classes from a statement."""
        for symbol, holding in statement.holdings.items():
            if self._stated.get(symbol) != holding.asset_class:
                if self.of(symbol) != holding.asset_class:
                    self._changed.add(symbol)
                self._stated[symbol] = holding.asset_class

    def keep(self, symbols: Collection[str]) -> None:
        """Forget symbols that no account holds."""
        self._stated = {symbol: stated for symbol, stated in self._stated.items() if symbol in symbols}

    def take_changed(self) -> set[str]:
        """The symbols whose class has changed since the last call."""
        changed, self._changed = self._changed, set()
        return changed
