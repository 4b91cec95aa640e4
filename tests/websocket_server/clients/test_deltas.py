"""A client that asks for deltas always has what whole messages say; what was lost is noticed."""

import json
import random
from typing import Any

import pytest
from docs.examples.deltas import LostBase, Portfolio

from portfolio_realtime.model import Publication
from portfolio_realtime.websocket_server.access.identity import Identity
from portfolio_realtime.websocket_server.clients.connection import ClientConnection
from portfolio_realtime.websocket_server.fanout.hub import Hub
from portfolio_realtime.websocket_server.fanout.watched_account import WatchedAccount
from portfolio_realtime.wire.messages import Delta, Detail, Disconnect, Subscribe, encode
from tests.support.publications import batch_of, gathered, payload, publication, row, value
from tests.support.websocket_servers import Calculator, Served, receive, refused_handshake

ACCOUNTS = ("a", "b")
SYMBOLS = [f"S{number}" for number in range(12)]
MOVES = 120
DETAILS: tuple[Detail, ...] = ("positions", "value")
RARE: dict[str, Any] = {
    "known_equity": "1.00",
    "awaited": ["S1"],
    "stale_ages_s": {"S1": 61},
    "unvalued": ["S2"],
    "unconfirmed": {"since": "2026-11-20T15:04:05.000000Z", "reason": "x", "by": {"cash": "1"}},
}


class Market:
    """Makes up what two accounts are worth, with everything that comes and goes."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.at: dict[str, tuple[int, int]] = dict.fromkeys(ACCOUNTS, (1, 0))
        self.rows: dict[str, dict[str, dict[str, Any]]] = {account_id: {} for account_id in ACCOUNTS}
        self.whole: dict[tuple[str, int, int], tuple[dict[str, Any], dict[str, Any]]] = {}

    def money(self) -> str:
        return f"{self.rng.choice([7, 70, 123456])}.{self.rng.randrange(100):02}"

    def move(self, account_id: str) -> tuple[int, Publication]:
        """The next publication of an account, remembered as `whole`, and its epoch."""
        rng, rows = self.rng, self.rows[account_id]
        epoch, sequence = self.at[account_id]
        is_new_epoch = rng.random() < 0.05
        epoch, sequence = (epoch + 1, 1) if is_new_epoch else (epoch, sequence + 1)
        self.at[account_id] = epoch, sequence
        for symbol in rng.sample(SYMBOLS, rng.randrange(4)):
            if rng.random() < 0.25:
                rows.pop(symbol, None)
            else:
                fields = {"mark": rng.choice([None, self.money(), "é1"]), "market_value": self.money()}
                rows[symbol] = {**row(symbol, str(rng.choice([0, 1, -2]))), **fields}
        message = {
            **value(account_id, epoch, sequence, rng.choice([None, self.money()])),
            "day_pnl_ratio": rng.choice([None, 0.0, -0.5, 1e-7]),
            "stale": rng.choice([[], ["S1"], ["S1", "S2"]]),
            "total_value": rng.choice(["—", "—€1", f"${self.money()}"]),
            **{name: field for name, field in RARE.items() if rng.random() < 0.02},
        }
        self.whole[account_id, epoch, sequence] = message, dict(rows)
        encoded = [(symbol, json.dumps(held).encode()) for symbol, held in rows.items()]
        return epoch, Publication(account_id, sequence, json.dumps(message).encode(), encoded)


class Client:
    """Takes what its connection is owed when it likes, and may lose a message on the way."""

    is_patient = True

    def __init__(self, hub: Hub, market: Market, detail: Detail) -> None:
        self.hub, self.market = hub, market
        self.detail: Detail = detail
        self.connection = ClientConnection(0.0)
        self.connection.authenticated(Identity("alice", frozenset(ACCOUNTS)), 0.0, None)
        self.shown = {account_id: Portfolio() for account_id in ACCOUNTS}
        self.kinds: list[str] = []
        for account_id in ACCOUNTS:
            self.subscribe(account_id)

    def subscribe(self, account_id: str) -> None:
        request = Subscribe(account_id, self.detail, delta=ACCOUNTS.index(account_id))
        self.shown[account_id].clear()
        account, _ = self.hub.subscribe(self, account_id, with_positions=self.detail == "positions")
        self.connection.subscribe(account, request)

    def notify(self, account: WatchedAccount) -> None:
        self.connection.mark_pending(account)

    def refuse(self, account_id: str, why: Disconnect) -> None: ...

    def position_sent(self, account_id: str) -> None: ...

    def read(self, loss: float = 0.0) -> int:
        """Take all that is owed, lose some of it, compare; how often a loss was noticed."""
        noticed = 0
        while (frame := self.connection.next_frame(0.0)) is not None:
            message = payload(frame)
            self.kinds.append(message["type"])
            account_id = ACCOUNTS[message["delta"]] if "delta" in message else message["account_id"]
            is_first = not self.shown[account_id].value
            if self.market.rng.random() < loss and not is_first and message["type"] == "delta":
                continue
            try:
                self.shown[account_id].take(message)
            except LostBase:
                noticed += 1
                self.subscribe(account_id)
                continue
            self.compare(account_id)
        return noticed

    def compare(self, account_id: str) -> None:
        """With what was published, to the order of the fields, as places count by it."""
        shown = self.shown[account_id]
        message, rows = self.market.whole[account_id, shown.value["epoch"], shown.value["sequence"]]
        assert json.dumps(shown.value) == json.dumps(message)
        held = rows if self.detail == "positions" else {}
        assert {symbol: json.dumps(one) for symbol, one in shown.rows.items()} == {
            symbol: json.dumps(one) for symbol, one in held.items()
        }


@pytest.mark.parametrize("detail", DETAILS)
@pytest.mark.parametrize("seed", range(10))
def test_deltas_say_what_whole_messages_say(seed: int, detail: Detail) -> None:
    """Conflated, resubscribed, under new epochs, with positions and fields that come and go."""
    market, hub = Market(seed), Hub(lambda _, frames: sum(map(len, frames)))
    clients = [Client(hub, market, detail) for _ in range(3)]
    for _ in range(MOVES):
        account_id = market.rng.choice(ACCOUNTS)
        epoch, published = market.move(account_id)
        hub.publish(gathered(batch_of(epoch, [published])))
        for client in clients:
            if market.rng.random() < 0.05:
                client.subscribe(market.rng.choice(ACCOUNTS))
            if market.rng.random() < 0.6:
                assert client.read() == 0, "nothing was lost"
    for client in clients:
        client.read()
        for account_id in ACCOUNTS:
            client.compare(account_id)
            assert market.at[account_id] == tuple(
                client.shown[account_id].value[it] for it in ("epoch", "sequence")
            )
        assert client.kinds.count("delta") > MOVES / 6


@pytest.mark.parametrize("seed", range(10))
def test_a_lost_base_is_noticed_and_mended(seed: int) -> None:
    """A delta of which the one before was lost changes nothing; the next message is whole."""
    market, hub = Market(seed), Hub(lambda _, frames: sum(map(len, frames)))
    client = Client(hub, market, "positions")
    noticed = 0
    for _ in range(MOVES):
        epoch, published = market.move("a")
        hub.publish(gathered(batch_of(epoch, [published])))
        noticed += client.read(loss=0.2)
    assert noticed > 3


def test_who_does_not_ask_is_served_as_before() -> None:
    """Byte by byte, beside one that asks."""
    market, hub = Market(1), Hub(lambda _, frames: sum(map(len, frames)))
    asking = Client(hub, market, "positions")
    old = Client(hub, market, "positions")
    account, _ = hub.subscribe(old, "a", with_positions=True)
    old.connection.subscribe(account, Subscribe("a", "positions"))
    for _ in range(20):
        epoch, published = market.move("a")
        since = old.connection.subscriptions["a"].sent
        hub.publish(gathered(batch_of(epoch, [published])))
        asking.read()
        frame = old.connection.next_frame(0.0)
        assert frame == account.frame(since, with_positions=True)


def test_a_text_that_is_not_ascii_is_sent_whole_from_there() -> None:
    """Languages count other characters in different ways."""
    hub = Hub(lambda _, frames: sum(map(len, frames)))
    client = Client(hub, Market(1), "value")
    for sequence, text in ((1, "ab—cd"), (2, "ab—ce"), (3, "𝄞𝄞1"), (4, "𝄞𝄞2")):
        hub.publish(gathered(batch_of(1, [publication("a", 1, sequence, total_value=text)])))
        frame = client.connection.next_frame(0.0)
        assert frame is not None
        client.shown["a"].take(payload(frame))
        assert client.shown["a"].value["total_value"] == text
        if sequence in (2, 4):
            place = list(client.shown["a"].value).index("total_value")
            assert payload(frame)["value"] == [
                place,
                2 if sequence == 2 else 0,
                text[2 if sequence == 2 else 0 :],
            ]


def test_the_type_says_what_is_sent() -> None:
    """Both ways."""
    market, hub = Market(3), Hub(lambda _, frames: sum(map(len, frames)))
    client = Client(hub, market, "positions")
    for _ in range(20):
        epoch, published = market.move("a")
        hub.publish(gathered(batch_of(epoch, [published])))
        while (frame := client.connection.next_frame(0.0)) is not None:
            message = payload(frame)
            if message["type"] == "delta":
                delta = Delta(
                    message["delta"], message["at"], message["base"], message["value"], message["positions"]
                )
                assert json.loads(encode(delta)) == message


async def test_both_ways_in_take_it(server: Served, calculator: Calculator) -> None:
    """In the address and in a message; a number that stands for another account is refused."""
    await calculator.publish("a", 1, {"AAPL": "10"})
    async with (
        server.open("/ws/portfolio/a?detail=positions&delta=7") as by_path,
        server.open("/ws") as by_message,
    ):
        request = {"type": "subscribe", "account_id": "a", "detail": "positions", "delta": 0}
        await by_message.send(json.dumps(request))
        for client in (by_path, by_message):
            assert (await receive(client))["positions"][0]["symbol"] == "AAPL"
        await by_message.send(json.dumps({**request, "account_id": "ab"}))
        refusal = await receive(by_message)
        assert refusal["code"] == "bad_message"
        assert "another account" in refusal["message"]
        epoch = await calculator.publish("a", 2, {"AAPL": "11"}, equity="100.01")
        for client, number in ((by_path, 7), (by_message, 0)):
            delta = await receive(client)
            assert [delta["type"], delta["delta"], delta["at"]] == ["delta", number, [epoch, 2]]
    assert await refused_handshake(server.open("/ws/portfolio/a?delta=x")) == 400
    assert await refused_handshake(server.open("/ws/portfolio/a?delta=-1")) == 400
