"""The pictures of README, from the page itself: `make screenshots` writes docs/images/page-*.png.

A demo with a minute of history for each second, so that the line has something to tell.
"""

import argparse
import asyncio
import re
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser, async_playwright, expect

from benchmarks.page import BROWSER_OPTIONS
from portfolio_harness.system import running, simulator_options, wait_known

FOLDER: Final = Path("docs/images")
SETTINGS: Final = {
    "DEMO_PAGE": "true",
    "MIN_UPDATE_INTERVAL": "0.5",
    "HISTORY_INTERVAL": "1",
    "LOG_LEVEL": "error",
}
ACCOUNTS: Final = 4
PICTURES: Final[tuple[tuple[str, int, str, str], ...]] = (
    ("page-light", 1280, "light", "1D"),
    ("page-dark", 1280, "dark", "1Y"),
    ("page-phone", 390, "light", "1M"),
)
DEADLINE_MS: Final = 90_000
HEIGHTS: Final = {1280: 860, 390: 860}


async def take(browser: Browser, url: str, folder: Path) -> None:
    """All pictures of one page."""
    for name, width, scheme, span in PICTURES:
        options: dict[str, Any] = {
            "color_scheme": scheme,
            "reduced_motion": "reduce",  # no number in the middle of a flash
            "viewport": {"width": width, "height": HEIGHTS[width]},
        }
        page = await browser.new_page(**options)
        await page.goto(url)
        await expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        await page.click(f"#chart button:has-text('{span}')")
        await expect(page.locator(".lp-line")).to_have_attribute("d", re.compile("(L.*){15}"))
        await page.screenshot(path=folder / f"{name}.png")
        print(folder / f"{name}.png")
        await page.close()


async def run(folder: Path, seconds: float) -> None:
    """A system, `seconds` of its day, then the pictures."""
    expect.set_options(timeout=DEADLINE_MS)
    chromium = shutil.which("chromium") or sys.exit("no browser: apt-get install chromium")
    quiet = ("--activities-per-second", "0")  # a dividend of the simulator is a cliff in the line
    options = (*simulator_options(ACCOUNTS, 60, 60.0, 11), "--past-days", "400", *quiet)
    async with running(options, port=0, overrides=SETTINGS) as system, async_playwright() as playwright:
        await wait_known(system.url, ACCOUNTS, lambda _: None)
        browser = await playwright.chromium.launch(executable_path=chromium, args=BROWSER_OPTIONS)
        page = await browser.new_page()
        await page.goto(system.url)  # somebody has to watch, so that there is something to remember
        await asyncio.sleep(seconds)
        truths = await system.oracle.truth()
        account_id = max(truths, key=lambda one: len(truths[one].market_values))
        await take(browser, f"{system.url}/#{account_id}", folder)
        await browser.close()


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--seconds", type=float, default=90, help="of the day, before the pictures")
    given = parser.parse_args()
    asyncio.run(run(given.folder, given.seconds))


if __name__ == "__main__":
    main()
