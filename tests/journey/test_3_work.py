"""Third: a number that can be checked with a pocket calculator."""

import httpx
import pytest

from tests.journey.conftest import Journey
from tests.support.explanations import by_hand, follow

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALL = "QUEBEC270115C00020000"


async def test_the_value_can_be_followed_leg_by_leg(journey: Journey) -> None:
    """Long, short, option, crypto, fractional and closed: the steps end at the published cents."""
    await journey.symbol("PAPA", "150.25", previous_close="148")
    await journey.symbol("QUEBEC", "20.07", previous_close="21")
    await journey.symbol(CALL, "1.45", previous_close="1.5", asset_class="us_option")
    await journey.symbol("QQQ/USD", "90210.1234", previous_close="91000", asset_class="crypto")
    held = {"PAPA": "10.333333333", "QUEBEC": "-7", CALL: "3", "QQQ/USD": "0.123456789"}
    paula = await journey.account(cash="1000", positions=held)
    browser = await journey.watch(paula)
    await browser.priced()

    await journey.trade(paula, "PAPA", "-4.5")
    await journey.trade(paula, "QUEBEC", "7")
    await journey.cash(paula, "CSD", "500")
    await journey.print("PAPA", "151.13")
    truth = await journey.truth(paula)
    value = f"{truth['equity']:.2f}"
    sent = await browser.until(lambda sent: (sent["equity"], sent["external_cash_flow"]) == (value, "500.00"))
    headers = {"Authorization": f"Bearer {journey.system.token_for(paula)}"}
    async with httpx.AsyncClient(base_url=journey.system.url, headers=headers) as client:
        answer = await client.get(f"/v1/portfolio/{paula}/explain")
    shown = answer.json()

    assert answer.status_code == 200
    results = follow(shown["steps"])
    assert (shown["equity"], shown["day_pnl"]) == (sent["equity"], sent["day_pnl"])
    assert (
        f"{results['rounded equity']} {results['rounded day P&L']}" == f"{sent['equity']} {sent['day_pnl']}"
    )
    assert results["equity"] == truth["equity"]
    assert results["day P&L"] == truth["day_pnl"]
    assert by_hand(shown) == (results["rounded equity"], results["rounded day P&L"])
    closed = next(leg for leg in shown["positions"] if leg["symbol"] == "QUEBEC")
    assert (closed["quantity"], closed["day_quantity"]) == ("0", "7")


async def test_another_clients_work_is_not_shown(journey: Journey) -> None:
    """Another's account and one that does not exist get the same answer, and none without credentials."""
    await journey.symbol("ROMEO", "1")
    rosa = await journey.account(cash="1", positions={})
    await journey.watch(rosa)
    nobody = journey.stranger_beside(rosa)
    mallory = {"Authorization": f"Bearer {journey.system.token_for(nobody)}"}

    async with httpx.AsyncClient(base_url=journey.system.url) as client:
        theirs = await client.get(f"/v1/portfolio/{rosa}/explain", headers=mallory)
        nobodys = await client.get("/v1/portfolio/no-such-account/explain", headers=mallory)
        own = await client.get(f"/v1/portfolio/{nobody}/explain", headers=mallory)
        nameless = await client.get(f"/v1/portfolio/{rosa}/explain")

    assert [theirs.status_code, nobodys.status_code, own.status_code] == [404] * 3
    assert theirs.content == nobodys.content == own.content
    assert nameless.status_code == 401


async def test_the_reference_shows_an_example(journey: Journey) -> None:
    """The OpenAPI document lists the route, its type and a worked example."""
    async with httpx.AsyncClient(base_url=journey.system.url) as client:
        document = (await client.get("/openapi.json")).json()

    answer = document["paths"]["/v1/portfolio/{account_id}/explain"]["get"]["responses"]["200"]
    content = answer["content"]["application/json"]
    assert (
        content["schema"]["$ref"].removeprefix("#/components/schemas/") in document["components"]["schemas"]
    )
    example = content["examples"]["usual"]["value"]
    assert str(follow(example["steps"])["rounded equity"]) == example["equity"]
