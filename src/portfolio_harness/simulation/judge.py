"""Judges what clients are sent, promise by promise, by the truth and the documented protocol alone.

It has its own arithmetic, in Decimal, and compares with `broker_truth`.
"""

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

import msgspec

from portfolio_harness.simulation.broker_truth import CENT, TrueBroker
from portfolio_harness.simulation.history import TrialHistory

MARKED_S_MAX: Final = 5.0  # P4, P11: a wrong value is marked within this time
ON_ITS_WAY_S: Final = 2.0  # the age of a right value: the delay of an event, and two conflations
EXPIRY_GRACE_S: Final = 1.0  # servers check their clients every second
SURE: Final = ("stale", "unpriced", "unconfirmed", "unexplained", "unvalued")

VALUATIONS: Final = b":valuations"

_decode = msgspec.json.Decoder().decode
_decode_epoch = msgspec.msgpack.Decoder().decode


@dataclass
class Fault:
    """A promise that did not hold."""

    promise: str
    at_s: float
    what: str

    def __str__(self) -> str:
        return f"{self.promise} at {self.at_s:.3f} s: {self.what}"


@dataclass
class WatcherHistory:
    """What one client has been shown, over all its connections."""

    name: str
    account_id: str
    with_positions: bool = False
    expires_s: float | None = None
    order: tuple[int, int] = (0, 0)
    newest: dict[str, Any] | None = None
    rows: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    hops: tuple[str, ...] = ()
    is_first: bool = True  # the next value is the first of its connection
    is_away: bool = False  # it is not connected, does not read, or its server is frozen
    since_s: float = 0.0  # since when it is connected, or reads again
    wrong_since_s: float | None = None


class SimulationJudge:
    """Judges all clients; `faults` are the broken promises."""

    def __init__(self, truth: TrueBroker, price_ttl_s: float, history: TrialHistory) -> None:
        self.truth = truth
        self._history = history
        self.faults: list[Fault] = []
        self.seen = Counter[str]()
        self._epochs: dict[bytes, int] = {}
        self._price_ttl_s = price_ttl_s
        self.is_time_right = True  # false once a clock was shifted: the ages of prices are then not judged

    def note(self, promise: str, at_s: float, what: str) -> None:
        """Note a broken promise."""
        self.faults.append(Fault(promise, at_s, what))

    def overhear(self, channel: bytes, payload: bytes, now_s: float) -> None:
        """Check a publication in Valkey: on a shard's channels, the epoch must never go back (P2)."""
        before, found, _ = channel.partition(VALUATIONS)
        if not found or payload.startswith(b"{"):
            return
        channel = before + found
        with contextlib.suppress(msgspec.MsgspecError):
            epoch = _decode_epoch(payload)[0]
            if epoch < self._epochs.get(channel, 0):
                self.note(
                    "P2",
                    now_s,
                    f"two owners publish {channel.decode()}: {epoch} after {self._epochs[channel]}",
                )
            self._epochs[channel] = max(epoch, self._epochs.get(channel, 0))

    def forget_epochs(self) -> None:
        """Forget all epochs: Valkey has lost its state, so an epoch may be lower."""
        self._epochs.clear()

    def take(self, client: WatcherHistory, text: bytes, now_s: float) -> None:
        """Check one message to one client: expiry (P10), account (P5), order, positions and ages."""
        self._history.note((client.name.encode(), text))
        message = _decode(text)
        self.seen[message["type"]] += 1
        if client.expires_s is not None and now_s > client.expires_s + EXPIRY_GRACE_S:
            self.note("P10", now_s, f"{client.name} is served after its token has expired")
        if (whose := message.get("account_id")) not in (client.account_id, None):
            if message["type"] != "error":
                self.note("P5", now_s, f"{client.name} is sent {whose}")
            return
        match message["type"]:
            case "portfolio":
                self._take_value(client, message, now_s)
            case "freshness":
                client.hops = tuple(message["stale_hops"])
            case _:
                pass

    def _take_value(self, client: WatcherHistory, message: dict[str, Any], now_s: float) -> None:
        order = message["epoch"], message["sequence"]
        is_again = client.is_first and order == client.order
        if order <= client.order and not is_again:
            self.note("P2", now_s, f"{client.name} goes from {client.order} to {order}")
        client.order = order
        self._take_rows(client, message, now_s)
        client.newest, client.is_first = message, False
        self._check_ages(client, message, now_s)

    def _take_rows(self, client: WatcherHistory, message: dict[str, Any], now_s: float) -> None:
        """Check that cash and all positions of a snapshot and its changes add up to the equity (P3)."""
        if not client.with_positions:
            return None
        if "positions" not in message:
            return self.note("P3", now_s, f"{client.name} subscribed to positions and is sent none")
        if client.is_first:
            client.rows.clear()
        client.rows |= {row["symbol"]: row for row in message["positions"]}
        held = [row for row in client.rows.values() if Decimal(row["quantity"])]
        if message["equity"] is None or any(row["mark"] is None for row in held):
            return None
        total = Decimal(message["cash"]) + sum(
            Decimal(row["quantity"]) * Decimal(row["mark"]) for row in held
        )
        if total.quantize(CENT, ROUND_HALF_EVEN) != Decimal(message["equity"]):
            self.note("P3", now_s, f"{client.name}: its positions make {total}, not {message['equity']}")
        return None

    def _check_ages(self, client: WatcherHistory, message: dict[str, Any], now_s: float) -> None:
        if not self.is_time_right:
            return
        account = self.truth.accounts[client.account_id]
        for symbol, quantity in account.quantities.items():
            age_s = now_s - self.truth.traded_s[symbol]
            is_called_fresh = symbol not in message["stale"] and symbol not in message["unpriced"]
            is_marked = is_unsure(client, message)
            if quantity and age_s > self._price_ttl_s + MARKED_S_MAX and is_called_fresh and not is_marked:
                self.note("P4", now_s, f"{client.name}: {symbol} is {age_s:.1f} s old and not called stale")

    def look(self, clients: list[WatcherHistory], now_s: float) -> None:
        """Check that no client shows a wrong value without a mark for longer than allowed (P11)."""
        for client in clients:
            if not self._is_wrong(client, now_s):
                client.wrong_since_s = None
            elif client.wrong_since_s is None:
                client.wrong_since_s = now_s
            elif now_s - client.wrong_since_s > MARKED_S_MAX - ON_ITS_WAY_S and client.newest is not None:
                true, shown = self.truth.equity(client.account_id), client.newest["equity"]
                self.note("P11", now_s, f"{client.name} is shown {shown} without a mark; true: {true} cents")

    def _is_wrong(self, client: WatcherHistory, now_s: float) -> bool:
        """Whether it shows, without a mark, an equity that was not true within ON_ITS_WAY_S."""
        if client.is_away or now_s - client.since_s < ON_ITS_WAY_S:
            return False
        if client.newest is None or is_unsure(client, client.newest):
            return False
        shown = cents(client.newest["equity"])
        return not self.truth.was_worth(client.account_id, shown, now_s - ON_ITS_WAY_S, now_s)

    def differing(self, clients: list[WatcherHistory]) -> list[str]:
        """Descriptions of all connected clients that do not show the present truth without a mark."""
        wrong: list[str] = []
        for client in clients:
            account = self.truth.accounts[client.account_id]
            if client.is_away:
                continue
            newest = client.newest
            if newest is None:
                wrong.append(f"{client.name} is shown nothing")
            elif newest["equity"] is None or cents(newest["equity"]) != self.truth.equity(client.account_id):
                true = self.truth.equity(client.account_id)
                wrong.append(f"{client.name} is shown {newest['equity']}, not {true} cents")
            elif Decimal(newest["cash"]) != account.cash:
                wrong.append(f"{client.name} is shown cash {newest['cash']}, not {account.cash}")
            elif marks := lasting_marks(client, newest):
                wrong.append(f"{client.name} is right, and still marked: {marks}")
            elif client.with_positions and (held := self._rows_differ(client)):
                wrong.append(f"{client.name} is shown positions {held}, not {account.quantities}")
        return wrong

    def _rows_differ(self, client: WatcherHistory) -> dict[str, str] | None:
        true = {s: q for s, q in self.truth.accounts[client.account_id].quantities.items() if q}
        shown = {s: row["quantity"] for s, row in client.rows.items() if Decimal(row["quantity"])}
        return None if true == {s: Decimal(q) for s, q in shown.items()} else shown


def is_unsure(client: WatcherHistory, message: dict[str, Any]) -> bool:
    """Whether the message or the connection marks something of the value as uncertain."""
    return bool(client.hops) or message["equity"] is None or any(message.get(name) for name in SURE)


def lasting_marks(client: WatcherHistory, message: dict[str, Any]) -> list[str]:
    """The marks of a right value that must go away. Stale prices are none: without trades, they grow old."""
    marks = [name for name in SURE[1:] if message.get(name)] + list(client.hops)
    return marks + [name for name in message["stale"] if name == "account_record"]


def cents(text: str) -> int:
    """Dollars as text of the wire, in cents."""
    return int(text.replace(".", ""))
