"""Names of held assets from the broker's assets endpoint: one symbol at a time, each once.

These requests come after all others, because nothing waits for a name.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn, Protocol

import structlog

from portfolio_realtime.clock import NS_PER_S, Clock
from portfolio_realtime.errors import BrokerError
from portfolio_realtime.model import US_OPTION
from portfolio_realtime.state import State
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused

POLL_S: Final = 5.0  # between two searches for new symbols
PAUSE_S: Final = 0.1  # between two requests
BROKER_PAUSE_S: Final = 60.0  # after a request that failed
AGAIN_NS: Final = 24 * 3600 * NS_PER_S  # until a symbol without a name is looked up again
NAME_LENGTH_MAX: Final = 200

log = structlog.get_logger()


class AssetSource(Protocol):
    """A source of assets."""

    async def asset(self, symbol: str) -> Any:
        """The broker's answer about one asset, or None if it has none. Raises BrokerError."""
        ...


async def learn_names(
    state: State, source: AssetSource, universe: Callable[[], Mapping[str, str]], clock: Clock
) -> NoReturn:
    """Find the name of every symbol of `universe` (symbol -> asset class), without end.

    Options have no name, because their symbol says what they are. Raises StateUnavailable.
    """
    asked_ns: dict[str, int] = {}
    failures: Counter[str] = Counter()  # symbol -> failed requests; such symbols come last
    while True:
        known = await state.asset_names.symbols()
        held = [symbol for symbol, asset_class in universe().items() if asset_class != US_OPTION]
        asked_ns = {symbol: at_ns for symbol, at_ns in asked_ns.items() if symbol in held}
        failures = Counter({symbol: count for symbol, count in failures.items() if symbol in held})
        due = _due(held, known, asked_ns, clock.now_ns())
        for symbol in sorted(due, key=lambda one: (failures[one], one)):
            try:
                found = await source.asset(symbol)
            except PayloadRefused as error:
                log.warning("the name of an asset could not be read", symbol=symbol, reason=str(error))
                found = None
            except BrokerError as error:
                log.warning("names of assets could not be fetched", symbol=symbol, reason=str(error))
                failures[symbol] += 1
                await asyncio.sleep(BROKER_PAUSE_S)
                break
            if (name := name_of(found)) is None:
                asked_ns[symbol] = clock.now_ns()
            else:  # looked up again at once if Valkey loses it
                await state.asset_names.write(symbol, name)
            await asyncio.sleep(PAUSE_S)
        await asyncio.sleep(POLL_S)


def _due(held: Iterable[str], known: set[str], asked_ns: Mapping[str, int], now_ns: int) -> list[str]:
    return [
        symbol
        for symbol in held
        if symbol not in known and now_ns - asked_ns.get(symbol, now_ns - AGAIN_NS) >= AGAIN_NS
    ]


def name_of(asset: Any) -> str | None:
    """The name in an answer, on one line, or None if there is none."""
    name = asset.get("name") if isinstance(asset, Mapping) else None
    if not isinstance(name, str):
        return None
    return (
        " ".join("".join(sign if sign.isprintable() else " " for sign in name).split())[:NAME_LENGTH_MAX]
        or None
    )
