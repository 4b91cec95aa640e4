"""Accounts that somebody watches and the broker's list does not have: opened a moment ago, or none at all."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from portfolio_realtime.errors import BrokerUnavailable
from portfolio_realtime.model import AccountChange
from portfolio_realtime.state import State
from portfolio_realtime.state.accounts import decode_changes
from portfolio_realtime.state.connection import Message, Subscribed
from portfolio_realtime.symbol_collector.sources.broker_client import BrokerClient
from portfolio_realtime.symbol_collector.sources.parse import ListedAccount
from tests.conftest import DEADLINE_S, SHARDS, StartSimulator, Until
from tests.support.collectors import all_known, context_of, running, wait_exact


@contextlib.asynccontextmanager
async def announcements(state: State) -> AsyncGenerator[AsyncGenerator[AccountChange]]:
    """Every account that is announced from now on."""

    async def found() -> AsyncGenerator[AccountChange]:
        async for event in followed:
            if isinstance(event, Message):
                for change in decode_changes(event.payload):
                    yield change

    followed = cast("AsyncGenerator[Any]", state.accounts.changes(list(range(SHARDS))))
    async with contextlib.aclosing(followed), contextlib.aclosing(found()) as changes:
        assert isinstance(await anext(followed), Subscribed)
        yield changes


async def until_denied(changes: AsyncGenerator[AccountChange], account_id: str) -> list[str]:
    """Wait until it is announced that this account has no record; the accounts announced before."""
    before: list[str] = []
    async with asyncio.timeout(DEADLINE_S):
        async for change in changes:
            if change == AccountChange(account_id, 0):
                break
            before.append(change.account_id)
    return before


async def test_who_watches_an_account_that_was_just_opened_need_not_wait_for_the_list(
    simulator: StartSimulator, state: State, until: Until
) -> None:
    """The list would be read again in an hour; the broker is asked for this account alone."""
    broker = await simulator(accounts=3, activities_per_second=0)
    async with running(context_of(broker, state, symbol_collection_interval=3600)):
        await until(all_known(broker, state), "all accounts are known")
        opened = await broker.post("/_sim/accounts", {"cash": "7", "positions": {"AAPL": "2"}})
        await state.interest.begin([opened["account_id"]])
        await until(all_known(broker, state), "the new account is known")
        await wait_exact(broker, state, until)


@pytest.mark.parametrize("status", ["404", "401"])
async def test_who_watches_an_account_that_does_not_exist_is_told(
    simulator: StartSimulator, state: State, until: Until, status: str
) -> None:
    """Once the broker has said no twice; also who comes a moment later, and who was there before."""
    broker = await simulator(accounts=3, activities_per_second=0, set=f"unknown_account={status}")
    await state.interest.begin(["before"])
    async with (
        announcements(state) as changes,
        running(context_of(broker, state, symbol_collection_interval=3600)),
    ):
        await until_denied(changes, "before")
        await until(all_known(broker, state), "all accounts are known")
        for _ in range(2):
            await state.interest.begin(["nobody"])
            await until_denied(changes, "nobody")


async def test_one_wrong_no_of_the_broker_tells_nobody_that_an_account_does_not_exist(
    simulator: StartSimulator, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be for good; and no answer is not a no."""
    broker = await simulator(accounts=3, activities_per_second=0)
    known, answers = BrokerClient.account, [None, BrokerUnavailable("down")]

    async def account(client: BrokerClient, account_id: str) -> ListedAccount | None:
        if account_id == "nobody" or not answers:
            return await known(client, account_id)
        if (answer := answers.pop(0)) is not None:
            raise answer
        return None

    monkeypatch.setattr(BrokerClient, "account", account)
    async with (
        announcements(state) as changes,
        running(context_of(broker, state, symbol_collection_interval=3600)),
    ):
        await until(all_known(broker, state), "all accounts are known")
        opened = (await broker.post("/_sim/accounts", {"cash": "7", "positions": {}}))["account_id"]
        await state.interest.begin([opened])
        await until(lambda: not answers, "no, then no answer")
        await state.interest.begin(["nobody"])
        assert opened not in await until_denied(changes, "nobody")
        await state.interest.begin([opened])
        await until(lambda: state.accounts.read_one(opened), "the account is known after all")
