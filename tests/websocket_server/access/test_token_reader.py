"""Our reading of a token beside PyJWT's own, over whatever a client may send."""

import base64
import secrets
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.websocket_server.access.token_reader import KnownSecret, TokenReader

SECRET = secrets.token_urlsafe(48)
OURS, THEIRS = TokenReader(), jwt.PyJWT()
KEY = jwt.PyJWK({"kty": "oct", "k": base64.urlsafe_b64encode(SECRET.encode()).decode()}, "HS256")
KEY.Algorithm = KnownSecret(KnownSecret.SHA256)
TOKEN = jwt.encode({"sub": "alice", "accounts": ["a", "ä"], "exp": 4_000_000_000}, SECRET, "HS256")
SEGMENTS = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(base64.urlsafe_b64encode),
    st.text("AZaz09-_+/= \n", max_size=12).map(str.encode),
)


def segment_of(reader: jwt.PyJWT, segment: bytes) -> bytes | None:
    """What a segment says; None: it is refused."""
    try:
        return reader._jws._decode_base64url_segment(segment, "payload")
    except jwt.DecodeError:
        return None


def claims_of(reader: jwt.PyJWT, token: str, key: Any) -> object:
    """The claims of a token; the class of the error if it is refused."""
    try:
        return reader.decode(token, key, algorithms=["HS256"])
    except jwt.PyJWTError as error:
        return type(error)


@given(SEGMENTS)
def test_a_segment_is_read_as_pyjwt_reads_it(segment: bytes) -> None:
    """The same bytes, or refused by both: a token has one spelling."""
    assert segment_of(OURS, segment) == segment_of(THEIRS, segment)


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("A_-+/=.! é"))
def test_a_changed_token_is_refused_as_pyjwt_refuses_it(at: int, character: str) -> None:
    """For the same reason; the unchanged one is accepted by both."""
    for token in (TOKEN, TOKEN[:at] + character + TOKEN[at + 1 :], TOKEN[:at], TOKEN + character):
        assert claims_of(OURS, token, KEY) == claims_of(THEIRS, token, SECRET)
    assert claims_of(OURS, TOKEN, KEY) == {"sub": "alice", "accounts": ["a", "ä"], "exp": 4_000_000_000}


@pytest.mark.parametrize("payload", [b"[]", b"1", b"", b"{", b'{"exp":NaN}', b"\xff", b'{"a":1}{"b":2}'])
def test_a_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    """Also what only JavaScript or Python would call a number."""
    token = jwt.PyJWS().encode(payload, SECRET, "HS256")
    assert claims_of(OURS, token, KEY) is jwt.DecodeError
