"""Second: what a browser gets, and in which order."""

import asyncio
import time
from typing import Final

import httpx
import pytest

from tests.journey.conftest import OVERRIDES, Journey

ON_THEIR_WAY: Final = 5  # publications that were made before, at most

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_first_message_is_complete(journey: Journey) -> None:
    """A snapshot first: nothing has to be asked for elsewhere."""
    await journey.symbol("GOLF", "12.50")
    await journey.symbol("TANGO", "100")
    gina = await journey.account(cash="1.25", positions={"GOLF": "2", "TANGO": "1"})

    browser = await journey.watch(gina)
    snapshot = await browser.next()

    assert {row["symbol"] for row in snapshot["positions"]} == {"GOLF", "TANGO"}
    assert snapshot["account_id"] == gina


async def test_later_messages_carry_only_the_positions_that_changed(journey: Journey) -> None:
    """Snapshot plus changes is the whole."""
    await journey.symbol("HOTEL", "5")
    await journey.symbol("INDIA", "7")
    hugo = await journey.account(cash="0", positions={"HOTEL": "1", "INDIA": "1"})
    browser = await journey.watch(hugo)
    await browser.until(lambda valuation: valuation["equity"] == "12.00")

    await journey.print("INDIA", "7.50")

    change = await browser.until(lambda valuation: valuation["equity"] == "12.50")
    assert [row["symbol"] for row in change["positions"]] == ["INDIA"]


async def test_epoch_and_sequence_only_ever_grow(journey: Journey) -> None:
    """A client can tell a newer value from an older one, whatever happened in between."""
    await journey.symbol("JULIET", "1")
    jane = await journey.account(cash="0", positions={"JULIET": "100"})
    browser = await journey.watch(jane)
    orders: list[tuple[int, int]] = []

    for price in ("1.01", "1.02", "1.03"):
        await journey.print("JULIET", price)
        wanted = f"{float(price) * 100:.2f}"
        valuation = await browser.until(lambda valuation, wanted=wanted: valuation["equity"] == wanted)
        orders.append((valuation["epoch"], valuation["sequence"]))

    assert orders == sorted(set(orders))


async def test_a_burst_is_conflated_and_its_last_trade_is_never_lost(journey: Journey) -> None:
    """A browser gets the newest value it can take, not every value there ever was."""
    await journey.symbol("KILO", "100")
    kate = await journey.account(cash="0", positions={"KILO": "1"})
    browser = await journey.watch(kate)
    await browser.priced()

    began_s = time.monotonic()
    await asyncio.gather(*(journey.print("KILO", f"{100 + step / 100:.2f}") for step in range(1, 200)))
    await journey.print("KILO", "123.45")

    count = 1
    while (await browser.next())["equity"] != "123.45":
        count += 1
    took_s = time.monotonic() - began_s  # 200 trades are no burst on a machine that needs long to make them
    assert count <= took_s / float(OVERRIDES["MIN_UPDATE_INTERVAL"]) + ON_THEIR_WAY


async def test_nobody_sees_another_account(journey: Journey) -> None:
    """A token opens the accounts it names; an account of somebody else looks like none at all."""
    lena = await journey.account(cash="1", positions={})
    mallory = journey.system.token_for("somebody-else")

    async with httpx.AsyncClient(base_url=journey.system.url) as client:
        answers = [
            await client.get(f"/v1/portfolio/{account_id}", headers={"Authorization": f"Bearer {mallory}"})
            for account_id in (lena, "no-such-account")
        ]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content == answers[1].content


async def test_the_same_number_without_a_websocket(journey: Journey) -> None:
    """GET /v1/portfolio/{id} answers with the same object."""
    await journey.symbol("LIMA", "9.99")
    liam = await journey.account(cash="0.01", positions={"LIMA": "1"})
    browser = await journey.watch(liam)
    pushed = await browser.priced()

    headers = {"Authorization": f"Bearer {journey.system.token_for(liam)}"}
    async with httpx.AsyncClient(base_url=journey.system.url, headers=headers) as client:
        pulled = (await client.get(f"/v1/portfolio/{liam}")).json()

    assert pulled["equity"] == pushed["equity"] == "10.00"
