"""One odd key of an identity provider, or one odd line of entitlements, takes nothing from the others."""

import asyncio
import json
from typing import Any, cast

import httpx
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_realtime.state import State, keys
from portfolio_realtime.state.connection import Connection
from portfolio_realtime.websocket_server.access.jwks import FRESH_S, KeySet
from tests.security.provider import Key
from tests.support.odd_values import NO_ELEMENT, SPOILT

GOOD = [Key("first"), Key("second", "EC"), Key("third")]
LIKE: list[dict[str, Any]] = [one.public for one in GOOD[:2]]
DEEP = "[" * 5000
ODD_LINES: list[bytes] = [
    b"",
    b"null",
    b"{}",
    b"text",
    b'"alice"',
    b'["\xff"]',
    b"\xff\xfe",
    DEEP.encode(),
    b"[[[",
    b"7",
]


@st.composite
def odd_keys(draw: st.DrawFn) -> str:
    """The JSON of a key with one field spoilt or missing, perhaps with the id of a good one."""
    match draw(st.sampled_from(["none", "missing", "spoilt", "spoilt", "same id"])):
        case "none":
            return json.dumps(draw(st.sampled_from(NO_ELEMENT)))
        case kind:
            key = {**draw(st.sampled_from(LIKE)), "kid": "first" if kind == "same id" else "odd"}
            field = draw(st.sampled_from(sorted(key.keys() - ({"kid"} if kind == "same id" else set()))))
            if kind == "missing":
                del key[field]
            else:
                key[field] = draw(st.sampled_from([one for one in SPOILT if one != "\ud83d\ude00"]))
            return json.dumps(key)


@settings(max_examples=150, deadline=None)
@given(odd_keys(), st.integers(0, len(GOOD)))
def test_one_odd_key_of_a_provider(odd: str, place: int) -> None:
    """Wherever it stands, and also under the id of a good one: all others sign."""
    texts = [json.dumps(one.public) for one in GOOD]
    texts.insert(place, odd)
    document = f'{{"keys": [{", ".join(texts)}]}}'.encode()

    async def read() -> list[Any]:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, content=document))
        key_set = KeySet("http://provider/keys", transport=transport)
        try:
            return [(await key_set.key(one.key_id)).key for one in GOOD]
        finally:
            await key_set.close()

    assert len(asyncio.run(read())) == len(GOOD)


async def test_a_document_that_is_nested_without_end_costs_no_known_key() -> None:
    """It is refused as a whole, as one that is no JSON, and the keys of before serve."""
    documents = [json.dumps({"keys": [GOOD[0].public]}), f'{{"keys": [{DEEP}', "text"]
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=documents.pop(0)))
    clock = [1000.0]
    key_set = KeySet("http://provider/keys", monotonic_s=lambda: clock[0], transport=transport)
    for _ in range(3):
        assert await key_set.key("first")
        clock[0] += FRESH_S + 1
    await key_set.close()
    assert not documents


async def test_one_odd_line_of_entitlements(state: State) -> None:
    """Its subject may see nothing; every other one, in the same round trip, what its line says."""
    connection = cast("Connection", vars(state)["connection"])
    for number, line in enumerate(ODD_LINES):
        await cast("Any", connection.commands.hset(keys.entitlements(), f"odd-{number}", cast("str", line)))
    await cast("Any", connection.commands.hset(keys.entitlements(), cast("str", b"\xff"), '["a"]'))
    await state.entitlements.write("alice", ["a", "b"])
    await cast("Any", connection.commands.hset(keys.entitlements(), "bob", '["c", null, 7, ["d"]]'))

    odd = [f"odd-{number}" for number in range(len(ODD_LINES))]
    found = await state.entitlements.read(["alice", *odd, "bob"])

    assert found.pop("alice") == {"a", "b"}
    assert found.pop("bob") == {"c"}
    assert found == dict.fromkeys(odd, frozenset())
    every = await state.entitlements.read_all()
    assert every["alice"] == {"a", "b"}
    assert msgspec.json.encode(sorted(every))
