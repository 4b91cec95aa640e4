"""The day as a picture: every point is what the ledger says of that moment, or null, also after kills."""

import time
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import httpx
import msgspec
import pytest

from portfolio_harness.system import System, running
from portfolio_realtime.clock import rfc3339
from portfolio_realtime.websocket_server.http_api.responses import History
from tests.conftest import KIND, Until
from tests.support.processes import are_back, kill

OPTIONS = ("--accounts", "6", "--symbols", "20", "--seed", "13", "--activities-per-second", "4")
OVERRIDES = {"HISTORY_INTERVAL": "2", "LOG_LEVEL": "warning"}
KNOWN_S_MAX = 40.0
DECIDED_S_MAX = 100.0  # a statement from between the legs of a split is not believed for a minute
POINTS = 3


class Picture:
    """What a client and the ledger see of the same accounts."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._began = rfc3339(time.time_ns())
        self._client = httpx.AsyncClient(base_url=system.url, timeout=10)
        self._simulator = httpx.AsyncClient(base_url=system.simulator_url, timeout=10)

    async def points(self, account_id: str) -> list[dict[str, Any]]:
        """The account's points; none as long as there is no answer."""
        headers = {"Authorization": f"Bearer {self._system.token_for(account_id)}"}
        try:
            answer = await self._client.get(f"/v1/portfolio/{account_id}/history?range=1d", headers=headers)
        except httpx.TransportError:  # the server has just been killed
            return []
        if not answer.is_success:
            return []
        msgspec.json.decode(answer.content, type=History)
        return answer.json()["points"]

    async def known(self, account_id: str, after: str = "") -> list[dict[str, Any]]:
        """The points after a time that are not null."""
        points = await self.points(account_id)
        return [point for point in points if point["timestamp"] > after and point["equity"] is not None]

    async def ledger(self, account_id: str, at: str) -> dict[str, str] | None:
        """The ledger's figures of that moment, in cents; None: between the two legs of a split."""
        answer = await self._simulator.get(f"/_sim/accounts/{account_id}", params={"at": at})
        answer.raise_for_status()
        truth = answer.json()
        if truth["in_transit"]:
            return None
        names = ("equity", "external_cash_flow", "day_pnl")
        return {name: _cents(truth[name]) for name in names}

    async def is_settled(self, account_ids: list[str]) -> bool:
        """Is every live value the ledger's? Then every booking is decided, once nothing moves any more."""
        truths = (await self._simulator.get("/_sim/truth")).json()["accounts"]
        for account_id in account_ids:
            headers = {"Authorization": f"Bearer {self._system.token_for(account_id)}"}
            answer = await self._client.get(f"/v1/portfolio/{account_id}", headers=headers)
            if not answer.is_success:
                return False
            shown, truth = answer.json(), truths[account_id]
            if any(shown[name] != _cents(truth[name]) for name in ("equity", "day_pnl")):
                return False
        return True

    async def compare(self, account_ids: list[str]) -> tuple[int, int]:
        """Compare every known point with the ledger: (points since we began, different values among them).

        The day before that is known, too, of an account that had no position yet, and as still as its cash.
        """
        checked, values = 0, set[tuple[str, str]]()
        for account_id in account_ids:
            for point in await self.known(account_id):
                at = point.pop("timestamp")
                truth = await self.ledger(account_id, at)
                if truth is not None:
                    assert point == truth, f"{account_id} at {at}"
                    if at >= self._began:
                        checked += 1
                        values.add((account_id, point["equity"]))
        return checked, len(values)

    async def stock_of(self, account_id: str) -> str:
        """A stock that the account holds."""
        answer = await self._simulator.get(f"/_sim/accounts/{account_id}")
        positions = answer.json()["positions"]
        return next(p["symbol"] for p in positions if p["asset_class"] == "us_equity")

    async def invested(self, account_ids: list[str]) -> list[str]:
        """The accounts that hold securities."""
        truths = (await self._simulator.get("/_sim/truth")).json()["accounts"]
        return [account_id for account_id in account_ids if truths[account_id]["positions"]]

    async def post(self, path: str, body: dict[str, Any] | None = None) -> None:
        """Move something."""
        (await self._simulator.post(path, json=body or {})).raise_for_status()

    async def close(self) -> None:
        """End both clients."""
        await self._client.aclose()
        await self._simulator.aclose()


def _cents(exact: str) -> str:
    return str(Decimal(exact).quantize(Decimal("0.01"), ROUND_HALF_EVEN))


@pytest.mark.timeout(400)
async def test_every_point_is_what_the_ledger_says_also_after_kills(until: Until) -> None:
    """Trades, deposits and moving prices; consumer and calculator are killed; no point is wrong by a cent."""
    async with running(OPTIONS, port=0, overrides=OVERRIDES, valkey=KIND) as system:
        picture = Picture(system)
        try:
            account_ids = await picture.invested(await system.oracle.account_ids())
            first = account_ids[0]

            async def has_points(after: str) -> str:
                known = await picture.known(first, after)
                return known[-1]["timestamp"] if len(known) >= POINTS else ""

            killed_at = await until(lambda: has_points(""), "the picture begins", KNOWN_S_MAX)
            await picture.post(
                "/_sim/cash", {"account_id": first, "activity_type": "CSD", "amount": "1234.56"}
            )
            pids = kill(system, "market_data_consumer", "portfolio_calculator")
            await until(lambda: are_back(system, pids), "both are back")
            await picture.post("/_sim/cash", {"account_id": first, "activity_type": "CSW", "amount": "99.99"})
            await until(lambda: has_points(killed_at), "the picture goes on", KNOWN_S_MAX)
            await picture.post("/_sim/pause")

            await until(lambda: picture.is_settled(account_ids), "every booking is decided", DECIDED_S_MAX)
            checked, moved = await picture.compare(account_ids)
        finally:
            await picture.close()

    assert checked >= POINTS * len(
        account_ids
    )  # a slow machine skips some, and those between two legs are none
    assert moved > checked / 2, "the values have hardly moved: this has shown little"


@pytest.mark.timeout(400)
async def test_a_split_and_a_lost_valkey_leave_no_wrong_point(until: Until) -> None:
    """Collector and server are killed around a split, then Valkey, which forgets the day."""
    async with running(
        OPTIONS, port=0, overrides={**OVERRIDES, "HISTORY_INTERVAL": "1"}, valkey=KIND
    ) as system:
        picture = Picture(system)
        try:
            account_ids = await picture.invested(await system.oracle.account_ids())
            first = account_ids[0]

            async def newest(after: str, count: int = POINTS) -> str:
                known = await picture.known(first, after)
                return known[-1]["timestamp"] if len(known) >= count else ""

            began_at = await until(lambda: newest(""), "the picture begins", KNOWN_S_MAX)
            pids = kill(system, "symbol_collector", "websocket_server")
            await picture.post(
                "/_sim/split", {"symbol": await picture.stock_of(first), "new_rate": "3", "gap_s": 0.5}
            )
            await until(lambda: are_back(system, pids), "both are back")
            went_on_at = await until(lambda: newest(began_at), "the picture goes on", KNOWN_S_MAX)
            await until(lambda: newest("", 2 * POINTS), "what was known before is known again", DECIDED_S_MAX)
            await picture.post("/_sim/pause")
            await until(lambda: picture.is_settled(account_ids), "every booking is decided", DECIDED_S_MAX)
            checked_before, _ = await picture.compare(account_ids)
            await picture.post("/_sim/resume")

            pids = kill(system, "valkey")
            await picture.post("/_sim/cash", {"account_id": first, "activity_type": "CSD", "amount": "77.77"})
            await until(lambda: are_back(system, pids), "Valkey is back")
            await until(lambda: newest(went_on_at), "the picture begins again", KNOWN_S_MAX)
            await picture.post("/_sim/pause")
            await until(lambda: picture.is_settled(account_ids), "every booking is decided", DECIDED_S_MAX)
            checked, _ = await picture.compare(account_ids)
        finally:
            await picture.close()

    assert checked_before >= 2 * POINTS
    assert checked >= POINTS
