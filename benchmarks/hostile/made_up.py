"""Hostile input that hypothesis makes up, and makes smaller when it has found a surprise."""

import asyncio
from collections import Counter
from typing import Any, Final

import hypothesis
import msgspec
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from benchmarks.hostile.inputs import BIG_MESSAGE_BYTES, NUMBERS, OPCODES, WORDS
from benchmarks.hostile.victim import OWN_CODES, Surprise, Victim
from benchmarks.raw_websocket import CLOSE, CONTINUATION, TEXT, close_payload, frame

BYTES_MAX: Final = 300
PARTS_MAX: Final = 6
LIES: Final = (0, 1, 125, 126, 65_536, 2**31, 2**62, 2**63, 2**64 - 1)  # lengths that are announced

_words = st.sampled_from(WORDS)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    _words,
    st.text(max_size=40),
    st.sampled_from([number for number in NUMBERS if abs(number) < 2**63]),
    st.floats(allow_nan=False, allow_infinity=False),
)
_values: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(_words, inner, max_size=5)),
    max_leaves=10,
)


def _messages() -> st.SearchStrategy[bytes]:
    """JSON that is nearly, or exactly, what the protocol says."""
    own = st.sampled_from(["a", "ab", "b", "*"])
    fields = {
        "heartbeat": {"timestamp": _values},
        "auth": {"token": _values},
        "subscribe": {
            "account_id": own | _values,
            "detail": st.sampled_from(["value", "positions"]) | _values,
            "max_frequency_hz": st.floats() | _values,
        },
        "unsubscribe": {"account_id": own | _values},
    }
    kinds = [st.fixed_dictionaries({"type": st.just(kind)}, optional=known) for kind, known in fields.items()]
    return st.one_of(*kinds, st.dictionaries(_words, _values, max_size=4), _values).map(msgspec.json.encode)


def _nested(depth: int, opening: bytes) -> bytes:
    return opening * depth


TEXTS: Final = st.one_of(
    _messages(),
    st.builds(_nested, st.integers(1, 1500), st.sampled_from([b"[", b'{"type":', b'{"timestamp":['])),
    st.binary(max_size=BYTES_MAX),
    st.just(b" " * BIG_MESSAGE_BYTES),
)
_closes = st.builds(close_payload, st.integers(0, 65_535), st.binary(max_size=130))
FRAMES: Final = st.one_of(
    st.builds(frame, st.just(TEXT), TEXTS),
    st.builds(frame, st.sampled_from([TEXT, CONTINUATION]), TEXTS, fin=st.booleans()),
    st.builds(frame, st.just(CLOSE), _closes),
    st.builds(
        frame,
        st.sampled_from(OPCODES) | st.integers(0, 15),
        TEXTS | _closes,
        fin=st.booleans(),
        reserved=st.sampled_from([0, 0, 0, 1, 2, 4, 7]),
        is_masked=st.sampled_from([True, True, True, False]),
        length=st.none() | st.sampled_from(LIES),
    ),
)
SENT: Final = st.one_of(
    st.binary(max_size=BYTES_MAX),
    st.lists(FRAMES, min_size=1, max_size=PARTS_MAX).map(b"".join),
    st.lists(st.builds(frame, st.just(TEXT), _messages()), min_size=1, max_size=PARTS_MAX).map(b"".join),
)


def made_up(count: int, seed: int) -> Counter[str]:
    """About `count` connections; how many of each close code. Raises Surprise with the smallest input."""
    codes = Counter[str]()
    with asyncio.Runner() as runner:
        victims = runner.run(_victims())

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=count,
            deadline=None,
            database=None,
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.filter_too_much,
                HealthCheck.data_too_large,
            ],
            phases=[Phase.generate, Phase.shrink],
        )
        @hypothesis.given(st.booleans(), SENT)
        def attack(is_open: bool, sent: bytes) -> None:
            try:
                verdict = runner.run(victims[is_open].meet(sent))
            except Exception as error:  # hypothesis goes on with smaller inputs; the smallest is raised
                raise Surprise(f"hypothesis, seed {seed}: {error!r}; sent {sent!r}") from error
            codes[str(verdict.code) if verdict.code in OWN_CODES else "none, or the client's own"] += 1

        attack()
    return codes


async def _victims() -> tuple[Victim, Victim]:
    """Closed to strangers, and open."""
    return Victim(is_open=False), Victim(is_open=True)
