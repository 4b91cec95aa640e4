"""The symbols of which a snapshot was taken, and which of them were not told yet if they have no price."""

from collections.abc import Iterable


class SoughtSymbols:
    """In the order in which they were sought. Whoever asks for the untold ones pays for no others."""

    def __init__(self) -> None:
        self._all: dict[str, None] = {}
        self._untold: dict[str, None] = {}

    def note(self, symbols: Iterable[str]) -> None:
        """Note that their snapshots were taken; those that were told stay so."""
        new = dict.fromkeys(symbol for symbol in symbols if symbol not in self._all)
        self._all.update(new)
        self._untold.update(new)

    def take_untold(self) -> Iterable[str]:
        """Those that are not told yet; they count as told from now on."""
        untold, self._untold = self._untold, {}
        return untold

    def tell_again(self) -> None:
        """Count all of them as not told."""
        self._untold = dict(self._all)

    def forget(self, symbol: str) -> None:
        """Its snapshot does not count any more."""
        self._all.pop(symbol, None)
        self._untold.pop(symbol, None)

    def clear(self) -> None:
        """Forget all of them."""
        self._all.clear()
        self._untold.clear()
