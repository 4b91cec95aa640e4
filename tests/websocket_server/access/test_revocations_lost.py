"""Valkey loses what was revoked: whoever knows writes it again, and whoever cannot know refuses."""

import time
from typing import Any

import pytest
import structlog.testing

from portfolio_realtime.state import State, keys
from portfolio_realtime.state.revocations import ALWAYS, SubjectRevocation, TokenRevocation
from portfolio_realtime.websocket_server.access.identity import BACK_END_IDENTITY, Identity
from portfolio_realtime.websocket_server.access.revocations import GAP_S_MAX, KnownRevocations

LIFETIME_S = 86_400
LEAVER = TokenRevocation("bank", "t-1")
GONE = SubjectRevocation("gone", 1_795_000_000)


def identity(issued_ago_s: float | None, jti: str = "t-9", subject: str = "user") -> Identity:
    """Whose token was issued so long ago; None: it does not say when."""
    now_s = time.time()
    issued_at_s = None if issued_ago_s is None else now_s - issued_ago_s
    return Identity(subject, frozenset({"a"}), now_s + 600, "bank", jti, issued_at_s)


class Hands:
    """The clocks of one server, which a test moves."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic_s(self) -> float:
        """Seconds of a clock that only goes forward."""
        return time.monotonic() + self.ahead_s

    def now_s(self) -> float:
        """Seconds since 1970."""
        return time.time() + self.ahead_s


async def server(state: State, hands: Hands | None = None, **options: Any) -> KnownRevocations:
    """A new server that has heard all there is."""
    hands = hands or Hands()
    revoked = KnownRevocations(LIFETIME_S, monotonic_s=hands.monotonic_s, now_s=hands.now_s, **options)
    await revoked.read_new(state)
    return revoked


@pytest.fixture
async def running(state: State) -> KnownRevocations:
    """A server that was there before, and knows two revocations."""
    await state.revocations.write(LEAVER, LIFETIME_S)
    await state.revocations.write(GONE, LIFETIME_S)
    return await server(state)


async def empty(state: State) -> None:
    """Valkey is lost, and another one has taken its place."""
    await state.connection.commands.flushall()


async def heard(state: State) -> list[Any]:
    """What a new server would read."""
    return await state.revocations.read_all()


async def test_a_new_server_on_an_empty_valkey_refuses_what_was_issued_before(state: State) -> None:
    """It cannot know; a token issued later could only have been revoked since."""
    await empty(state)
    alone = await server(state)

    assert not alone.can_tell(identity(60))
    assert not alone.can_tell(identity(None))
    assert alone.can_tell(identity(-1))
    assert alone.can_tell(BACK_END_IDENTITY)
    another = await server(state)
    assert not another.can_tell(identity(60)), "the next one knows no more"


async def test_an_operator_can_say_that_nothing_is_missing(state: State) -> None:
    """Every server lets older tokens in again, within its next look."""
    await empty(state)
    alone = await server(state)
    await state.revocations.write_again([LEAVER], LIFETIME_S)
    await state.revocations.confirm()
    await alone.read_new(state)

    assert alone.can_tell(identity(60)) and alone.can_tell(identity(None))
    assert identity(60, "t-1") in alone


async def test_a_running_server_writes_again_what_is_lost(state: State, running: KnownRevocations) -> None:
    """So that a server that starts later knows it, and lets the others in."""
    await empty(state)
    await running.read_new(state)

    assert set(await heard(state)) == {LEAVER, GONE}
    assert 0 < await state.connection.commands.ttl(keys.revocations()) <= LIFETIME_S + 60
    later = await server(state)
    assert identity(60, "t-1") in later and identity(60, subject="gone") not in later
    assert later.can_tell(identity(60))


async def test_a_new_server_that_came_first_learns_from_a_running_one(
    state: State, running: KnownRevocations
) -> None:
    """It refuses until then."""
    await empty(state)
    first = await server(state)
    assert not first.can_tell(identity(60))
    await running.read_new(state)
    await first.read_new(state)

    assert first.can_tell(identity(60))
    assert identity(60, "t-1") in first


async def test_what_is_revoked_meanwhile_is_kept(state: State, running: KnownRevocations) -> None:
    """The empty Valkey was used before the running server looked."""
    newer = TokenRevocation("bank", "t-2")
    await empty(state)
    await state.revocations.write(newer, LIFETIME_S)
    await running.read_new(state)

    assert set(await heard(state)) == {LEAVER, GONE, newer}
    assert identity(60, "t-2") in running


async def test_who_has_been_away_for_long_does_not_say_that_it_knows_all(state: State) -> None:
    """Something may have been revoked and lost meanwhile; what it knows it writes all the same."""
    hands = Hands()
    await state.revocations.write(LEAVER, LIFETIME_S)
    away = await server(state, hands)
    await empty(state)
    hands.ahead_s = GAP_S_MAX + 5
    await away.read_new(state)

    assert await heard(state) == [LEAVER]
    assert not away.can_tell(identity(60))
    assert identity(60, "t-1") in await server(state)


async def test_an_older_copy_is_completed(state: State, running: KnownRevocations) -> None:
    """A snapshot from before the last revocation was restored: it says that it is complete, and is not."""
    await state.connection.commands.delete(keys.revocations())
    await running.read_new(state)

    assert set(await heard(state)) == {LEAVER, GONE}


async def test_a_copy_of_unknown_age_is_not_believed(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server has seen this Valkey since it was started: what was written after the copy is lost."""
    await state.revocations.see(int(time.time()) - 3600, (await state.revocations.known()).newest)

    async def started_a_minute_ago() -> int:
        return 60

    monkeypatch.setattr(state.revocations, "valkey_up_s", started_a_minute_ago)
    assert not (await server(state)).can_tell(identity(60))


async def test_a_night_without_servers_loses_nothing(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valkey itself has been there all the time."""
    await state.revocations.see(int(time.time()) - 3600, (await state.revocations.known()).newest)

    async def started_days_ago() -> int:
        return 3 * 86_400

    monkeypatch.setattr(state.revocations, "valkey_up_s", started_days_ago)
    assert (await server(state)).can_tell(identity(60))


async def test_revocations_that_matter_no_more_are_not_lost(state: State) -> None:
    """The stream ends by itself when its newest entry is as old as a token can be."""
    hands = Hands()
    await state.revocations.write(LEAVER, LIFETIME_S)
    revoked = await server(state, hands)
    await state.connection.commands.delete(keys.revocations())
    hands.ahead_s = LIFETIME_S + 120
    await revoked.read_new(state)

    assert await heard(state) == []
    assert revoked.can_tell(identity(60))


async def test_after_a_tokens_longest_life_everything_is_known(state: State) -> None:
    """Tokens from before have expired by then."""
    await empty(state)
    hands = Hands()
    revoked = await server(state, hands)
    assert not revoked.can_tell(identity(60))
    hands.ahead_s = LIFETIME_S + 61

    assert revoked.can_tell(identity(60))


async def test_a_valkey_that_is_started_with_the_server_has_nothing_to_lose(state: State) -> None:
    """Nobody else reaches it, so nobody can have revoked anything."""
    await empty(state)

    assert (await server(state, is_complete=True)).can_tell(identity(60))


async def test_in_development_a_token_without_a_date_counts_as_new(state: State) -> None:
    """One with a date does not."""
    await empty(state)
    sandbox = await server(state, lets_undated_in=True)

    assert sandbox.can_tell(identity(None))
    assert not sandbox.can_tell(identity(60))


async def test_whoever_is_refused_is_explained_to_the_operator(state: State) -> None:
    """With the command, once a minute."""
    await empty(state)
    revoked = await server(state)
    with structlog.testing.capture_logs() as lines:
        assert not any(revoked.can_tell(identity(60)) for _ in range(5))

    (line,) = [line for line in lines if line["log_level"] == "error"]
    assert "revocations restore FILE, or --none" in line["event"]


async def test_the_first_to_speak_of_an_empty_valkey_is_believed(state: State) -> None:
    """Servers that start together agree."""
    await empty(state)
    await state.revocations.begin(100)
    await state.revocations.begin(200)
    assert (await state.revocations.known()).since_s == 100
    await state.revocations.confirm()
    assert (await state.revocations.known()).since_s == ALWAYS


async def test_a_new_server_refuses_when_the_stream_alone_was_evicted(state: State) -> None:
    """As volatile-lru does first: the stream has an expiry, what is said of it has none."""
    await state.revocations.write(LEAVER, LIFETIME_S)
    await state.connection.commands.delete(keys.revocations())
    alone = await server(state)

    assert not alone.can_tell(identity(60))
    assert alone.can_tell(identity(-1))


async def test_a_running_server_mends_what_was_evicted(state: State, running: KnownRevocations) -> None:
    """A server that starts afterwards knows it all again, in whichever order they look."""
    await state.connection.commands.delete(keys.revocations())
    first = await server(state)
    await running.read_new(state)
    await first.read_new(state)

    for one in (first, await server(state)):
        assert one.can_tell(identity(60)) and identity(60, "t-1") in one


async def test_a_stream_that_has_expired_is_not_evicted(state: State) -> None:
    """Its newest entry matters no more: nobody is refused for that."""
    await state.revocations.write(LEAVER, LIFETIME_S)
    await state.connection.commands.delete(keys.revocations())
    hands = Hands()
    hands.ahead_s = LIFETIME_S + 1
    await state.connection.commands.hset(keys.revocations_known(), "seen_s", str(int(hands.now_s())))  # type: ignore[misc]  # a coroutine

    assert (await server(state, hands)).can_tell(identity(60))
