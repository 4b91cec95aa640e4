"""The class of each symbol: the broker's word where a position has stated it, else what the form says.

Bookings name no class, and a form can mislead (`ipo` becomes `us_equity`, a root may end in a digit). What a
position states replaces the guess at once, and may change back.
"""

from collections.abc import Collection

from portfolio_realtime.symbol_collector.activities import Activity, Statement, asset_class_of


class AssetClasses:
    """What positions have stated, of all accounts."""

    def __init__(self) -> None:
        self._stated: dict[str, str] = {}
        self._changed: set[str] = set()

    def of(self, symbol: str) -> str:
        """The class of a symbol."""
        return self._stated.get(symbol) or asset_class_of(symbol)

    def stated(self, activity: Activity) -> str:
        """The class that positions have stated of a booking's symbol, or an empty text."""
        return self._stated.get(activity.symbol or "", "")

    def learn(self, statement: Statement) -> None:
        """Take a statement's word."""
        for symbol, holding in statement.holdings.items():
            if self._stated.get(symbol) != holding.asset_class:
                if self.of(symbol) != holding.asset_class:
                    self._changed.add(symbol)
                self._stated[symbol] = holding.asset_class

    def keep(self, symbols: Collection[str]) -> None:
        """Forget what nobody holds any more."""
        self._stated = {symbol: stated for symbol, stated in self._stated.items() if symbol in symbols}

    def take_changed(self) -> set[str]:
        """The symbols whose class is another one since this was last asked."""
        changed, self._changed = self._changed, set()
        return changed
