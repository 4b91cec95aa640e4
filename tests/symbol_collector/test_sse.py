"""The event-stream parser gives the same whatever pieces the network makes of a stream."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.symbol_collector.sources import sse
from portfolio_realtime.symbol_collector.sources.sse import Comment, Event, SseParser

STREAM = (
    ": welcome to the Alpaca events\n\n"
    'data: {"a":1}\n\n'
    ":heartbeat\n\n"
    'event: activity\r\nid: 01H\r\ndata: {"b":2}\r\n\r\n'
    "data: one\ndata: two\n\n"
    ": you are reading too slowly, dropped 10000 messages\n\n"
    "retry: 10\n\n"
    "data:{}\r\r"
    "data: unfinished\n"
)
EXPECTED = [
    Comment("welcome to the Alpaca events"),
    Event('{"a":1}'),
    Comment("heartbeat"),
    Event('{"b":2}'),
    Event("one\ntwo"),
    Comment("you are reading too slowly, dropped 10000 messages"),
    Event("{}"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_pieces_of_any_size_give_the_same_events(cuts: list[int]) -> None:
    """Events, comments, CRLF and unfinished ends are independent of where the stream is cut."""
    parser = SseParser()
    edges = [0, *sorted(cuts), len(STREAM)]

    found = [item for i, j in itertools.pairwise(edges) for item in parser.feed(STREAM[i:j])]

    assert found == EXPECTED


def test_a_line_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded."""
    monkeypatch.setattr(sse, "LINE_CHARACTERS_MAX", 10)
    parser = SseParser()
    parser.feed("data: 4567")

    with pytest.raises(ValueError, match="10 characters"):
        parser.feed("x")


def test_an_event_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one of short lines; the next event begins anew."""
    monkeypatch.setattr(sse, "LINE_CHARACTERS_MAX", 20)
    parser = SseParser()
    for _ in range(3):
        assert parser.feed("data: 4567\n\n") == [Event("4567")]

    with pytest.raises(ValueError, match="20 characters"):
        parser.feed("data: 4567\ndata: 4567\ndata:\n")
