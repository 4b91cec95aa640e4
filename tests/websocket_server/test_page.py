"""The page in a real browser: a value appears, changes and flashes; the connection's state is honest."""

import re
import shutil
import time
from collections.abc import AsyncGenerator
from decimal import Decimal

import pytest
from playwright.async_api import Page, async_playwright, expect

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.model import US_EQUITY, Account, Bookings, MinuteMark, Position
from portfolio_realtime.state import State
from portfolio_realtime.websocket_server.fanout import publication_follower
from tests.interoperability.programs import lacking
from tests.websocket_server.served import Calculator, Served, serving, write_accounts

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DEADLINE_MS = 15_000

expect.set_options(timeout=DEADLINE_MS)


@pytest.fixture
async def page() -> AsyncGenerator[Page]:
    """A page of the machine's own Chromium in dark mode; an error in the page fails the test."""
    if CHROMIUM is None:
        lacking("no browser: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        opened = await browser.new_page(color_scheme="dark")
        errors: list[str] = []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.on(
            "console",
            lambda message: errors.append(message.text) if "Content Security" in message.text else None,
        )
        yield opened
        await browser.close()
        assert errors == []


@pytest.fixture
async def calculator(state: State) -> Calculator:
    """Publishes for two accounts."""
    await write_accounts(state, "alice-1", "bob-2")
    return Calculator(state)


@pytest.fixture
async def demo(calculator: Calculator, valkey_url: str) -> AsyncGenerator[Served]:
    """A server that serves the demo page."""
    async with serving(valkey_url, demo_page=True) as served:
        yield served


async def test_a_value_appears_changes_and_flashes(page: Page, demo: Served, calculator: Calculator) -> None:
    """From the publication to the pixels."""
    await calculator.publish("alice-1", 1, {"AAPL": "10", "MSFT": "-2"}, equity="100.00")
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    await expect(page.locator("#connection")).to_have_attribute("data-state", "live")
    await expect(page.locator("#total-value")).to_have_text("$100.00")
    await expect(page.locator("#today-return")).to_contain_text("+$10.00 (+11.11%)")
    await expect(page.locator("#positions tbody tr")).to_have_count(2)
    await expect(page.locator("#positions tbody tr").nth(1)).to_contain_text("−2")
    await calculator.publish("alice-1", 2, {"AAPL": "11"}, equity="101.00")
    await expect(page.locator("#total-value")).to_have_text("$101.00")
    await expect(page.locator("#total-value")).to_have_class("flash-up")
    await expect(page.locator("#positions tbody tr")).to_have_count(1)
    await calculator.publish("alice-1", 3, {"AAPL": "11"}, equity="99.00")
    await expect(page.locator("#total-value")).to_have_class("flash-down")


async def test_another_account_can_be_chosen(page: Page, demo: Served, calculator: Calculator) -> None:
    """Nothing of the first remains."""
    await calculator.publish("alice-1", 1, {"AAPL": "10"}, equity="100.00")
    await calculator.publish("bob-2", 1, {}, equity="7.00")
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    await expect(page.locator("#total-value")).to_have_text("$100.00")
    await page.select_option("#account", "bob-2")
    await expect(page.locator("#total-value")).to_have_text("$7.00")
    await expect(page.locator("#positions tbody tr")).to_have_count(0)
    await expect(page.locator("#no-positions")).to_be_visible()


async def test_a_lost_connection_is_said_and_mended(
    page: Page, calculator: Calculator, valkey_url: str
) -> None:
    """Reconnecting while the server is away, live when another listens on its port."""
    await calculator.publish("alice-1", 1, {"AAPL": "10"}, equity="100.00")
    async with serving(valkey_url, demo_page=True) as first:
        await page.goto(f"http://127.0.0.1:{first.port}/")
        await expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        port = first.port
    await expect(page.locator("#connection")).to_have_attribute("data-state", "reconnecting")
    await expect(page.locator("#total-value")).to_have_text("$100.00")
    await expect(page.locator("#notice")).to_contain_text("The server cannot be reached")
    await expect(page.locator("#notice")).to_contain_text("What you see is from")
    await calculator.publish("alice-1", 2, {"AAPL": "10"}, equity="102.00")
    async with serving(valkey_url, demo_page=True, websocket_port=port):
        await expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        await expect(page.locator("#total-value")).to_have_text("$102.00")
        await expect(page.locator("#notice")).to_be_hidden()


async def test_old_missing_and_unknown_figures_are_said(
    page: Page, demo: Served, calculator: Calculator
) -> None:
    """Each symbol with what is wrong about it, at the total and in its row."""
    await calculator.publish(
        "alice-1",
        1,
        {"AAPL": "10", "NEW": "1", "OLD": "0"},
        equity=None,
        total_value="—",
        known_equity="90.00",
        unpriced=["X"],
        stale=["AAPL", "NEW"],
        stale_ages_s={"AAPL": 7300, "NEW": 59},
        day_pnl=None,
        today_return="—",
        unvalued=["NEW"],
    )
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    await expect(page.locator("#connection")).to_have_attribute("data-state", "stale")
    await expect(page.locator("#total-value")).to_have_text("—")
    await expect(page.locator("#caveat")).to_have_text(
        "Unpriced: X; the known part is $90.00 · "
        "Moved in or out at a value that is not known: NEW; today is not known · "
        "Old prices: AAPL (2 h), NEW (59 s)"
    )
    rows = page.locator("#positions tbody tr")
    await expect(rows.nth(0).locator(".tag")).to_have_text(["2 h old"])
    await expect(rows.nth(1).locator(".tag")).to_have_text(["59 s old", "transferred"])
    await expect(rows.nth(2).locator(".tag")).to_have_text(["closed today"])
    await expect(page.locator("#position-count")).to_have_text("· 2")


async def write_day(state: State, account_id: str, prices: list[float]) -> None:
    """100 in cash and one AAPL, which had these prices at the last minutes; nothing is known before."""
    lease = await state.leases.acquire("symbol_collector")
    assert lease is not None
    held = Position("AAPL", US_EQUITY, Decimal(1), Decimal(1), Decimal(5))
    account = Account(
        account_id,
        *(2, "ACTIVE", "USD", Decimal(100), Decimal(105), "2026-11-20", Decimal(0), (held,), 0),
    )
    minute_ns = 60 * NS_PER_S
    now_ns = time.time_ns() // minute_ns * minute_ns
    bookings = Bookings(account_id, 2, now_ns - 30 * minute_ns, now_ns - 30 * minute_ns, ())
    await state.accounts.write_bookings(lease, [bookings])
    await state.accounts.write(lease, [account])
    for before, price in enumerate(reversed(prices)):
        at_ns = now_ns - before * minute_ns
        mark = {"AAPL": MinuteMark(price, at_ns)}
        await state.minutes.write(lease, at_ns, US_EQUITY, mark, is_whole=True)
    await state.leases.release(lease)


async def test_the_day_so_far_is_drawn_then_goes_on_live(
    page: Page, demo: Served, calculator: Calculator, state: State
) -> None:
    """The minutes that are known, then what is published; pointing at it tells the figures."""
    await write_day(state, "alice-1", [float(price) for price in range(1, 11)])
    await calculator.publish("alice-1", 1, {"AAPL": "1"}, equity="120.00", timestamp=utc(time.time()))
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    await expect(page.locator("#day-text")).to_have_text("Today, without deposits and withdrawals")
    line = page.locator("#day .line")
    await expect(line).to_have_attribute("d", re.compile(r"^M[^M]*$"))  # one piece
    drawn = await line.get_attribute("d")
    assert drawn is not None
    assert 9 <= drawn.count("L") <= 11, "nine or ten minutes and the live value"
    await calculator.publish("alice-1", 2, {"AAPL": "1"}, equity="121.00", timestamp=utc(time.time()))
    await expect(page.locator("#total-value")).to_have_text("$121.00")
    await expect(line).not_to_have_attribute("d", drawn)
    await page.hover("#line", position={"x": 1, "y": 20})
    await expect(page.locator("#day-text")).to_contain_text("$101.00, today −$4.00")


async def test_a_day_that_cannot_be_had_is_said(page: Page, demo: Served, calculator: Calculator) -> None:
    """The value is live all the same."""
    await calculator.publish("alice-1", 1, {"AAPL": "10"}, equity="100.00")
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    await expect(page.locator("#total-value")).to_have_text("$100.00")
    await expect(page.locator("#day-text")).to_have_text("The day so far cannot be shown now")


def utc(seconds: float) -> str:
    """As the wire has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(seconds))


async def test_dark_mode_is_dark(page: Page, demo: Served) -> None:
    """The page follows the system's colours."""
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert await page.evaluate(ground) == "rgb(14, 19, 17)"
    await page.emulate_media(color_scheme="light")
    assert await page.evaluate(ground) == "rgb(244, 245, 243)"


async def test_without_the_demo_a_visitor_names_the_account(
    page: Page, calculator: Calculator, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A form for account id and token; an account that does not exist is said plainly."""
    await calculator.publish("alice-1", 1, {"AAPL": "10"}, equity="100.00")
    monkeypatch.setattr(publication_follower, "UNKNOWN_S_MAX", 0.2)
    async with serving(valkey_url, jwt_secret="", api_key_secret="") as served:
        await page.goto(f"http://127.0.0.1:{served.port}/")
        await page.fill("#account-id", "nobody-3")
        await page.click("#sign-in button")
        await expect(page.locator("#notice")).to_have_text("There is no such account, or it is not yours.")
        await expect(page.locator("#connection")).to_have_attribute("data-state", "closed")
        await page.fill("#account-id", "alice-1")
        await page.click("#sign-in button")
        await expect(page.locator("#total-value")).to_have_text("$100.00")
