"""A source is live for as long as somebody says so, and not longer."""

from portfolio_realtime.state import State, keys
from tests.conftest import Until


async def test_a_source_is_live_while_it_is_kept(state: State, until: Until) -> None:
    """Its key ends by itself."""
    await state.feeds.keep("iex")

    assert await state.feeds.live(["iex", "sip"]) == {"iex"}
    assert 0 < await state.connection.commands.pttl(keys.feed("iex")) <= keys.FEED_TTL_MS

    async def is_over() -> bool:
        return not await state.feeds.live(["iex"])

    await until(is_over, "the source is not live any more")


async def test_who_is_live_says_whether_the_exchange_is_open(state: State) -> None:
    """So that old prices are told apart from the night; a source that is silent says nothing."""
    assert await state.feeds.sessions(["iex"]) == {}
    await state.feeds.keep("iex", is_core=True)
    await state.feeds.keep("crypto")

    assert await state.feeds.sessions(["crypto", "iex", "sip"]) == {"crypto": False, "iex": True}
    await state.feeds.keep("iex")
    assert await state.feeds.sessions(["crypto", "iex"]) == {"crypto": False, "iex": False}


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
