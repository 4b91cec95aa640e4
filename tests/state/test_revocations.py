"""Revocations are heard by every server, kept while they matter, and gone when they do not."""

from typing import Any

from portfolio_realtime.state import State, keys
from portfolio_realtime.state.clients import SOCKET_TIMEOUT_S
from portfolio_realtime.state.revocations import BLOCK_MS, SubjectRevocation, TokenRevocation
from tests.conftest import Until


def test_a_read_that_waits_ends_long_before_its_sockets_timeout() -> None:
    """The client would send it ten times again before it fails, and lose what came in between."""
    assert BLOCK_MS / 1000 <= SOCKET_TIMEOUT_S / 2


async def test_a_revocation_is_heard_once_and_by_who_comes_later(state: State) -> None:
    """From the entry that a server has seen last; a new server reads all."""
    first, second = TokenRevocation("bank", "t-1"), SubjectRevocation("alice", 1_795_000_000)
    await state.revocations.write(first, 60)
    entry, found = await state.revocations.read_after("0")
    assert found == [first]
    await state.revocations.write(second, 60)
    assert (await state.revocations.read_after(entry))[1] == [second]
    newest, found = await state.revocations.read_after("0")
    assert found == [first, second]
    assert await state.revocations.read_after(newest) == (newest, [])


async def test_revocations_leave_with_the_tokens_they_concern(state: State, until: Until) -> None:
    """Older ones when the next is written, all of them when none is written any more."""
    await state.revocations.write(TokenRevocation("", "old"), 3600)
    await until(lambda: aged(state), "the clock has moved on")
    await state.revocations.write(TokenRevocation("", "new"), 1)
    assert (await state.revocations.read_after("0"))[1] == [TokenRevocation("", "new")]
    assert 0 < await state.connection.commands.ttl(keys.revocations()) <= 1


async def aged(state: State) -> bool:
    """Is the newest entry more than two seconds old?"""
    newest: Any = await state.connection.commands.xrevrange(keys.revocations(), count=1)
    entry_ms = int(newest[0][0].split(b"-")[0])
    seconds, _ = await state.connection.commands.time()
    return seconds * 1000 - entry_ms > 2000


async def test_entitlements_say_which_accounts_a_subject_may_see(state: State) -> None:
    """Nothing for who is not there, and nothing for what cannot be read."""
    await state.entitlements.write("alice", ["b", "a", "a"])
    await state.connection.commands.hset(keys.entitlements(), "bob", '"*"')
    found = await state.entitlements.read(["alice", "bob", "carol"])
    assert found == {"alice": frozenset({"a", "b"}), "bob": frozenset(), "carol": frozenset()}
    await state.entitlements.write("alice", [])
    assert await state.entitlements.read(["alice"]) == {"alice": frozenset()}
    assert await state.entitlements.read([]) == {}
