"""`/v1/portfolio/{account_id}/explain` where there is nothing to explain."""

import asyncio

import pytest

from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime.state import State
from portfolio_realtime.websocket_server.http_api import portfolios
from tests.support.websocket_servers import bearer, serving, write_accounts

PATH = "/v1/portfolio/a/explain"


async def test_an_account_without_positions_is_its_cash(state: State, valkey_url: str) -> None:
    """No position, no mark: still an explanation."""
    await write_accounts(state, "a")
    async with serving(valkey_url) as server:
        answer = await server.http.get(PATH, headers=bearer())

    assert (answer.status_code, answer.json()["equity"]) == (200, "0.00")
    assert answer.json()["steps"][0] == "equity: 0.00 = 0.00"


async def test_before_any_record_is_there_nobody_is_told_that_an_account_does_not_exist(
    valkey_url: str,
) -> None:
    """503, come back: the records are still to be written."""
    async with serving(valkey_url) as server:
        answer = await server.http.get(PATH, headers=bearer())

    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


async def test_without_valkey_nothing_is_explained(mortal_valkey: Valkeys) -> None:
    """503, come back."""
    async with serving(mortal_valkey.url) as server:
        await mortal_valkey.kill()
        answer = await server.http.get(PATH, headers=bearer())

    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


async def test_only_so_many_wait_for_an_answer(
    state: State, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Valkey is slow the questions pile up to a limit; the next is told at once to come again."""
    monkeypatch.setattr(portfolios, "ASKED_MAX", 2)
    await write_accounts(state, "a")
    async with serving(valkey_url) as server:
        await server.http.get(PATH, headers=bearer())
        await state.connection.commands.execute_command("CLIENT", "PAUSE", "2000", "ALL")
        waiting = [asyncio.create_task(server.http.get(PATH, headers=bearer())) for _ in range(6)]
        first, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        refused = first.pop().result()
        answers = await asyncio.gather(*waiting)
        after = await server.http.get(PATH, headers=bearer())

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert refused.json()["code"] == "too_busy"
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503, 503]
    assert after.status_code == 200
