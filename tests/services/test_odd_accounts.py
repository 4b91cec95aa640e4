"""An odd account, a history that never ends, a silent broker: nobody else is harmed, and all is marked."""

import asyncio
import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from portfolio_realtime import config
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.service import Context
from portfolio_realtime.state import State, feeds
from portfolio_realtime.symbol_collector import collector, day_history
from portfolio_realtime.symbol_collector.sources import broker_events
from portfolio_realtime.symbol_collector.sources.broker_client import ROWS_PATH
from tests.conftest import DEADLINE_S, Until, running_service
from tests.support.broker_payloads import ACCOUNT
from tests.symbol_collector.scripted import STREAM_HEAD, response, scripted

ODD, GOOD, ALSO = (f"0000000{number}-0000-4000-8000-000000000001" for number in (1, 2, 3))
ODD_ANSWERS: dict[str, tuple[dict[str, Any], Any, bool | None]] = {
    # in the list, its state (a number: an HTTP status), is its pending final (None: it has a record)
    "opening": ({"status": "ONBOARDING"}, {"id": ODD, "status": "ONBOARDING", "currency": "USD"}, False),
    "in euros": ({"currency": "EUR"}, {**ACCOUNT, "currency": "EUR"}, True),
    "500": ({}, 500, False),
    "without a time": ({"created_at": None}, ACCOUNT, None),
}


class LittleBroker:
    """A few answers by path; `is_away` closes everything, `never_ends` keeps the history open."""

    def __init__(self, listed: list[Any], states: dict[str, Any], *, never_ends: bool = False) -> None:
        self._listed = listed
        self._states = states
        self._never_ends = never_ends
        self.is_away = False
        self.rows: Any = []  # of the clients' own bookings

    async def __call__(self, target: str, writer: asyncio.StreamWriter) -> None:
        """One request."""
        path, _, query = target.partition("?")
        if self.is_away:
            writer.transport.abort()
        elif path.startswith("/v2beta1/events"):
            writer.write(STREAM_HEAD)
            while not self.is_away and (self._never_ends or "until=" not in query):
                writer.write(b":heartbeat\n\n")
                await writer.drain()
                await asyncio.sleep(0.1)
        else:
            answer = self._answer(path)
            status = answer if isinstance(answer, int) else 200
            writer.write(response(status, json.dumps({} if isinstance(answer, int) else answer)))

    def _answer(self, path: str) -> Any:
        if path == "/v1/accounts":
            return self._listed
        if path == "/v1/clock":
            return {}
        if path == ROWS_PATH:
            return self.rows
        account_id = path.split("/")[4]
        return [] if path.endswith("/positions") else self._states.get(account_id, 404)


def listed(account_id: str, **changes: Any) -> dict[str, Any]:
    """A line of the broker's list."""
    return {"id": account_id, "status": "ACTIVE", "created_at": "2024-01-02T15:00:00Z", **changes}


def context_of(url: str, state: State) -> Context:
    """A collector of that broker, which looks at everybody once in two seconds."""
    names = ("broker", "auth", "trading", "data")
    urls = {f"alpaca_{name}_url": url for name in names}
    loaded = config.load(
        **urls, broker_api_key="key", broker_secret_key="secret", symbol_collection_interval=2
    )
    return Context(loaded, state, SystemClock(), CollectorRegistry(), "test")


@pytest.mark.parametrize("kind", ODD_ANSWERS)
async def test_the_account_that_sorts_first_keeps_nobody_from_being_served(
    kind: str, state: State, until: Until
) -> None:
    """It has no record, and the reason is kept: not yet, or never here."""
    changes, its_state, is_final = ODD_ANSWERS[kind]
    broker = LittleBroker(
        [None, listed(ODD, **changes), {"id": 7}, listed(GOOD), listed(ALSO)],
        {ODD: its_state, GOOD: ACCOUNT, ALSO: ACCOUNT},
    )
    async with scripted(broker) as url, running_service(collector.run(context_of(url, state))):
        await until(lambda: state.accounts.read_one(GOOD), "the next account is known", 20)
        await until(lambda: state.accounts.read_one(ALSO), "and the last one", 20)
        if is_final is None:
            await until(lambda: state.accounts.read_one(ODD), "it can be valued", 20)
            return

        async def is_told() -> bool:
            pending = (await state.accounts.read_pending([ODD])).get(ODD)
            return pending is not None and "not been asked" not in pending.reason

        await until(is_told, "why it has no record", 20)
        pending = (await state.accounts.read_pending([ODD, GOOD]))[ODD]
        assert pending.is_final == is_final
        assert list(await state.accounts.unknown([ODD])) == ([ODD] if is_final else [])


async def test_a_deposit_that_only_the_list_of_rows_tells_is_no_gain(
    state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until both have been compared no day P&L is known; equity is served all the same."""
    monkeypatch.setattr(day_history, "HISTORY_AGAIN_NS", 10**9)
    broker = LittleBroker([listed(GOOD)], {GOOD: ACCOUNT})
    broker.rows = 503
    async with scripted(broker) as url, running_service(collector.run(context_of(url, state))):

        async def is_unknown() -> bool:
            account = await state.accounts.read_one(GOOD)
            return account is not None and account.unvalued == ("cash",)

        await until(is_unknown, "the account is known, its day is not", DEADLINE_S)
        broker.rows = [
            {
                "id": "20210402000000000::another-id",
                "account_id": GOOD,
                "activity_type": "CSD",
                "net_amount": "5000",
                "status": "executed",
                "date": "2021-04-02",
                "created_at": "2021-04-02T14:00:00Z",
            }
        ]

        async def is_counted() -> bool:
            account = await state.accounts.read_one(GOOD)
            return account is not None and (str(account.external_cash_flow), account.unvalued) == ("5000", ())

        await until(is_counted, "the deposit is the client's own money", DEADLINE_S)


async def test_a_history_that_never_ends_holds_nobody_back(
    state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept alive by heartbeats alone: accounts are served, and no day P&L is known."""
    monkeypatch.setattr(broker_events, "HISTORY_IDLE_S", 0.5)
    broker = LittleBroker([listed(GOOD)], {GOOD: ACCOUNT}, never_ends=True)
    async with scripted(broker) as url, running_service(collector.run(context_of(url, state))):
        await until(lambda: state.accounts.read_one(GOOD), "the account is known", 20)
        account = await state.accounts.read_one(GOOD)
    assert account is not None
    assert account.unvalued == ("cash",)


async def test_without_an_event_stream_accounts_are_served_after_a_while(
    state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody says that the broker is heard."""
    monkeypatch.setattr(collector, "EVENTS_S_MAX", 0.5)

    class Eventless(LittleBroker):
        async def __call__(self, target: str, writer: asyncio.StreamWriter) -> None:
            if target.startswith("/v2beta1/events"):
                writer.write(response(503, "{}"))
            else:
                await super().__call__(target, writer)

    broker = Eventless([listed(GOOD)], {GOOD: ACCOUNT})
    async with scripted(broker) as url, running_service(collector.run(context_of(url, state))):
        await until(lambda: state.accounts.read_one(GOOD), "the account is known", 30)

        async def is_silent() -> bool:
            return not await state.feeds.live([feeds.ACCOUNTS])

        await until(is_silent, "the stream counts as lost", 10)


async def test_a_broker_that_falls_silent_is_not_kept_live(state: State, until: Until) -> None:
    """Cut off, it is no longer heard; back again, it is."""
    broker = LittleBroker([listed(GOOD)], {GOOD: ACCOUNT})

    async def is_heard() -> bool:
        return bool(await state.feeds.live([feeds.ACCOUNTS]))

    async def is_silent() -> bool:
        return not await is_heard()

    async with scripted(broker) as url, running_service(collector.run(context_of(url, state))):
        await until(lambda: state.accounts.read_one(GOOD), "the account is known", 20)
        await until(is_heard, "the broker is heard", 10)
        broker.is_away = True
        await until(is_silent, "the broker is not heard", 15)
        broker.is_away = False
        await until(is_heard, "it is heard again", 30)
