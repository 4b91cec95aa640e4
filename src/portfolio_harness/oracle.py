"""The oracle: a simulator's exact Decimal ledger, asked over its control endpoints.

Only proofs speak to it; the services know nothing but Alpaca's own paths. It rounds by itself, with nothing
of the product: a fault in the product's rounding must show.
"""

from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final

import httpx

TIMEOUT_S: Final = 60.0
CENT: Final = Decimal("0.01")
WIDE: Final = Context(prec=60)  # digits; no sum of money has more


@dataclass(frozen=True)
class Truth:
    """What one account is worth, to the cent, as the wire says it."""

    figures: dict[str, str]  # equity, cash, last_equity, external_cash_flow, day_pnl
    market_values: dict[str, str]  # symbol -> market value
    quantities: dict[str, Decimal] = field(default_factory=dict[str, Decimal])  # symbol -> quantity, exact
    in_transit: tuple[str, ...] = ()  # symbols between the two bookings of a split


class Oracle:
    """One simulator's control endpoints."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False)

    async def account_ids(self) -> list[str]:
        """Every account of the simulated broker."""
        return (await self._get("/_sim/accounts"))["accounts"]

    async def truth(self) -> dict[str, Truth]:
        """Every account's exact value at one instant, rounded to the cent."""
        answer = await self._get("/_sim/truth")
        return {account_id: _truth(exact) for account_id, exact in answer["accounts"].items()}

    async def marks(self, last: int) -> dict[str, list[list[str]]]:
        """Symbol -> its last marks, each with the moment it was made; the present one comes last."""
        return (await self._get(f"/_sim/marks?last={last}"))["marks"]

    async def state(self) -> dict[str, Any]:
        """Counters of the simulator."""
        return await self._get("/_sim/state")

    async def pause(self) -> None:
        """Stop the market and all account activity; what was emitted has been sent when this returns."""
        (await self._client.post("/_sim/pause")).raise_for_status()

    async def resume(self) -> None:
        """Let the market move again."""
        (await self._client.post("/_sim/resume")).raise_for_status()

    async def install(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Let a plan of faults begin now; the whole plan."""
        answer = await self._client.post("/_sim/faults", json=plan)
        answer.raise_for_status()
        return answer.json()

    async def faults_remaining_s(self) -> float:
        """Seconds until the last fault is over."""
        return (await self._get("/_sim/faults"))["remaining_s"]

    async def pull(self, lever: str, **body: Any) -> dict[str, Any]:
        """Move something by hand: `POST /_sim/{lever}`; its answer."""
        answer = await self._client.post(f"/_sim/{lever}", json=body)
        answer.raise_for_status()
        return answer.json()

    async def clock(self) -> dict[str, Any]:
        """The simulator's time, its session, and the day that its books are of."""
        return await self._get("/_sim/clock")

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def _get(self, path: str) -> dict[str, Any]:
        answer = await self._client.get(path)
        answer.raise_for_status()
        return answer.json()


def _truth(exact: dict[str, Any]) -> Truth:
    names = ("equity", "cash", "last_equity", "external_cash_flow", "day_pnl")
    return Truth(
        figures={name: to_the_cent(exact[name]) for name in names},
        market_values={held["symbol"]: to_the_cent(held["market_value"]) for held in exact["positions"]},
        quantities={held["symbol"]: Decimal(held["quantity"]) for held in exact["positions"]},
        in_transit=tuple(exact["in_transit"]),
    )


def to_the_cent(number: str) -> str:
    """Dollars rounded half-even to the cent, as the wire says them; zero has no sign."""
    rounded = Decimal(number).quantize(CENT, ROUND_HALF_EVEN, WIDE)
    return f"{rounded:f}" if rounded else "0.00"
