"""A source is live for as long as somebody says so, and not longer."""

import asyncio

from portfolio_realtime.state import State, keys
from portfolio_realtime.state.feeds import SourceStatus
from tests.conftest import Until


async def test_a_source_is_live_while_it_is_kept(state: State, until: Until) -> None:
    """Its key ends by itself."""
    await state.feeds.keep("iex")

    assert await state.feeds.live(["iex", "sip"]) == {"iex"}
    assert 0 < await state.connection.commands.pttl(keys.feed("iex")) <= keys.FEED_TTL_MS

    async def is_over() -> bool:
        return not await state.feeds.live(["iex"])

    await until(is_over, "the source is not live any more")


async def test_a_source_that_nobody_renews_is_not_live_though_its_key_lasts(
    state: State, until: Until
) -> None:
    """As after Valkey's clock has gone back. Who renews it makes it live at once."""
    await state.feeds.keep("iex")
    await state.connection.commands.pexpire(keys.feed("iex"), 60_000)
    assert await state.feeds.live(["iex"]) == {"iex"}

    async def is_over() -> bool:
        return not await state.feeds.live(["iex"])

    await until(is_over, "the source is not live any more")
    assert await state.connection.commands.exists(keys.feed("iex"))
    await state.feeds.keep("iex")
    assert await state.feeds.live(["iex"]) == {"iex"}


async def test_a_source_that_is_renewed_stays_live(state: State) -> None:
    """Whatever its key's expiry time, later or earlier than before."""
    for ttl_s in (60, 30, 90):
        await state.feeds.keep("iex")
        await state.connection.commands.expire(keys.feed("iex"), ttl_s)
        assert await state.feeds.live(["iex"]) == {"iex"}
        await asyncio.sleep(keys.FEED_TTL_MS / 1000)


async def test_who_is_live_says_whether_the_exchange_is_open(state: State) -> None:
    """So that old prices are told apart from the night; a source that is silent says nothing."""
    assert await state.feeds.read(["iex"]) == {}
    await state.feeds.keep("iex", SourceStatus.CORE)
    await state.feeds.keep("crypto")

    assert await state.feeds.read(["crypto", "iex", "sip"]) == {
        "crypto": SourceStatus.LIVE,
        "iex": SourceStatus.CORE,
    }
    await state.feeds.keep("iex", SourceStatus.IDLE)
    assert await state.feeds.read(["crypto", "iex"]) == {
        "crypto": SourceStatus.LIVE,
        "iex": SourceStatus.IDLE,
    }


async def test_a_status_of_a_newer_version_is_live(state: State) -> None:
    """Services of two versions run side by side during an upgrade."""
    await state.connection.commands.set(keys.feed("iex"), b"something new", px=keys.FEED_TTL_MS)
    assert await state.feeds.read(["iex"]) == {"iex": SourceStatus.LIVE}


async def test_nothing_asked_is_nothing_live(state: State) -> None:
    """No marks, no sources."""
    assert await state.feeds.live([]) == set()


async def test_a_source_can_be_dropped_at_once(state: State) -> None:
    """Nobody needs to wait until its key ends; who keeps it again makes it live."""
    await state.feeds.keep("accounts")
    await state.feeds.drop("accounts")
    assert not await state.feeds.live(["accounts"])
    await state.feeds.keep("accounts")
    assert await state.feeds.live(["accounts"]) == {"accounts"}
