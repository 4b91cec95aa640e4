"""frontend-app and the package in a browser, and what was written for another server against ours."""

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.state import State
from portfolio_realtime.state.connection import Connection
from tests.conftest import Until
from tests.frontend.conftest import OpenPage
from tests.frontend.stage import (
    APP,
    INVENTED,
    axe_violations,
    built,
    open_client,
    serve_files,
    shows,
    watch_sockets,
)
from tests.support.lagging import late
from tests.support.websocket_servers import (
    Calculator,
    Served,
    bearer,
    receive_until,
    serving,
    token,
    write_accounts,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXISTING: Final = Path(__file__).with_name("existing_component.js")
TOLD: Final = "JSON.stringify(events.map((told) => told.error ? [`${told.error}`, {...told.error}] : told))"
PLACES: Final = (("de-DE", "Asia/Tokyo"), ("ar-EG", "America/Los_Angeles"), ("en-US", "Europe/London"))
WAYS: Final = ({"color_scheme": "light"}, {"color_scheme": "dark"}, {"forced_colors": "active"})


@pytest_asyncio.fixture(loop_scope="module")
async def served(calculator: Calculator, valkey_url: str) -> AsyncGenerator[Served]:
    """A server that wants tokens, and takes them in the address, as the existing component sends them."""
    async with serving(valkey_url, allow_token_in_url=True, demo_page=True) as started:
        yield started


def origin(server: Served) -> str:
    """Where it is."""
    return f"http://127.0.0.1:{server.port}"


def both() -> str:
    """A token for both accounts."""
    return token(accounts=["alice-1", "bob-2"])


async def open_app(page: Page, server: Served, path: str) -> None:
    """The app under the server's own origin."""
    await serve_files(page, origin(server), built(APP), both())
    await page.goto(f"{origin(server)}{path}")


async def test_behaviour_1_every_component_of_an_account_shares_one_socket(
    served: Served, calculator: Calculator, page: Page, until: Until
) -> None:
    """Five components of the app; once they are gone, so is the socket."""
    await calculator.publish("alice-1", 1, {"AAPL": "10"}, equity="100.00")
    dialled = watch_sockets(page)
    await open_app(page, served, "/?account=alice-1")
    await expect(page.locator(".lp-total")).to_have_text("$100.00")
    await expect(page.locator("tr[data-symbol=AAPL]")).to_be_visible()
    assert len(dialled) == 1
    closed: list[bool] = []
    await page.evaluate("() => { window.marker = true }")
    page.on("websocket", lambda socket: socket.on("close", lambda _: closed.append(True)))
    await page.click("text=States")
    await expect(page.locator("#state-live")).to_be_visible()
    assert await page.evaluate("window.marker"), "the page was loaded again, so this proves nothing"
    metrics = "portfolio_realtime_connections{"

    async def is_nobody_there() -> bool:
        lines = (await served.http.get("/metrics")).text.splitlines()
        return not any(line.startswith(metrics) and not line.endswith(" 0.0") for line in lines)

    await until(is_nobody_there, "the server has no connection any more")
    assert len(dialled) == 1


async def test_behaviour_2_a_b_a_never_shows_the_other_s_figure(
    served: Served, calculator: Calculator, page: Page
) -> None:
    """The overview follows both on one socket; each row has its own figure, and so has the account's page."""
    await calculator.publish("alice-1", 1, {}, equity="100.00")
    await calculator.publish("bob-2", 1, {}, equity="7.00", total_value="$7.00")
    dialled = watch_sockets(page)
    await open_app(page, served, "/overview/?accounts=alice-1,bob-2,nobody-3")
    rows = page.locator("tbody tr")
    await expect(rows.nth(0)).to_contain_text("$100.00")
    await expect(rows.nth(1)).to_contain_text("$7.00")
    await expect(rows.nth(2)).to_contain_text("No access")
    await expect(page.locator(".total")).to_have_text("Known part $107.00")
    await expect(page.locator(".hint")).to_have_text("Without nobody-3")
    await page.evaluate(
        """() => {
          window.shown = [];
          new MutationObserver(() => {
            const heading = document.querySelector("#value-of-account")?.textContent ?? "";
            const total = document.querySelector(".lp-total")?.textContent;
            if (total && heading) window.shown.push(`${heading} ${total}`);
          }).observe(document.body, {childList: true, characterData: true, subtree: true});
        }"""
    )
    for account_id, total in (("alice-1", "$100.00"), ("bob-2", "$7.00"), ("alice-1", "$100.00")):
        await page.click(f'a:has-text("{account_id}")')
        await expect(page.locator(".lp-total")).to_have_text(total)
        await page.go_back()
        await expect(rows.nth(1)).to_contain_text("$7.00")
    shown = await page.evaluate("window.shown")
    assert shown
    assert not [text for text in shown if "alice" in text and "$7.00" in text]
    assert not [text for text in shown if "bob" in text and "$100.00" in text]
    assert len(dialled) == 1


async def test_behaviour_14_a_server_on_another_port_takes_over(
    page: Page, calculator: Calculator, valkey_url: str
) -> None:
    """Two addresses, of which the first goes away: old, then live from the second, never unknown."""
    await calculator.publish("alice-1", 1, {}, equity="100.00")
    async with serving(valkey_url) as second:
        async with serving(valkey_url) as first:
            urls = f'url: ["{origin(first)}", "{origin(second)}"]'
            await open_client(page, origin(first), urls, both())
            await page.evaluate("() => { follow('alice-1') }")
            await shows(page, "alice-1", status="live", equity="100.00")
            dialled = watch_sockets(page)
        await calculator.publish("alice-1", 2, {}, equity="101.00")
        await shows(page, "alice-1", status="live", equity="101.00", deadline_ms=60_000)
        assert f":{second.port}/" in dialled[-1]
    statuses = await page.evaluate("seen.map(({status}) => status)")
    after = statuses[statuses.index("live") :]
    assert "old" in after
    assert "unknown" not in after


async def keep_publishing(calculator: Calculator) -> None:
    """One value after the other, each a dollar more."""
    for sequence in itertools.count(2):
        await calculator.publish("alice-1", sequence, {}, equity=f"{sequence}.00")
        await asyncio.sleep(0.05)


async def test_behaviour_14_a_server_that_lags_never_takes_the_screen_back(
    page: Page, calculator: Calculator, valkey_url: str, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """Of two servers the current one goes: the other says that it is behind, and sends nothing older."""
    await calculator.publish("alice-1", 1, {}, equity="1.00")
    path, headers = "/ws/portfolio/alice-1", bearer(accounts=["alice-1"])
    async with serving(valkey_url) as current, contextlib.AsyncExitStack() as stack:
        is_heard = asyncio.Event()
        is_heard.set()
        monkeypatch.setattr(Connection, "follow", late(Connection.follow, is_heard))
        lagging = await stack.enter_async_context(serving(valkey_url, has_signs=False))
        publishing = asyncio.create_task(keep_publishing(calculator))
        stack.push_async_callback(cancel_until_ended, [publishing])
        resident = await stack.enter_async_context(lagging.open(path, headers))
        await receive_until(resident, 5)  # from then on it has only what it hears
        await open_client(page, origin(current), f'url: ["{origin(current)}", "{origin(lagging)}"]', both())
        await page.evaluate("() => { follow('alice-1') }")
        await shows(page, "alice-1", status="live")
        is_heard.clear()
        shown = await page.evaluate("seen.length")
        await page.wait_for_function("shown => seen.length > shown + 3", arg=shown)
        told: list[str] = []
        dialled = watch_sockets(page)
        page.on("websocket", lambda one: one.on("framereceived", lambda frame: told.append(str(frame))))
        await current.stop()
        await until(lambda: any("server" in frame for frame in told), "it says that it is behind", 60)
        is_heard.set()
        await until(lambda: any('"portfolio"' in frame for frame in told), "it has caught up", 60)
        await shows(page, "alice-1", status="live")
    sequences = await page.evaluate("seen.map(({value}) => value?.sequence ?? 0)")
    assert sequences == sorted(sequences)
    sent = json.loads(next(frame for frame in told if '"portfolio"' in frame))["sequence"]
    seen = re.search(r"epoch=\d+&sequence=(\d+)", dialled[-1])
    assert seen is not None, "it says what it has seen"
    assert sent >= int(seen[1]), "nothing older is sent"


async def test_behaviour_15_no_locale_and_no_zone_breaks_the_hydration(
    served: Served, calculator: Calculator, open_page: OpenPage
) -> None:
    """What the build rendered is what each browser renders first: a dash."""
    await calculator.publish("alice-1", 1, {"AAPL": "10"}, equity="100.00")
    for locale, zone in PLACES:
        page = await open_page(locale=locale, timezone_id=zone)
        said: list[str] = []
        page.on("console", lambda message, said=said: said.append(message.text))
        await open_app(page, served, "/?account=alice-1")
        await expect(page.locator(".lp-total")).to_have_text("$100.00")
        await page.goto(f"{origin(served)}/states/")
        await expect(page.locator("#live .lp-total")).to_have_text("$104,211.37")
        assert said == [], f"{locale}, {zone}"
    html = (built(APP) / "states" / "index.html").read_text()
    assert "—" in html
    assert "104,211" not in html


async def axe_violations_when_narrow_and_large(page: Page) -> list[str]:
    """At 320 px, with text of its own size, then twice as large; nothing is wider than the screen."""
    await page.set_viewport_size({"width": 320, "height": 900})
    found = await axe_violations(page)
    await page.evaluate("document.documentElement.style.fontSize = '200%'")
    found += await axe_violations(page)
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.evaluate("document.documentElement.style.fontSize = ''")
    await page.set_viewport_size({"width": 1280, "height": 900})
    return found


async def test_behaviours_3_4_and_18_every_state_of_every_component(
    served: Served, calculator: Calculator, open_page: OpenPage
) -> None:
    """Nothing is invented, nothing is wider than the screen, axe finds nothing: the states and the app."""
    await calculator.publish("alice-1", 1, {f"SYM{n}": "2" for n in range(12)}, equity="100.00")
    for options in WAYS:
        page = await open_page(**options)
        await open_app(page, served, "/states/")
        await expect(page.locator("#everything .lp-total")).to_have_text("—")
        await expect(page.locator("#everything [data-symbol=NEWCO]")).to_contain_text("no price")
        assert "$0.00" not in await page.locator("#everything [data-symbol=NEWCO]").inner_text()
        text = await page.evaluate("document.querySelector('main').textContent")
        assert INVENTED.search(text) is None
        for name in ("unknown", "unreachable", "denied", "signedOut", "partial"):
            assert "$0.00" not in await page.locator(f"#{name} .lp-value").inner_text()
        for width in (320, 1280):
            await page.set_viewport_size({"width": width, "height": 900})
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{width} px"
        assert await axe_violations(page) == []
        assert await axe_violations_when_narrow_and_large(page) == []
        await page.goto(f"{origin(served)}/overview/")
        assert await axe_violations(page) == []
        await page.goto(f"{origin(served)}/?account=alice-1")
        await expect(page.locator("tr[data-symbol]")).to_have_count(12)
        assert await axe_violations(page) == []
        assert await axe_violations_when_narrow_and_large(page) == []


async def test_the_overview_adds_up_what_is_known_of_each_account(
    served: Served, calculator: Calculator, page: Page
) -> None:
    """An account with an unpriced position gives its known part, and is named until its price is there."""
    await calculator.publish("alice-1", 1, {}, equity="100.00")
    unpriced = {"total_value": "—", "today_return": "—", "day_pnl": None, "unpriced": ["X"]}
    await calculator.publish("bob-2", 1, {}, equity=None, known_equity="7.05", **unpriced)
    await open_app(page, served, "/overview/?accounts=alice-1,bob-2")
    await expect(page.locator(".total")).to_have_text("Known part $107.05")
    await expect(page.locator(".hint")).to_have_text("Not all is priced in bob-2")
    await calculator.publish("bob-2", 2, {}, equity="8.00", total_value="$8.00")
    await expect(page.locator(".total")).to_have_text("Total $108.00")
    await expect(page.locator(".hint")).to_have_count(0)


async def test_the_app_calls_an_account_by_its_number(
    page: Page, served: Served, calculator: Calculator, state: State
) -> None:
    """The broker's number in the overview, in what is missing, and on the account's own page."""
    await state.account_numbers.write({"alice-1": "900000012"})
    await calculator.publish("bob-2", 1, {}, equity="7.00")
    await open_app(page, served, "/overview/?accounts=alice-1,bob-2")
    await expect(page.locator("tbody th")).to_have_text(["900000012", "bob-2"])
    await expect(page.locator(".hint")).to_have_text("Without 900000012")
    await page.click('a:has-text("900000012")')
    await expect(page.locator("#value-of-account")).to_have_text("Account 900000012")


async def test_the_overview_carries_more_accounts_than_one_connection(
    page: Page, served: Served, calculator: Calculator, state: State
) -> None:
    """65 accounts on two sockets: each is live, and the total is of all."""
    account_ids = [f"many-{number}" for number in range(65)]
    await write_accounts(state, *account_ids)
    for account_id in account_ids:
        await calculator.publish(account_id, 1, {}, equity="2.00", total_value="$2.00")
    dialled = watch_sockets(page)
    await serve_files(page, origin(served), built(APP), token(accounts=account_ids))
    await page.goto(f"{origin(served)}/overview/?accounts={','.join(account_ids)}")
    await expect(page.locator("tbody tr[data-status=live]")).to_have_count(65)
    await expect(page.locator(".total")).to_have_text("Total $130.00")
    assert len(dialled) == 2


async def test_the_overview_shows_what_one_request_brings_until_each_account_is_live(
    page: Page, served: Served, calculator: Calculator
) -> None:
    """Sockets that open and say nothing: the figures are there, as old, and what is missing is named."""
    await calculator.publish("alice-1", 1, {}, equity="100.00")
    await page.route_web_socket("**/ws", lambda socket: socket.on_message(lambda _: None))
    await open_app(page, served, "/overview/?accounts=alice-1,bob-2")
    await expect(page.locator(".total")).to_have_text("Known part $100.00")
    await expect(page.locator("tbody tr").nth(0)).to_have_attribute("data-status", "old")
    await expect(page.locator("tbody tr").nth(0)).to_contain_text("$100.00")
    await expect(page.locator(".hint")).to_have_text("Without bob-2")


async def test_behaviour_18_axe_finds_nothing_on_the_server_s_own_page(
    served: Served, calculator: Calculator, open_page: OpenPage
) -> None:
    """Light, dark and forced colours, at 320 px with text twice as large, under the page's own CSP."""
    await calculator.publish(
        "alice-1", 1, {f"SYM{n}": "2" for n in range(12)}, stale=["SYM1"], stale_ages_s={"SYM1": 99}
    )
    for options in WAYS:
        page = await open_page(**options)
        await page.goto(f"{origin(served)}/#alice-1")
        await expect(page.locator("#positions tbody tr")).to_have_count(12)
        assert await axe_violations(page) == []
        await page.click("#pause")
        await expect(page.locator("#connection")).to_have_attribute("data-state", "old")
        await page.set_viewport_size({"width": 320, "height": 900})
        await page.evaluate("document.documentElement.style.fontSize = '200%'")
        assert await axe_violations(page) == []


async def run_existing(page: Page, server: Served, shown: str, **options: Any) -> None:
    """The existing component on a blank page of the server's origin; its state is `window.state`."""
    await serve_files(page, origin(server), built(APP))
    await page.goto(f"{origin(server)}/blank")
    await page.evaluate(f"{EXISTING.read_text()};undefined")
    given = {"url": f"ws://127.0.0.1:{server.port}", "accountId": "alice-1", "token": shown, **options}
    await page.evaluate(
        """given => {
          const readByHttp = async () => {
            const headers = {Authorization: `Bearer ${given.bearer}`};
            return (await fetch(`/api/portfolio/value?accountId=${given.accountId}`, {headers})).json();
          };
          window.state = existing({...given, readByHttp});
        }""",
        given,
    )


async def test_behaviour_20_the_existing_component_runs_as_it_is(
    served: Served, calculator: Calculator, page: Page
) -> None:
    """With ALLOW_TOKEN_IN_URL: the right value, and a dash where a position has no price."""
    await calculator.publish("alice-1", 1, {"AAPL": "10"}, equity="100.00")
    await run_existing(page, served, token(accounts=["alice-1"]))
    await page.wait_for_function("state.total === '$100.00' && state.color === 'green'")
    unpriced = {"total_value": "—", "today_return": "—", "day_pnl": None, "unpriced": ["AAPL"]}
    await calculator.publish("alice-1", 2, {"AAPL": "10"}, equity=None, known_equity="10.00", **unpriced)
    await page.wait_for_function("state.total === '—' && state.gained === '—'")
    assert await page.evaluate("state.sockets") == 1


async def test_behaviour_20_a_refused_token_does_not_make_the_existing_component_dial_in_a_loop(
    served: Served, calculator: Calculator, page: Page
) -> None:
    """It is refused before the upgrade, so it gives up after its repeats and asks by HTTP."""
    await calculator.publish("alice-1", 1, {"AAPL": "10"}, equity="100.00")
    await run_existing(page, served, "no.good.token", bearer=token(accounts=["alice-1"]), repeatMs=50)
    await page.wait_for_function("state.total === '$100.00'")
    await page.wait_for_timeout(1_000)
    assert await page.evaluate("[state.sockets, state.isPolling]") == [2, True]


async def test_bad_input_is_a_state_and_an_event_never_an_exception(
    served: Served, open_page: OpenPage
) -> None:
    """Ids, addresses, callbacks and tokens that are none."""
    page = await open_page()
    await open_client(page, origin(served), token="no.good.token")
    await page.evaluate("follow('alice-1')")
    await shows(page, "alice-1", status="denied", code="unauthorized")
    await page.evaluate("follow('a b/../c')")
    await shows(page, "a b/../c", status="failed", code="invalid_account_id")
    for options, code in (
        ('url: "nonsense"', "invalid_url"),
        ('getToken: () => { throw new Error("secret") }', "token_unavailable"),
    ):
        other = await open_page()
        await open_client(other, origin(served), options, both())
        await other.evaluate("follow('alice-1')")
        await shows(other, "alice-1", code=code)
        assert "secret" not in await other.evaluate(TOLD)
    told = await page.evaluate(TOLD)
    assert '"unauthorized"' in told
    assert re.search(r"no\.good|127\.0\.0\.1", told) is None
