"""The oracle: a simulator's exact ledger, read over its control routes.

Only the harness uses it; the services use Alpaca's own paths only. It has its own rounding and none of the
product's, so that a fault in the product's rounding shows.
"""

from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final

import httpx

TIMEOUT_S: Final = 60.0
CENT: Final = Decimal("0.01")
WIDE: Final = Context(prec=60)  # more digits than any amount has


@dataclass(frozen=True)
class Truth:
    """One account's figures in the ledger, in dollars rounded to the cent, as text of the wire.

    A row has `quantity`, `mark` and `previous_close` (exact decimals), `mark_as_of` (a time as on the wire),
    `market_value`, `day_pnl` and `unrealized_pnl` (rounded). None: not compared. So are `day_pnl` and
    `previous_close` after bookings other than trades.
    """

    figures: dict[str, str]  # equity, cash, last_equity, external_cash_flow, day_pnl
    rows: dict[str, dict[str, str | None]]  # symbol -> its row
    quantities: dict[str, Decimal] = field(default_factory=dict[str, Decimal])  # symbol -> quantity, exact
    in_transit: tuple[str, ...] = ()  # symbols between the two bookings of a split
    unpriced: tuple[str, ...] = ()  # held without any price: not in `rows`, and zero in `figures`
    booked_at: str | None = None  # time of the last booking, as on the wire
    day_base: Decimal = Decimal(0)  # last equity + external cash flow, exact

    @property
    def market_values(self) -> dict[str, str]:
        """Symbol -> market value, of the positions with a price."""
        return {symbol: str(row["market_value"]) for symbol, row in self.rows.items()}


@dataclass(frozen=True)
class FormerTruth:
    """What an account's record was until `ended_s` of the machine's monotonic clock, in seconds.

    `figures` are cash, last equity and external cash flow as in `Truth`. `is_in_transit`: between the two
    bookings of a split.
    """

    account_id: str
    ended_s: float
    figures: dict[str, str]
    quantities: dict[str, Decimal]
    is_in_transit: bool = False


class Oracle:
    """A simulator's control routes (`/_sim`). Each method raises httpx.HTTPError when the request fails."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False)

    async def account_ids(self) -> list[str]:
        """The ids of all accounts of the simulated broker."""
        return (await self._get("/_sim/accounts"))["accounts"]

    async def truth(self) -> dict[str, Truth]:
        """Account id -> its figures, all as of one instant."""
        answer = await self._get("/_sim/truth")
        return {account_id: _truth(exact) for account_id, exact in answer["accounts"].items()}

    async def former(self, after_s: float) -> tuple[list[FormerTruth], bool]:
        """The records that have ended since, oldest first, and whether the simulator remembers all of them.

        `after_s`: seconds of this machine's monotonic clock.
        """
        answer = await self._get(f"/_sim/former?after_s={after_s!r}")
        return [_former(one) for one in answer["records"]], answer["whole"]

    async def marks(self, last: int) -> dict[str, list[list[str]]]:
        """Symbol -> its last marks as [time in ns since the epoch, price]; the present one comes last."""
        return (await self._get(f"/_sim/marks?last={last}"))["marks"]

    async def state(self) -> dict[str, Any]:
        """The simulator's counters: trades, activities, requests and others."""
        return await self._get("/_sim/state")

    async def pause(self) -> None:
        """Stop the market and the accounts; returns once everything published so far has been sent."""
        (await self._client.post("/_sim/pause")).raise_for_status()

    async def resume(self) -> None:
        """Start the market and the accounts again."""
        (await self._client.post("/_sim/resume")).raise_for_status()

    async def install(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Start a fault plan now, and return the whole plan."""
        answer = await self._client.post("/_sim/faults", json=plan)
        answer.raise_for_status()
        return answer.json()

    async def faults_remaining_s(self) -> float:
        """Seconds until the last fault ends; 0 without faults."""
        return (await self._get("/_sim/faults"))["remaining_s"]

    async def pull(self, lever: str, **body: Any) -> dict[str, Any]:
        """Send `POST /_sim/{lever}` with a JSON body, and return the answer."""
        answer = await self._client.post(f"/_sim/{lever}", json=body)
        answer.raise_for_status()
        return answer.json()

    async def clock(self) -> dict[str, Any]:
        """The simulator's time, session and `balance_asof`."""
        return await self._get("/_sim/clock")

    async def close(self) -> None:
        """Close the HTTP client."""
        await self._client.aclose()

    async def _get(self, path: str) -> dict[str, Any]:
        answer = await self._client.get(path)
        answer.raise_for_status()
        return answer.json()


def _truth(exact: dict[str, Any]) -> Truth:
    names = ("equity", "cash", "last_equity", "external_cash_flow", "day_pnl")
    return Truth(
        figures={name: to_the_cent(exact[name]) for name in names},
        rows={held["symbol"]: _row(held) for held in exact["positions"]},
        quantities={held["symbol"]: Decimal(held["quantity"]) for held in exact["positions"]},
        in_transit=tuple(exact["in_transit"]),
        unpriced=tuple(exact["unpriced"]),
        booked_at=_wire_time(exact["booked_at"]) if exact["booked_at"] else None,
        day_base=WIDE.add(Decimal(exact["last_equity"]), Decimal(exact["external_cash_flow"])),
    )


def _former(ended: dict[str, Any]) -> FormerTruth:
    names = ("cash", "last_equity", "external_cash_flow")
    return FormerTruth(
        account_id=ended["account_id"],
        ended_s=ended["ended_s"],
        figures={name: to_the_cent(ended[name]) for name in names},
        quantities={symbol: Decimal(quantity) for symbol, quantity in ended["quantities"].items()},
        is_in_transit=ended["in_transit"],
    )


def _row(held: dict[str, Any]) -> dict[str, str | None]:
    is_simple = held["day_pnl"] is not None
    gained = WIDE.subtract(Decimal(held["market_value"]), Decimal(held["cost_basis"]))
    return {
        **{name: held[name] for name in ("quantity", "mark")},
        "previous_close": held["previous_close"] if is_simple else None,
        "mark_as_of": _wire_time(held["mark_at"]),
        "market_value": to_the_cent(held["market_value"]),
        "day_pnl": to_the_cent(held["day_pnl"]) if is_simple else None,
        "unrealized_pnl": to_the_cent(str(gained)),
    }


def _wire_time(text: str) -> str:
    """A time with nine decimals, cut to six."""
    return f"{text[:26]}Z"


def to_the_cent(number: str) -> str:
    """Dollars rounded half to even to the cent, as text of the wire; zero has no sign."""
    rounded = Decimal(number).quantize(CENT, ROUND_HALF_EVEN, WIDE)
    return f"{rounded:f}" if rounded else "0.00"
