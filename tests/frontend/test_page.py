"""The server's own page: values appear and change; what is not sure is said, nothing is invented."""

import asyncio
import re
import time
from decimal import Decimal

import pytest
from playwright.async_api import Page, expect

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.model import US_EQUITY, Account, Bookings, MinuteMark, Position
from portfolio_realtime.state import State
from portfolio_realtime.websocket_server.fanout import publication_follower
from tests.frontend.conftest import OpenPage
from tests.support.websocket_servers import Calculator, Served, serving, token, write_accounts

pytestmark = pytest.mark.asyncio(loop_scope="module")

WATCH_TEXTS = """
() => {
  window.shown = [];
  const total = document.querySelector("#total-value");
  new MutationObserver(() => window.shown.push(total.textContent)).observe(total, {childList: true, characterData: true, subtree: true});
}
"""  # noqa: E501  # as it would stand in a page


async def state_of_page(page: Page, state: str) -> None:
    """Wait until the page says that its figures are in this state."""
    await expect(page.locator("#connection")).to_have_attribute("data-state", state)


async def test_a_value_appears_changes_and_flashes(demo: Served, calculator: Calculator, page: Page) -> None:
    """From the publication to the pixels."""
    await calculator.publish("alice-1", 1, {"AAPL": "10", "MSFT": "-2"}, equity="100.00")
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    await state_of_page(page, "live")
    await expect(page.locator("#total-value")).to_have_text("$100.00")
    await expect(page.locator("#today-return")).to_contain_text("+$10.00 (+11.11%)")
    await expect(page.locator("#positions tbody tr")).to_have_count(2)
    await expect(page.locator("#positions tr[data-symbol=MSFT]")).to_contain_text("−2")
    await calculator.publish("alice-1", 2, {"AAPL": "11"}, equity="101.00")
    await expect(page.locator("#total-value")).to_have_text("$101.00")
    await expect(page.locator("#total-value")).to_have_attribute("data-flash", re.compile("^up"))
    await expect(page.locator("#positions tbody tr")).to_have_count(1)
    await calculator.publish("alice-1", 3, {"AAPL": "11"}, equity="99.00")
    await expect(page.locator("#total-value")).to_have_attribute("data-flash", re.compile("^down"))
    await expect(page).to_have_title("$99.00 · Portfolio")


async def test_behaviour_2_another_account_can_be_chosen(
    demo: Served, calculator: Calculator, page: Page
) -> None:
    """Nothing of the first remains, at no moment."""
    await calculator.publish("alice-1", 1, {"AAPL": "10"}, equity="100.00")
    await calculator.publish("bob-2", 1, {}, equity="7.00")
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    await expect(page.locator("#total-value")).to_have_text("$100.00")
    await page.evaluate(WATCH_TEXTS)
    await page.select_option("#account", "bob-2")
    await expect(page.locator("#total-value")).to_have_text("$7.00")
    await expect(page.locator("#positions tbody tr")).to_have_count(0)
    await expect(page.locator("#positions")).to_contain_text("No positions in this account.")
    shown = await page.evaluate("window.shown")
    assert shown[0] in ("—", "$7.00"), "the first account's value may not stand under the second"
    assert "$100.00" not in shown


async def test_an_account_is_called_by_its_number(
    demo: Served, calculator: Calculator, state: State, page: Page
) -> None:
    """By the broker, else by the beginning of its id; the account of the address is chosen."""
    long_id = "0d18ae51-6a5c-4a5e-9b1c-0a8f6d3c2b1a"
    await write_accounts(state, long_id)
    await state.account_numbers.write({"bob-2": "900000012"})
    await calculator.publish("alice-1", 1, {}, equity="1.00")
    await calculator.publish("bob-2", 1, {}, equity="7.00")
    await page.goto(f"http://127.0.0.1:{demo.port}/#bob-2")
    await expect(page.locator("#total-value")).to_have_text("$7.00")
    await expect(page.locator("#account option")).to_have_text(["0d18ae51…", "alice-1", "900000012"])
    await expect(page.locator("#account")).to_have_value("bob-2")


async def test_behaviour_14_a_lost_connection_is_said_and_mended(
    calculator: Calculator, page: Page, valkey_url: str
) -> None:
    """Reconnecting while the server is away, live when another listens on its port."""
    await calculator.publish("alice-1", 1, {"AAPL": "10"}, equity="100.00")
    async with serving(valkey_url, demo_page=True) as first:
        await page.goto(f"http://127.0.0.1:{first.port}/")
        await state_of_page(page, "live")
        port = first.port
    await state_of_page(page, "old")
    await expect(page.locator("#total-value")).to_have_text("$100.00")
    await expect(page.locator("#notice")).to_contain_text("The server cannot be reached; trying again.")
    await expect(page.locator("#connection")).to_contain_text("from ")
    await calculator.publish("alice-1", 2, {"AAPL": "10"}, equity="102.00")
    async with serving(valkey_url, demo_page=True, websocket_port=port):
        await state_of_page(page, "live")
        await expect(page.locator("#total-value")).to_have_text("$102.00")
        await expect(page.locator("#notice")).to_be_hidden()


async def test_behaviour_4_old_missing_and_unknown_figures_are_said(
    demo: Served, calculator: Calculator, page: Page
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
    await state_of_page(page, "partial")
    await expect(page.locator("#total-label")).to_have_text("Known part of the total")
    await expect(page.locator("#total-value")).to_have_text("$90.00")
    await expect(page.locator("#today-return")).to_contain_text("Gain not known")
    await expect(page.locator("#caveats li")).to_have_text(
        [
            "No price for X; everything else is worth $90.00",
            "Moved in or out at an unknown value: NEW; the day's gain is not known",
            "Old prices: AAPL (2 h), NEW (59 s)",
        ]
    )
    tags = {"AAPL": ["2 h old"], "NEW": ["59 s old", "transferred"], "OLD": ["closed today"]}
    for symbol, said in tags.items():
        await expect(page.locator(f"tr[data-symbol={symbol}] .lp-tag")).to_have_text(said)
    await expect(page.locator("#position-count")).to_have_text("· 2")
    text = await page.evaluate("document.body.textContent")
    assert not re.search(r"NaN|null|undefined", text)


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
    await state.accounts.write(lease, [account], [bookings])
    for before, price in enumerate(reversed(prices)):
        at_ns = now_ns - before * minute_ns
        mark = {"AAPL": MinuteMark(price, at_ns)}
        await state.minutes.write(lease, at_ns, US_EQUITY, mark, is_whole=True)
    await state.leases.release(lease)


async def test_the_day_so_far_is_drawn_then_goes_on_live(
    demo: Served, calculator: Calculator, page: Page, state: State
) -> None:
    """The minutes that are known, then what is published; pointing at it tells the figures."""
    await write_day(state, "alice-1", [float(price) for price in range(1, 11)])
    await calculator.publish("alice-1", 1, {"AAPL": "1"}, equity="120.00", timestamp=utc(time.time()))
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    line = page.locator("#chart .lp-line")
    await expect(line).to_have_attribute("d", re.compile(r"^M[^M]*$"))  # one piece
    drawn = await line.get_attribute("d")
    assert drawn is not None
    assert 9 <= drawn.count("L") <= 11, "nine or ten minutes and the live value"
    await calculator.publish("alice-1", 2, {"AAPL": "1"}, equity="121.00", timestamp=utc(time.time()))
    await expect(page.locator("#total-value")).to_have_text("$121.00")
    await expect(line).not_to_have_attribute("d", drawn)
    await page.hover("#chart .lp-plot", position={"x": 1, "y": 20})
    await expect(page.locator("#chart .lp-reading")).to_contain_text("$101.00 −$4.00 (−3.81%)")
    await page.locator("#chart .lp-plot").press("End")
    await expect(page.locator("#chart .lp-plot")).to_have_attribute(
        "aria-valuetext", re.compile(r"\$121\.00")
    )


async def test_a_day_that_cannot_be_had_is_said(demo: Served, calculator: Calculator, page: Page) -> None:
    """The value is live all the same."""
    await calculator.publish("alice-1", 1, {"AAPL": "10"}, equity="100.00")
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    await expect(page.locator("#total-value")).to_have_text("$100.00")
    await expect(page.locator("#chart .lp-reading")).to_have_text("The past cannot be shown now")
    height = "document.querySelector('#chart .lp-plot').getBoundingClientRect().height"
    await page.wait_for_function(f"{height} === 0", timeout=15_000)  # no empty place for it


def utc(seconds: float) -> str:
    """As the wire has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(seconds))


async def test_behaviour_16_of_a_thousand_rows_only_those_that_changed_are_written(
    page: Page, demo: Served, calculator: Calculator
) -> None:
    """Weights aside, which move with the whole account and are looked at once a second."""
    held = {f"SYM{number}": "1" for number in range(1000)}
    await calculator.publish("alice-1", 1, held, equity="100000.00")
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    await expect(page.locator("#positions tbody tr")).to_have_count(1000)
    await page.evaluate(
        """() => {
          window.touched = new Set();
          new MutationObserver((records) => {
            for (const {target} of records) {
              const cell = (target instanceof Element ? target : target.parentElement)?.closest("td, th");
              if (cell && cell.dataset.column !== "weight") window.touched.add(cell.closest("tr").dataset.symbol);
            }
          }).observe(document.querySelector("#positions tbody"), {subtree: true, childList: true, characterData: true, attributes: true});
        }"""  # noqa: E501  # as it would stand in a page
    )
    await calculator.publish("alice-1", 2, {**held, "SYM7": "2", "SYM900": "3"}, equity="100001.00")
    quantity = "td[data-column=quantity] span"
    await expect(page.locator(f"tr[data-symbol=SYM900] {quantity}")).to_have_text("3")
    await expect(page.locator("#total-value")).to_have_text("$100,001.00")
    assert sorted(await page.evaluate("[...touched]")) == ["SYM7", "SYM900"]


async def test_dark_mode_is_dark(demo: Served, page: Page) -> None:
    """The page follows the system's colours."""
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert await page.evaluate(ground) == "rgb(13, 18, 16)"
    await page.emulate_media(color_scheme="light")
    assert await page.evaluate(ground) == "rgb(243, 245, 243)"


async def test_behaviour_12_a_visitor_signs_in_is_refused_and_signs_out(
    calculator: Calculator, page: Page, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A form for account id and token; a refusal is said plainly, without an empty dashboard below it."""
    await calculator.publish("alice-1", 1, {"AAPL": "10"}, equity="100.00")
    monkeypatch.setattr(publication_follower, "UNKNOWN_S_MAX", 0.2)
    async with serving(valkey_url, jwt_secret="", api_key_secret="") as served:
        await page.goto(f"http://127.0.0.1:{served.port}/")
        await page.fill("#account-id", "nobody-3")
        await page.click("#sign-in button")
        await expect(page.locator("#notice")).to_contain_text("No such account, or it is not yours.")
        await state_of_page(page, "denied")
        await expect(page.locator("#dashboard")).to_be_hidden()
        await page.fill("#account-id", "alice-1")
        await page.click("#sign-in button")
        await expect(page.locator("#total-value")).to_have_text("$100.00")
        await expect(page.locator("#notice")).to_be_hidden()
        await expect(page.locator("#sign-in")).to_be_hidden()
        await expect(page.locator("#account option")).to_have_text(["alice-1", "bob-2"])
        await page.click("#sign-out")
        await expect(page.locator("#sign-in")).to_be_visible()
        assert "$100.00" not in await page.evaluate("document.body.textContent")


async def test_a_token_that_is_refused_is_said_so(
    calculator: Calculator, page: Page, valkey_url: str
) -> None:
    """It is not that nobody has signed in; and the form stays, to try another one."""
    await calculator.publish("alice-1", 1, {"AAPL": "10"}, equity="100.00")
    async with serving(valkey_url) as served:
        await page.goto(f"http://127.0.0.1:{served.port}/")
        await page.fill("#account-id", "alice-1")
        await page.fill("#token", "no.good.token")
        await page.click("#sign-in button")
        await expect(page.locator("#notice")).to_contain_text("The server does not accept these credentials.")
        await expect(page.locator("#dashboard")).to_be_hidden()
        await page.fill("#token", token(accounts=["alice-1"]))
        await page.click("#sign-in button")
        await expect(page.locator("#total-value")).to_have_text("$100.00")
        await expect(page.locator("#sign-in")).to_be_hidden()


SECONDS_OF_CHANGE = 60
WATCH_FRAMES = """
() => {
  window.frames_ = 0;
  window.touched = new Set();
  window.drawings = 0;
  const count = () => { window.frames_++; requestAnimationFrame(count) };
  requestAnimationFrame(count);
  new MutationObserver((records) => {
    window.drawings++;
    for (const {target} of records) {
      const cell = (target instanceof Element ? target : target.parentElement)?.closest("td, th");
      if (cell && cell.dataset.column !== "weight") window.touched.add(cell.closest("tr").dataset.symbol);
    }
  }).observe(document.querySelector("#positions tbody"), {subtree: true, childList: true, characterData: true});
}
"""  # noqa: E501  # as it would stand in a page


@pytest.mark.drill
async def test_behaviour_16_a_thousand_rows_change_twice_a_second_for_a_minute(
    page: Page, demo: Served, calculator: Calculator
) -> None:
    """At most one drawing a frame, rows that do not change are not written, and the heap stays flat."""
    still = {f"STILL{number}": "1" for number in range(100)}
    held = {**{f"SYM{number}": "1" for number in range(900)}, **still}
    await calculator.publish("alice-1", 1, held, equity="100000.00")
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    await expect(page.locator("#positions tbody tr")).to_have_count(1000)
    session = await page.context.new_cdp_session(page)
    await page.evaluate(WATCH_FRAMES)
    heaps: list[float] = []
    began_s = time.monotonic()
    sequence = 1
    while (elapsed_s := time.monotonic() - began_s) < SECONDS_OF_CHANGE:
        sequence += 1
        changed = {symbol: str(sequence) for symbol in held if symbol not in still}
        equity = f"{100000 + sequence}.00"
        await calculator.publish("alice-1", sequence, {**changed, **still}, equity=equity)
        if elapsed_s > len(heaps) * SECONDS_OF_CHANGE / 4:
            await session.send("HeapProfiler.collectGarbage")
            heaps.append((await session.send("Runtime.getHeapUsage"))["usedSize"])
        await asyncio.sleep(max(0.0, began_s + 0.5 * sequence - time.monotonic()))
    await expect(page.locator("#total-value")).to_have_text(f"${100000 + sequence:,}.00")
    frames, drawings, touched = await page.evaluate("[frames_, drawings, [...touched]]")
    assert 10 < drawings <= frames
    assert len(touched) == 900
    assert not still.keys() & set(touched)
    assert heaps[-1] <= 1.1 * heaps[1], heaps


async def test_a_pause_stops_everything_that_moves(demo: Served, calculator: Calculator, page: Page) -> None:
    """WCAG 2.2.2: what is shown stays, and says so."""
    await calculator.publish("alice-1", 1, {"AAPL": "10"}, equity="100.00")
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    await state_of_page(page, "live")
    await page.click("#pause")
    await expect(page.locator("#connection-text")).to_contain_text("Paused")
    await calculator.publish("alice-1", 2, {"AAPL": "10"}, equity="101.00")
    await expect(page.locator("#total-value")).to_have_text("$100.00")
    await page.click("#pause")
    await expect(page.locator("#total-value")).to_have_text("$101.00")
    await state_of_page(page, "live")


async def test_behaviour_18_a_total_is_spoken_now_and_then_not_at_each_change(
    demo: Served, calculator: Calculator, page: Page
) -> None:
    """A screen reader gets the first one, and for half a minute nothing more."""
    await calculator.publish("alice-1", 1, {"AAPL": "10"}, equity="100.00")
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    spoken = page.locator("#spoken[aria-live=polite]")
    await expect(spoken).to_contain_text("Total value $100.00, today")
    for sequence in (2, 3, 4):
        await calculator.publish("alice-1", sequence, {"AAPL": "10"}, equity=f"10{sequence}.00")
        await expect(page.locator("#total-value")).to_have_text(f"$10{sequence}.00")
    await expect(spoken).to_contain_text("Total value $100.00, today")


async def test_behaviour_18_many_positions_fit_every_width_and_can_be_sorted_and_searched(
    demo: Served, calculator: Calculator, open_page: OpenPage
) -> None:
    """200 positions; nothing is wider than the screen, from 320 px on, also with text twice as large."""
    held = {f"SYM{number}": str(number + 1) for number in range(200)}
    await calculator.publish("alice-1", 1, held, equity="1000000.00")
    page = await open_page(viewport={"width": 320, "height": 800})
    await page.goto(f"http://127.0.0.1:{demo.port}/")
    await expect(page.locator("#positions tbody tr")).to_have_count(200)
    for width in (320, 390, 768, 1280, 1920):
        for size in ("100%", "200%"):
            await page.set_viewport_size({"width": width, "height": 800})
            await page.evaluate("size => { document.documentElement.style.fontSize = size }", size)
            too_wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert too_wide <= 0, f"{too_wide} px beyond {width} px at {size}"
    await page.evaluate("document.documentElement.style.fontSize = ''")
    await page.click("th[data-column=quantity] button")
    await expect(page.locator("#positions tbody tr").first).to_have_attribute("data-symbol", "SYM199")
    await page.fill("#positions input[type=search]", "sym77")
    await expect(page.locator("#positions tbody tr:visible")).to_have_count(1)
