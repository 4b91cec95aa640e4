"""Publications in columns, and their frames, beside the same one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.model import Publication, Publications
from portfolio_realtime.wire.frames import HEADERS_MAX, text_frame, text_frames, text_of

ROWS = st.none() | st.lists(st.tuples(st.sampled_from("AB"), st.just(b"{}")), max_size=2)
SOME = st.lists(st.builds(Publication, st.sampled_from("abcd"), st.integers(1, 9), st.just(b"{}"), ROWS))


@given(SOME, st.integers(0, 9), st.integers(0, 9))
def test_columns_hold_what_a_list_holds(made: list[Publication], first: int, last: int) -> None:
    """Also a part of them, and those of some accounts."""
    columns = Publications.of(made)
    assert (list(columns), len(columns)) == (made, len(made))
    assert list(columns.part(first, last)) == made[first:last]
    assert list(columns.only({"a", "c"})) == [one for one in made if one.account_id in "ac"]


@pytest.mark.parametrize("longest", [0, 125, 126, HEADERS_MAX - 1, HEADERS_MAX, 65_536])
def test_frames_made_together_are_those_made_alone(longest: int) -> None:
    """Whatever the lengths are: each header has its own."""
    payloads = [bytes(length) for length in (0, 1, 125, 126, 127, longest)]
    frames = text_frames(payloads)
    assert frames == [text_frame(payload) for payload in payloads]
    assert [text_of(frame) for frame in frames] == payloads
