"""The short way to the socket: everything arrives, in order, and nothing reaches another's socket."""

import socket
from collections.abc import Iterator

import pytest

from portfolio_realtime.websocket_server.fanout.direct_writes import DirectWrites

PAIRS = 5
FULL = 2  # the one that does not read


class End:
    """Both ends of one connection, and what the transport would have been asked to write."""

    def __init__(self, direct_writes: DirectWrites) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.fileno = self.ours.fileno()
        self.rest = b""
        self.direct_writes = direct_writes
        direct_writes.open(self.fileno, self._unsent)

    def _unsent(self, rest: bytes) -> None:
        self.rest += rest

    def fill(self) -> int:
        """Send until the socket takes no more; how much that was."""
        filled = 0
        while not self.rest:
            self.direct_writes.send_all([self.fileno], [b"x" * 1000])
            filled += 1000
        filled -= len(self.rest)
        self.rest = b""
        return filled

    def close(self) -> None:
        self.direct_writes.close(self.fileno)
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def direct_writes() -> DirectWrites:
    return DirectWrites()


@pytest.fixture
def ends(direct_writes: DirectWrites) -> Iterator[list[End]]:
    made = [End(direct_writes) for _ in range(PAIRS)]
    yield made
    for end in made:
        end.close()


def burst(ends: list[End]) -> tuple[list[int], list[bytes]]:
    return [end.fileno for end in ends], [f"for {index}".encode() for index in range(len(ends))]


def test_each_gets_its_own(ends: list[End], direct_writes: DirectWrites) -> None:
    """P5: one burst, everybody's own frame."""
    direct_writes.send_all(*burst(ends))
    assert [end.theirs.recv(100) for end in ends] == [f"for {index}".encode() for index in range(PAIRS)]
    assert not any(end.rest for end in ends)


def test_a_full_socket_keeps_nobody_waiting_and_loses_nothing(
    ends: list[End], direct_writes: DirectWrites
) -> None:
    """Its frame goes to the transport; those after it in the burst are sent all the same."""
    filled = ends[FULL].fill()
    assert filled > 0
    direct_writes.send_all(*burst(ends))
    assert [end.rest for end in ends] == [b"", b"", b"for 2", b"", b""]
    for index in (0, 1, 3, 4):
        assert ends[index].theirs.recv(100) == f"for {index}".encode()


def test_a_socket_that_takes_a_part_leaves_exactly_the_rest(
    ends: list[End], direct_writes: DirectWrites
) -> None:
    """Not a byte is lost or sent twice."""
    text = bytes(range(256)) * 8192
    assert direct_writes.send_all([end.fileno for end in ends[:2]], [text, b"next"]) == len(text) + len(
        b"next"
    )
    taken = len(text) - len(ends[0].rest)
    assert 0 < taken < len(text)
    received = bytearray()
    while len(received) < taken:
        received += ends[0].theirs.recv(1 << 16)
    assert bytes(received) + ends[0].rest == text
    assert ends[1].theirs.recv(100) == b"next"


def test_a_broken_socket_is_left_to_the_transport(ends: list[End], direct_writes: DirectWrites) -> None:
    """It will meet the same error, and knows how to end a connection."""
    ends[1].theirs.close()
    direct_writes.send_all(*burst(ends))
    assert [end.rest for end in ends] == [b"", b"for 1", b"", b"", b""]
