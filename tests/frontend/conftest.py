"""A page of the machine's own Chromium that fails the test on any error, and whatever it shows."""

import contextlib
import shutil
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime.state import State
from tests.conftest import emptied, opened
from tests.interoperability.programs import lacking
from tests.support.websocket_servers import Calculator, Served, serving, write_accounts

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # what Playwright answers itself counts as a page of the public network, which may not dial loopback
    "--disable-features=LocalNetworkAccessChecks",
]
DEADLINE_MS = 30_000  # of a busy machine

expect.set_options(timeout=DEADLINE_MS)

OpenPage = Callable[..., Coroutine[Any, Any, Page]]


@contextlib.asynccontextmanager
async def chromium() -> AsyncGenerator[Browser]:
    """The machine's own Chromium; without one the test is skipped."""
    if CHROMIUM is None:
        lacking("no browser: apt-get install chromium")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        await launched.close()


# The tests of a file share a loop, because they share a browser: to launch one takes seconds of a core.
@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncGenerator[Browser]:
    """A browser for the tests of a file; each page has a context of its own, which keeps nothing."""
    async with chromium() as launched:
        yield launched


@pytest_asyncio.fixture(loop_scope="module")
async def valkey_url(session_valkey: Valkeys) -> str:
    """URL of a real, empty Valkey."""
    return await emptied(session_valkey)


@pytest_asyncio.fixture(loop_scope="module")
async def state(valkey_url: str) -> AsyncGenerator[State]:
    """The state on a real, empty Valkey."""
    async with opened(valkey_url) as state:
        yield state


@pytest_asyncio.fixture(loop_scope="module")
async def open_page(browser: Browser) -> AsyncGenerator[OpenPage]:
    """Pages, each in a context of its own; an error or a breach of the CSP fails the test.

    A test names its pages after its server: what is named last ends first.
    """
    errors: list[str] = []
    contexts: list[BrowserContext] = []

    async def open_one(**options: Any) -> Page:
        context = await browser.new_context(**options)
        contexts.append(context)
        page = await context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda message: errors.append(message.text) if "Content Security" in message.text else None,
        )
        return page

    yield open_one
    for context in contexts:
        await context.close()
    assert errors == []


@pytest_asyncio.fixture(loop_scope="module")
async def page(open_page: OpenPage) -> Page:
    """One page in dark mode."""
    return await open_page(color_scheme="dark")


@pytest_asyncio.fixture(loop_scope="module")
async def calculator(state: State) -> Calculator:
    """Publishes for two accounts."""
    await write_accounts(state, "alice-1", "bob-2")
    return Calculator(state)


@pytest_asyncio.fixture(loop_scope="module")
async def demo(calculator: Calculator, valkey_url: str) -> AsyncGenerator[Served]:
    """A server that serves the demo page."""
    async with serving(valkey_url, demo_page=True) as served:
        yield served
