"""Keys of an identity provider: fetched once for all, rolled over, and never trusted without limit."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from portfolio_realtime.websocket_server.access import jwks as limits
from portfolio_realtime.websocket_server.access.identity import Unauthorized, Unverifiable
from portfolio_realtime.websocket_server.access.jwks import KeySet
from tests.security.provider import Key, Provider, providing

OLD, NEW, CURVE = Key("old"), Key("new"), Key("curve", "EC")


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def provider() -> AsyncGenerator[Provider]:
    """With one key."""
    async with providing() as found:
        found.keys = [OLD]
        yield found


@pytest.fixture
def clock() -> Clock:
    """The key set's clock."""
    return Clock()


@pytest.fixture
async def key_set(
    provider: Provider, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[KeySet]:
    """The keys of the provider, which may be slow to answer: the machine may be busy."""
    monkeypatch.setattr(limits, "FETCH_S_MAX", 60.0)
    found = KeySet(provider.jwks_url, monotonic_s=clock)
    yield found
    await found.close()


async def test_many_who_ask_at_once_cost_one_fetch(key_set: KeySet, provider: Provider) -> None:
    """Single flight, and then from memory."""
    found = await asyncio.gather(*(key_set.key("old") for _ in range(50)))
    assert {key.algorithm_name for key in found} == {"RS256"}
    assert provider.keys_asked == 1


async def test_a_new_key_is_fetched_when_a_token_names_it(
    key_set: KeySet, provider: Provider, clock: Clock
) -> None:
    """Rollover: nobody has to wait until the old keys are stale."""
    await key_set.key("old")
    provider.keys = [OLD, NEW, CURVE]
    clock.now_s += limits.FETCH_S_MIN
    assert (await key_set.key("new")).algorithm_name == "RS256"
    assert (await key_set.key("curve")).algorithm_name == "ES256"
    assert provider.keys_asked == 2


async def test_made_up_key_ids_cannot_make_us_ask_again_and_again(
    key_set: KeySet, provider: Provider, clock: Clock
) -> None:
    """One fetch says for certain that there is no such key; until the next, nobody can tell."""
    with pytest.raises(Unauthorized) as refused:
        await key_set.key("made-up-0")
    assert not isinstance(refused.value, Unverifiable)
    for index in range(20):
        clock.now_s += 0.1
        with pytest.raises(Unverifiable):
            await key_set.key(f"made-up-{index}")
    assert provider.keys_asked == 1
    clock.now_s += limits.FETCH_S_MIN
    with pytest.raises(Unauthorized):
        await key_set.key("made-up-0")
    assert provider.keys_asked == 2


async def test_a_withdrawn_key_is_good_no_more(key_set: KeySet, provider: Provider, clock: Clock) -> None:
    """Within FRESH_S."""
    await key_set.key("old")
    provider.keys = [NEW]
    clock.now_s += limits.FRESH_S + 1
    with pytest.raises(Unauthorized):
        await key_set.key("old")


async def test_while_the_provider_is_away_known_keys_serve_for_a_while(
    key_set: KeySet, provider: Provider, clock: Clock
) -> None:
    """Then nobody gets in; and unknown ones never."""
    await key_set.key("old")
    provider.is_away = True
    clock.now_s += limits.FRESH_S + 1
    assert await key_set.key("old")
    with pytest.raises(Unverifiable):
        await key_set.key("new")
    clock.now_s += limits.STALE_S_MAX
    with pytest.raises(Unverifiable):
        await key_set.key("old")
    provider.is_away = False
    clock.now_s += limits.FETCH_S_MIN
    assert await key_set.key("old")


async def test_keys_that_are_weak_or_for_something_else_are_left_out(
    key_set: KeySet, provider: Provider
) -> None:
    """Short RSA, shared secrets, encryption keys, other algorithms, private keys, nonsense."""
    weak = Key("weak", bits=1024).public
    provider.extra_keys = [
        weak,
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0", "alg": "HS256"},
        {**NEW.public, "kid": "encrypts", "use": "enc"},
        {**NEW.public, "kid": "other", "alg": "RS512"},
        {"kty": "RSA", "kid": "broken", "n": 7},
        {"kid": 7},
        {},
    ]
    assert await key_set.key("old")
    for key_id in ("weak", "shared", "encrypts", "other", "broken"):
        with pytest.raises(Unauthorized):
            await key_set.key(key_id)
