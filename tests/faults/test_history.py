"""The day as a picture: every point is what the ledger says of that moment, or null, also after kills."""

import os
import signal
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import httpx
import msgspec
import pytest

from portfolio_realtime.proving.system import System, running
from portfolio_realtime.websocket.answers import History
from tests.conftest import Until

OPTIONS = ("--accounts", "6", "--symbols", "20", "--seed", "13", "--activities-per-second", "4")
OVERRIDES = {"HISTORY_INTERVAL": "2", "LOG_LEVEL": "warning"}
KNOWN_S_MAX = 40.0
POINTS = 3


class Picture:
    """What a client and the ledger see of the same accounts."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._client = httpx.AsyncClient(base_url=system.url, timeout=10)
        self._simulator = httpx.AsyncClient(base_url=system.simulator_url, timeout=10)

    async def points(self, account_id: str) -> list[dict[str, Any]]:
        """The account's points; none as long as there is no answer."""
        headers = {"Authorization": f"Bearer {self._system.token_for(account_id)}"}
        answer = await self._client.get(f"/v1/portfolio/{account_id}/history?range=1d", headers=headers)
        if not answer.is_success:
            return []
        msgspec.json.decode(answer.content, type=History)
        return answer.json()["points"]

    async def known(self, account_id: str, after: str = "") -> list[dict[str, Any]]:
        """The points after a time that are not null."""
        points = await self.points(account_id)
        return [point for point in points if point["timestamp"] > after and point["equity"] is not None]

    async def ledger(self, account_id: str, at: str) -> dict[str, str]:
        """The ledger's figures of that moment, in cents."""
        answer = await self._simulator.get(f"/_sim/accounts/{account_id}", params={"at": at})
        answer.raise_for_status()
        truth = answer.json()
        names = ("equity", "external_cash_flow", "day_pnl")
        return {name: str(Decimal(truth[name]).quantize(Decimal("0.01"), ROUND_HALF_EVEN)) for name in names}

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


@pytest.mark.timeout(180)
async def test_every_point_is_what_the_ledger_says_also_after_kills(until: Until) -> None:
    """Trades, deposits and moving prices; consumer and calculator are killed; no point is wrong by a cent."""
    async with running(OPTIONS, port=0, overrides=OVERRIDES) as system:
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
            pids = {
                name: system.supervisor.pids[name]
                for name in ("market_data_consumer", "portfolio_calculator")
            }
            for pid in pids.values():
                os.kill(pid, signal.SIGKILL)
            await until(
                lambda: all(system.supervisor.pids[name] != pid for name, pid in pids.items()),
                "both are back",
            )
            await picture.post("/_sim/cash", {"account_id": first, "activity_type": "CSW", "amount": "99.99"})
            await until(lambda: has_points(killed_at), "the picture goes on", KNOWN_S_MAX)
            await picture.post("/_sim/pause")

            async def shows_all() -> bool:
                points = await picture.known(first)
                truth = await picture.ledger(first, points[-1]["timestamp"])
                return points[-1]["external_cash_flow"] == truth["external_cash_flow"]

            await until(shows_all, "every booking has arrived")
            checked, moved = 0, set[tuple[str, str]]()
            for account_id in account_ids:
                for point in await picture.known(account_id):
                    at = point.pop("timestamp")
                    assert point == await picture.ledger(account_id, at), f"{account_id} at {at}"
                    checked += 1
                    moved.add((account_id, point["equity"]))
        finally:
            await picture.close()

    assert checked >= 2 * POINTS * len(account_ids)
    assert len(moved) > checked / 2, "the values have hardly moved: this has shown little"
