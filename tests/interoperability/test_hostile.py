"""A short attack of `python -m benchmarks.hostile`, and that the attack would notice."""

import pytest
from benchmarks.hostile.__main__ import fuzzed, on_a_server
from benchmarks.hostile.made_up import made_up
from benchmarks.hostile.socketless import side_by_side, without_sockets
from benchmarks.hostile.victim import Surprise, Victim, judge
from benchmarks.raw_websocket import CLOSE, CONTINUATION, TEXT, close_payload, frame

from portfolio_realtime.websocket_server.clients.connection import ClientConnection

SEED = 11


async def test_nothing_that_strangers_send_surprises_the_server() -> None:
    """All kinds of bytes, frames and messages; with these, the reasons to close have all been given."""
    codes = await without_sockets(range(1500), SEED)

    assert sum(codes.values()) == 1500
    assert codes.keys() >= {"1002", "1007", "1009", "4500", "4505"}


async def test_side_by_side_the_same_is_sent() -> None:
    """However many processors there are: a seed and a number repeat a surprise anywhere."""
    assert side_by_side(100, SEED) == await without_sockets(range(100), SEED)


def test_fuzzing_by_coverage_finds_nothing() -> None:
    """A short run of atheris."""
    assert fuzzed(200, SEED) == 200


def test_nothing_that_hypothesis_makes_up_surprises_the_server() -> None:
    """Binary, frames and JSON messages from strategies; the same seed makes up the same."""
    print(f"seed {SEED}")

    codes = made_up(400, SEED)

    assert codes.total() >= 400
    assert codes.keys() >= {"1002", "1007", "1009", "4500", "4505"}


def test_hypothesis_would_notice_and_say_what_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the seed, and the smallest input that does it."""
    received = ClientConnection.received

    def broken(connection: ClientConnection, text: bytes, now_s: float) -> object:
        if b"subscribe" in text:
            raise RuntimeError("broken")
        return received(connection, text, now_s)

    monkeypatch.setattr(ClientConnection, "received", broken)
    with pytest.raises(Surprise, match=f"seed {SEED}: .*broken.*; sent b") as noticed:
        made_up(400, SEED)
    assert len(str(noticed.value)) < 200


async def test_a_server_survives_strangers_on_its_sockets_and_its_http() -> None:
    """The process is the same afterwards, has logged no stack trace, and has not grown."""
    done = await on_a_server(150, 150, SEED)

    assert sum(done["sockets"].values()) == 150
    assert {"200", "401", "404", "200 stream", "401 stream", "404 stream"} <= done["http"].keys()


async def test_the_attack_notices_what_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of ours reaches the attacker."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(ClientConnection, "received", broken)
    with pytest.raises(RuntimeError, match="broken"):
        await Victim(is_open=True).meet(frame(TEXT, b'{"type":"heartbeat"}'))


@pytest.mark.parametrize(
    "received",
    [
        frame(CLOSE, close_payload(1011), is_masked=False),
        frame(CLOSE, close_payload(4499), is_masked=False),
        frame(CLOSE, close_payload(1000), is_masked=False) + frame(TEXT, b"{}", is_masked=False),
        frame(CLOSE, b"x" * 126, is_masked=False),
        frame(TEXT, b'{"type":"error"}', is_masked=True),
        frame(TEXT, b'{"type":"error"}', is_masked=False, reserved=4),
        frame(TEXT, b'{"type":"secret"}', is_masked=False),
        frame(TEXT, b'{"type":"error","message":"Traceback (most recent call last)"}', is_masked=False),
        frame(CONTINUATION, b"x", is_masked=False, reserved=1),
    ],
)
def test_the_judge_notices_a_wrong_answer(received: bytes) -> None:
    """Codes that are not listed, words after the last, masks, bits, stack traces."""
    with pytest.raises(Surprise):
        judge(b"", received)


def test_the_judge_lets_a_client_have_its_own_code() -> None:
    """A server says the code of the client that closes (RFC 6455 §5.5.1)."""
    assert (
        judge(frame(CLOSE, close_payload(3999)), frame(CLOSE, close_payload(3999), is_masked=False)).code
        == 3999
    )
