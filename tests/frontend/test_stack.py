"""The whole system under a page: equal to the oracle at quiet, and honest while parts of it are away."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncGenerator
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, WebSocketRoute, expect

from portfolio_harness.system import System, running, simulator_options, token, wait_known
from tests.conftest import Until
from tests.frontend.conftest import chromium
from tests.frontend.stage import (
    APP,
    MINUS,
    built,
    dollars,
    open_client,
    serve_files,
    shows,
    state_of_page,
    watch_sockets,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

ACCOUNTS: Final = 3
SILENCE_MS: Final = 12_000  # of the client, and what a busy machine adds
LIVE_MS: Final = 30_000
CLIMB_STEP_MS: Final = 9_000  # shorter than the silence that ends a stream
OVERRIDES: Final = {"DEMO_PAGE": "true", "MIN_UPDATE_INTERVAL": "0.2", "LOG_LEVEL": "error"}

PILED_UP_MAX = 10  # of some forty values, five a second


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system() -> AsyncGenerator[System]:
    """One system for all of these, with a market that moves."""
    options = simulator_options(ACCOUNTS, 40, 30.0, 7)
    async with running(options, port=0, overrides=OVERRIDES) as started:
        await wait_known(started.url, ACCOUNTS, lambda _: None)
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chrome() -> AsyncGenerator[Browser]:
    """One browser for all of these."""
    async with chromium() as launched:
        yield launched


@pytest_asyncio.fixture(loop_scope="module")
async def view(chrome: Browser) -> AsyncGenerator[Page]:
    """A page in a context of its own; an error in it fails the test."""
    context = await chrome.new_context(viewport={"width": 1280, "height": 900})
    page = await context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    await context.close()
    assert errors == []


async def first_account(system: System) -> str:
    """One of the accounts."""
    return (await system.oracle.account_ids())[0]


async def test_behaviour_20_at_quiet_every_text_equals_the_oracle(system: System, view: Page) -> None:
    """The server's own page, and the component that replaces the existing one, to the cent."""
    account_id = await first_account(system)
    await view.goto(f"{system.url}/#{account_id}")
    await state_of_page(view, "live")
    app = await view.context.new_page()
    await serve_files(app, system.url, built(APP), system.token_for(account_id))
    await app.goto(f"{system.url}/?account={account_id}")
    await system.oracle.pause()
    try:
        truth = (await system.oracle.truth())[account_id]
        equity, day_pnl = truth.figures["equity"], truth.figures["day_pnl"]
        await expect(view.locator("#total-value")).to_have_text(dollars(equity))
        gain = ("+" if float(day_pnl) > 0 else "") + dollars(day_pnl)
        await expect(view.locator("#gained")).to_contain_text(gain)
        await expect(view.locator("#cash")).to_have_text(dollars(truth.figures["cash"]))
        for page in (view, app):
            for symbol, value in truth.market_values.items():
                cell = page.locator(f'tr[data-symbol="{symbol}"] td[data-column=value] span')
                await expect(cell).to_have_text(dollars(value))
        headers = {"Authorization": f"Bearer {system.token_for(account_id)}"}
        async with httpx.AsyncClient(base_url=system.url, headers=headers) as client:
            texts = (await client.get(f"/v1/portfolio/{account_id}")).json()
        await expect(app.locator(".lp-total")).to_have_text(texts["total_value"])
        await expect(app.locator(".lp-gain")).to_have_text(texts["today_return"])
        assert texts["total_value"] == dollars(equity).replace(MINUS, "-")
        await view.click("#chart button:has-text('1M')")  # closed days from the broker, joined with today
        await expect(view.locator("#chart .lp-line")).to_have_attribute("d", re.compile(r"M.*[LM]"))
        await expect(view.locator("#chart .lp-reading")).to_contain_text("%")
        await view.locator("#chart .lp-plot").press("End")
        await expect(view.locator("#chart .lp-reading")).to_contain_text(dollars(equity))
    finally:
        await system.oracle.resume()


async def test_behaviour_8_a_server_that_stops_is_old_within_its_silence_and_replaced(
    system: System, view: Page
) -> None:
    """SIGSTOP: the sockets stay open and mute."""
    account_id = await first_account(system)
    dialled = watch_sockets(view)
    await open_client(view, system.url, token=system.token_for(account_id))
    await view.evaluate("id => { follow(id) }", account_id)
    await shows(view, account_id, status="live")
    server = system.pids["websocket_server"]
    os.kill(server, signal.SIGSTOP)
    try:
        await shows(view, account_id, status="old", deadline_ms=SILENCE_MS)
        assert await view.evaluate("id => now(id).equity", account_id) is not None, "the value stays, as old"
    finally:
        os.kill(server, signal.SIGCONT)
    await shows(view, account_id, status="live", deadline_ms=LIVE_MS)
    assert len(dialled) >= 2
    statuses = await view.evaluate("seen.map(({status}) => status)")
    assert "unknown" not in statuses[statuses.index("live") :]


async def test_a_calculator_that_falls_silent_is_named_on_the_screen(system: System, view: Page) -> None:
    """SIGSTOP: the connection lives, the value stays, and which hop brings nothing is said until it does."""
    account_id = await first_account(system)
    await view.goto(f"{system.url}/#{account_id}")
    await state_of_page(view, "live")
    calculator = system.pids["portfolio_calculator"]
    os.kill(calculator, signal.SIGSTOP)
    try:
        await state_of_page(view, "stale", LIVE_MS)
        await expect(view.locator("#connection-text")).to_have_text("Values are old")
        await expect(view.locator("#caveats")).to_contain_text("nothing new comes from the calculator")
        await expect(view.locator("#total-value")).to_contain_text("$")
    finally:
        os.kill(calculator, signal.SIGCONT)
    await state_of_page(view, "live", LIVE_MS)
    await expect(view.locator("#connection-text")).to_have_text("Live")
    await expect(view.locator("#caveats")).to_be_hidden()


async def test_behaviour_9_a_browser_that_slept_shows_nothing_old_as_live(
    system: System, view: Page, chrome: Browser
) -> None:
    """SIGSTOP of the renderer for longer than its clock bears; within 2 s of the wake it is live or old."""
    account_id = await first_account(system)
    await open_client(view, system.url, token=system.token_for(account_id))
    await view.evaluate("id => { follow(id) }", account_id)
    await shows(view, account_id, status="live")
    session = await chrome.new_browser_cdp_session()
    processes: Any = await session.send("SystemInfo.getProcessInfo")
    renderers = [process["id"] for process in processes["processInfo"] if process["type"] == "renderer"]
    await view.evaluate("seen.length = 0")
    for renderer in renderers:
        os.kill(renderer, signal.SIGSTOP)
    await asyncio.sleep(8)
    for renderer in renderers:
        os.kill(renderer, signal.SIGCONT)
    await shows(view, account_id, status="live")
    statuses: list[str] = await view.evaluate("seen.map(({status}) => status)")
    # either its timer wakes first, or what has piled up comes first: then only the newest of it is shown
    assert "old" in statuses or len(statuses) <= PILED_UP_MAX, "what was there before the sleep was live"
    assert len(statuses) < 40, "each value that had piled up was shown"


async def test_behaviour_10_without_a_network_the_value_is_old_and_flapping_costs_one_socket(
    system: System, view: Page
) -> None:
    """Chromium stalls frames and keeps the socket open; ten short losses, then a long one."""
    account_id = await first_account(system)
    dialled = watch_sockets(view)
    await open_client(view, system.url, token=system.token_for(account_id))
    await view.evaluate("id => { follow(id) }", account_id)
    await shows(view, account_id, status="live")
    for _ in range(10):
        await view.context.set_offline(True)
        await asyncio.sleep(0.1)
        await view.context.set_offline(False)
        await asyncio.sleep(0.1)
    await shows(view, account_id, status="live")
    assert len(dialled) <= 2, "a flap is no reason to dial"
    await view.context.set_offline(True)
    await shows(view, account_id, status="old", deadline_ms=SILENCE_MS)
    await view.context.set_offline(False)
    await shows(view, account_id, status="live", deadline_ms=LIVE_MS)


async def test_behaviour_11_a_token_is_renewed_on_the_same_socket(
    system: System, view: Page, until: Until
) -> None:
    """A token of 32 s warns at once; the next one is asked for then, and nothing is dialled."""
    account_id = await first_account(system)
    dialled = watch_sockets(view)
    sent: list[str] = []
    view.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(str(frame))))
    short, fresh = (token(system.jwt_secret, "renewed", [account_id], seconds) for seconds in (32, 600))
    await open_client(view, system.url, token=short)
    await view.evaluate("id => { follow(id) }", account_id)
    await shows(view, account_id, status="live")
    await view.evaluate("token => { window.token = token }", fresh)
    await until(lambda: any(fresh in frame for frame in sent), "the fresh token is sent")
    await shows(view, account_id, status="live")
    assert len(dialled) == 1
    assert not any(secret in dialled[0] for secret in (short, fresh))


async def test_behaviour_7_what_no_websocket_reaches_is_reached_by_http(system: System, view: Page) -> None:
    """Sockets that are cut at once: server-sent events show the value within seconds."""
    account_id = await first_account(system)
    await view.route_web_socket("**/ws/**", lambda socket: asyncio.ensure_future(socket.close(code=4000)))
    await open_client(view, system.url, token=system.token_for(account_id))
    await view.evaluate("id => { follow(id) }", account_id)
    await shows(view, account_id, status="live", transport="sse")


async def test_behaviour_7_the_websocket_that_works_again_takes_over(system: System, view: Page) -> None:
    """Half a minute later, which the page's clock jumps over in steps; its stream lives on meanwhile."""
    account_id = await first_account(system)
    is_cut = True

    async def cut(socket: WebSocketRoute) -> None:
        if is_cut:
            await socket.close(code=4000)
        else:
            socket.connect_to_server()

    await view.clock.install()
    await view.route_web_socket("**/ws/**", cut)
    await open_client(view, system.url, token=system.token_for(account_id))
    await view.evaluate("id => { follow(id) }", account_id)
    await shows(view, account_id, status="live", transport="sse")
    is_cut = False
    await view.evaluate("seen.length = 0")
    for _ in range(4):
        await view.clock.fast_forward(CLIMB_STEP_MS)
        count = await view.evaluate("seen.length")
        await view.wait_for_function("count => seen.length > count", arg=count)
    await shows(view, account_id, status="live", transport="websocket", deadline_ms=LIVE_MS)
    statuses = await view.evaluate("seen.map(({status}) => status)")
    # the jumps of the clock may outrun what the stream brings; a symbol just bought has no price yet
    assert set(statuses) <= {"live", "partial", "old"}, "its value was never taken away"


async def test_behaviour_17_five_tabs_on_the_fallback_all_live(system: System, chrome: Browser) -> None:
    """Browsers allow six HTTP connections to a host, over all tabs."""
    account_id = await first_account(system)
    context = await chrome.new_context()
    tabs = [await context.new_page() for _ in range(5)]
    for tab in tabs:
        await open_client(tab, system.url, 'transports: ["sse"]', system.token_for(account_id))
        await tab.evaluate("id => { follow(id) }", account_id)
    for tab in tabs:
        await shows(tab, account_id, status="live", transport="sse")
    await context.close()


async def test_behaviour_14_a_server_that_is_killed_leaves_the_value_as_old_then_live(
    system: System, view: Page, until: Until
) -> None:
    """kill -9; the supervisor starts another, and at no moment is there no figure."""
    account_id = await first_account(system)
    await view.goto(f"{system.url}/#{account_id}")
    await state_of_page(view, "live")
    await view.evaluate(
        """() => {
          window.shown = [];
          const total = document.querySelector("#total-value");
          new MutationObserver(() => window.shown.push(total.textContent))
            .observe(total, {childList: true, characterData: true, subtree: true});
        }"""
    )
    before = system.pids["websocket_server"]
    os.kill(before, signal.SIGKILL)
    await state_of_page(view, "old")
    await until(
        lambda: system.pids.get("websocket_server") not in (None, before), "another server is started"
    )
    await state_of_page(view, "live", LIVE_MS)
    assert "—" not in await view.evaluate("window.shown")
