"""Leaving service, with made-up time: all clients are asked to reconnect, once each, spread, in time."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import pytest
from annotated_types import Le
from prometheus_client import CollectorRegistry

from portfolio_realtime import config
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.state import open_state
from portfolio_realtime.websocket_server.access.client_address import ClientAddress
from portfolio_realtime.websocket_server.access.identity import Identity
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.fanout.watched_account import WatchedAccount
from portfolio_realtime.websocket_server.server import END_S_MAX
from portfolio_realtime.wire.messages import Disconnect

NOWHERE = "redis://127.0.0.1:1/0"  # a state that is never asked
LEFT_S_MAX = 120  # from SIGTERM to the end of the process, whatever the settings


class Asked(NamedTuple):
    """A client was asked to go."""

    at_s: float
    client: "Client"
    disconnect: Disconnect


class Drain:
    """A gateway that leaves service in made-up time."""

    def __init__(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gateway = gateway
        self.now_s = 0.0
        self.asked: list[Asked] = []
        self.is_closed_at: list[tuple[float, bool]] = []
        monkeypatch.setattr(asyncio, "sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.is_closed_at.append((self.now_s, self.gateway.is_closed))
        self.now_s += seconds

    def add_clients(self, count: int) -> None:
        """So many clients are connected."""
        self.gateway.clients.update(dict.fromkeys((Client(self) for _ in range(count)), None))

    @property
    def per_second(self) -> list[int]:
        """How many were asked in each second, from the first in which somebody was."""
        # a hair later, so that 2.9999999999 is the second 3
        seconds = Counter(int(asked.at_s + 1e-6) for asked in self.asked)
        return [seconds[second] for second in range(min(seconds), max(seconds) + 1)]

    def check_everybody_was_asked_once(self) -> None:
        assert Counter(asked.client for asked in self.asked) == Counter(list(self.gateway.clients))
        assert {asked.disconnect for asked in self.asked} <= {Disconnect.SHUTDOWN}


class Client:
    """One connection, as the gateway knows it."""

    identity: Identity | None = None
    address = ClientAddress("127.0.0.1", None)
    account_ids: tuple[str, ...] = ()
    is_patient = True

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    def notify(self, account: WatchedAccount) -> None: ...

    def refuse(self, account_id: str, why: Disconnect) -> None: ...

    def position_sent(self, account_id: str) -> None: ...

    def regard(self, identity: Identity) -> None: ...

    due_s = 0.0

    def enforce_deadlines(self) -> None: ...

    def close(self, disconnect: Disconnect) -> None:
        self._drain.asked.append(Asked(self._drain.now_s, self, disconnect))


@pytest.fixture
async def drain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Drain]:
    """With the settings that the test is given."""
    settings: dict[str, Any] = {"_env_file": None, **request.param}
    state = open_state(NOWHERE, holder="test", shards=1, lease_ms=1000)
    gateway = Gateway(config.Settings(**settings), state, SystemClock(), CollectorRegistry())
    yield Drain(gateway, monkeypatch)
    await gateway.close()
    await state.close()


@pytest.mark.parametrize(
    ("drain", "lasts_s"),
    [
        ({"drain_grace_seconds": 2, "drain_seconds": 30}, 10),  # at least 100 a second
        ({"drain_grace_seconds": 2, "drain_seconds": 10}, 10),
        ({"drain_grace_seconds": 2, "drain_seconds": 4}, 4),
        ({"drain_grace_seconds": 60, "drain_seconds": 5}, 5),
    ],
    indirect=["drain"],
)
async def test_a_thousand_clients_are_asked_evenly_over_the_time_there_is(drain: Drain, lasts_s: int) -> None:
    """A thousand that came back in the same moment would be a storm for the next server."""
    grace_s = drain.gateway.settings.drain_grace_seconds
    drain.add_clients(1000)

    await drain.gateway.drain()

    drain.check_everybody_was_asked_once()
    assert drain.asked[0].at_s >= grace_s
    assert drain.now_s == pytest.approx(grace_s + lasts_s)
    assert drain.per_second == [1000 // lasts_s] * lasts_s
    at_once = Counter(asked.at_s for asked in drain.asked)
    assert max(at_once.values()) == 1000 // lasts_s // 10, "a tenth of a second's at a time"


@pytest.mark.parametrize(
    ("drain", "count"),
    [({"drain_grace_seconds": 0, "drain_seconds": 30}, count) for count in (0, 1, 7, 99, 101)]
    + [({"drain_grace_seconds": 0, "drain_seconds": 0}, 1000)],
    indirect=["drain"],
)
async def test_a_few_clients_do_not_take_long(drain: Drain, count: int) -> None:
    """A deploy waits for nobody who is not there; DRAIN_SECONDS=0 asks all at once."""
    drain.add_clients(count)

    await drain.gateway.drain()

    drain.check_everybody_was_asked_once()
    assert drain.now_s == pytest.approx(min(count / 100, drain.gateway.settings.drain_seconds))


@pytest.mark.parametrize("drain", [{"drain_grace_seconds": 2, "drain_seconds": 30}], indirect=True)
async def test_clients_are_let_in_until_the_grace_time_is_over(drain: Drain) -> None:
    """And not any more once the first is asked to go: it must come back to another server."""
    drain.add_clients(1000)

    await drain.gateway.drain()

    assert drain.gateway.is_draining
    before = [is_closed for at_s, is_closed in drain.is_closed_at if at_s < 2]
    after = [is_closed for at_s, is_closed in drain.is_closed_at if at_s >= 2]
    assert (before, set(after)) == ([False], {True})


def longest_s(setting: str) -> float:
    """The most that a setting may be."""
    [most] = [bound.le for bound in Settings.model_fields[setting].metadata if isinstance(bound, Le)]
    assert isinstance(most, int)
    with pytest.raises(SettingsError, match=setting.upper()):
        config.load(**{"_env_file": None, setting: most + 0.1})
    return most


def test_no_permitted_setting_makes_leaving_take_more_than_120_s() -> None:
    """Grace time, drain and end together; what is longer is refused at the start, with the setting's name."""
    longest = {setting: longest_s(setting) for setting in ("drain_grace_seconds", "drain_seconds")}

    assert config.load(**{"_env_file": None, **longest}).drain_grace_seconds == longest["drain_grace_seconds"]
    assert sum(longest.values()) + END_S_MAX <= LEFT_S_MAX
