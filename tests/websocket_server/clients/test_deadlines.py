"""Every deadline of a connection against a model of it that shares no number and no line with the product.

The model says for each moment at which somebody looks what may and what must be told then. Times are
multiples of a quarter of a second, which floating point adds without error.
"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_realtime.websocket_server.access.identity import Identity
from portfolio_realtime.websocket_server.clients.connection import ClientConnection
from portfolio_realtime.wire.messages import Disconnect
from tests.support.publications import payload

ALICE = Identity("alice", frozenset({"a"}))


class Model:
    """What a connection must do, in words of the protocol."""

    def __init__(self, jitter: float) -> None:
        self.ping_s = 20 + 5 * jitter
        self.ends_s = 12 * 3600 - 3 * 3600 * jitter
        self.is_known = False  # has it said who it is?
        self.expires_s: float | None = None
        self.is_warned = True
        self.waiting: list[dict[str, Any]] = []  # notices that the client has not read
        self.full_since_s: float | None = None
        self.pinged_s = 0.0
        self.is_ponged = True

    def hear(self, event: str, now_s: float) -> None:
        """Something happens to the connection."""
        match event.split():
            case ["auth", "for", "ever"]:
                self.is_known, self.expires_s, self.is_warned = True, None, True
            case ["auth", valid_s]:
                self.is_known, self.expires_s, self.is_warned = True, now_s + float(valid_s), False
            case ["full"]:
                self.full_since_s = now_s if self.full_since_s is None else self.full_since_s
            case ["free"]:
                self.full_since_s = None
            case ["pong"]:
                self.is_ponged = True
            case _:
                assert event == "nothing"

    def reasons(self, now_s: float) -> set[Disconnect]:
        """Why it must end now; any of these may be told, and when there is none nothing may."""
        due = {
            Disconnect.TOKEN_EXPIRED: self.expires_s is not None and now_s >= self.expires_s,
            Disconnect.SLOW_CONSUMER: self.full_since_s is not None and now_s - self.full_since_s > 10,
            Disconnect.UNVERIFIABLE: not self.is_known and now_s > 5,
            Disconnect.NO_PONG: not self.is_ponged and now_s - self.pinged_s > 10,
            Disconnect.LIFETIME: now_s > self.ends_s,
        }
        return {reason for reason, is_due in due.items() if is_due}

    def look(self, now_s: float) -> tuple[bool, list[dict[str, Any]]]:
        """What it says when it need not end: is there a ping, and what can be read?"""
        if self.expires_s is not None and not self.is_warned and self.expires_s - now_s <= 30:
            self.is_warned = True
            self.waiting.append({"type": "token_expiring", "in_s": int(self.expires_s - now_s)})
        is_pinged = self.full_since_s is None and self.is_ponged and now_s - self.pinged_s >= self.ping_s
        if is_pinged:
            self.pinged_s, self.is_ponged = now_s, False
        if self.full_since_s is not None:
            return is_pinged, []
        said, self.waiting = self.waiting, []
        return is_pinged, said


class Looked:
    """The product's connection, looked at as the server does: only when it says that something is due."""

    def __init__(self, jitter: float) -> None:
        self.connection = ClientConnection(0.0, jitter)

    def hear(self, event: str, now_s: float) -> None:
        """The same happens to it."""
        match event.split():
            case ["auth", "for", "ever"]:
                assert self.connection.authenticated(ALICE, now_s, None) is None
            case ["auth", valid_s]:
                assert self.connection.authenticated(ALICE, now_s, float(valid_s)) is None
            case ["full"]:
                self.connection.pause(now_s)
            case ["free"]:
                self.connection.resume()
            case ["pong"]:
                self.connection.pong(now_s)
            case _:
                pass

    def look(self, now_s: float) -> tuple[Disconnect | None, bool, list[dict[str, Any]]]:
        """Why it ends; is there a ping, and what can be read?"""
        is_pinged = False
        if now_s >= self.connection.due_s:
            if (disconnect := self.connection.disconnect_due(now_s)) is not None:
                return disconnect, False, []
            is_pinged = self.connection.is_ping_due(now_s)
        said: list[dict[str, Any]] = []
        while (frame := self.connection.next_frame(now_s)) is not None:
            said.append(payload(frame))
        return None, is_pinged, said


EVENTS = st.sampled_from(
    [
        *("pong", "pong", "pong", "nothing", "nothing", "full", "free", "free"),
        *("auth 45", "auth 20", "auth 3600", "auth for ever"),
    ]
)
WAITS = st.sampled_from([0.25, 1.0, 2.0, 4.75, 5.0, 5.25, 10.0, 10.25, 15.0, 20.0, 25.0, 4000.0, 31_000.0])
JITTERS = st.integers(0, 4).map(lambda quarters: quarters / 4)


@settings(max_examples=1000, deadline=None)
@given(JITTERS, st.lists(st.tuples(EVENTS, WAITS), min_size=3, max_size=30))
def test_every_deadline_comes_when_the_model_says_and_for_a_reason_that_it_gives(
    jitter: float, history: list[tuple[str, float]]
) -> None:
    """5 s to say who one is, 10 s to read and to answer a ping, 30 s of notice, 9 to 12 hours in all."""
    model, looked, now_s = Model(jitter), Looked(jitter), 0.0
    for event, wait_s in history:
        model.hear(event, now_s)
        looked.hear(event, now_s)
        now_s += wait_s
        disconnect, is_pinged, said = looked.look(now_s)
        reasons = model.reasons(now_s)
        assert (disconnect in reasons) if reasons else (disconnect is None)
        if reasons:
            return
        assert (is_pinged, said) == model.look(now_s)


def lives(jitter: float, steps: list[tuple[str, float]]) -> Disconnect | None:
    """How a connection is that hears these and is looked at after each pause."""
    looked, now_s, disconnect = Looked(jitter), 0.0, None
    for event, wait_s in steps:
        looked.hear(event, now_s)
        now_s += wait_s
        disconnect, _, _ = looked.look(now_s)
    return disconnect


def test_the_model_s_numbers_are_met_to_a_quarter_of_a_second() -> None:
    """Each deadline by itself, not a moment early and not late; the histories come to it by chance."""
    known = ("auth for ever", 0.0)
    pings = [("pong", 20.0)] * (12 * 180)
    for steps, reason in (
        ([("nothing", 5.0)], Disconnect.UNVERIFIABLE),
        ([known, ("full", 10.0)], Disconnect.SLOW_CONSUMER),
        ([known, ("nothing", 20.0), ("nothing", 10.0)], Disconnect.NO_PONG),
        ([known, *pings], Disconnect.LIFETIME),
    ):
        assert lives(0.0, steps) is None, reason
        assert lives(0.0, [*steps, ("nothing", 0.25)]) is reason
    assert lives(0.0, [("auth 45", 44.75)]) is None
    assert lives(0.0, [("auth 45", 44.75), ("nothing", 0.25)]) is Disconnect.TOKEN_EXPIRED
