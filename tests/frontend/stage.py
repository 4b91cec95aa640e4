"""What the browser tests stand on: frontend-app under a server's own origin, and what a page shows."""

import mimetypes
import re
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page, Route, expect

from tests.interoperability.programs import lacking

FRONTEND: Final = Path(__file__).parents[2] / "frontend-app"
APP: Final = FRONTEND / "out"
PACKAGE: Final = FRONTEND / "packages" / "live-portfolio" / "dist"
AXE: Final = FRONTEND / "node_modules" / "axe-core" / "axe.min.js"
OF_SERVER: Final = re.compile(r"/(v1|ws|demo|health|api)/")
TOKEN_PATH: Final = "api/realtime-token"
BLANK: Final = "blank"
INVENTED: Final = re.compile(r"NaN|null|undefined|Infinity|\[object")
MINUS: Final = "−"


def built(path: Path) -> Path:
    """What `make app` has built; without it the test is skipped, in CI it fails."""
    if not path.exists():
        lacking(f"no {path.name}: make app")
    return path


async def serve_files(page: Page, origin: str, folder: Path, token: str | None = None) -> None:
    """Let a folder stand in for the page of a server, so that its own routes are of the same origin.

    `token` is what the back end of the app would give.
    """

    async def from_folder(route: Route) -> None:
        path = route.request.url.removeprefix(origin).split("?")[0].lstrip("/")
        if path == TOKEN_PATH:
            return await route.fulfill(status=200 if token else 401, json={"token": token})
        if OF_SERVER.match(f"/{path}"):
            return await route.continue_()
        if path == BLANK:
            return await route.fulfill(
                status=200, body="<!doctype html><title>blank</title>", content_type="text/html"
            )
        file = folder / path
        if file.is_dir():
            file = file / "index.html"
        if not file.is_file():
            return await route.fulfill(status=404, body="")
        kind = mimetypes.guess_type(file.name)[0] or "text/plain"
        return await route.fulfill(status=200, body=file.read_bytes(), headers={"Content-Type": kind})

    await page.route(f"{origin}/**", from_folder)


async def open_client(page: Page, origin: str, options: str = "", token: str | None = None) -> None:
    """A blank page of the server's origin with a client of the published package: `client`, `events`."""
    await serve_files(page, origin, built(PACKAGE))
    await page.goto(f"{origin}/{BLANK}")
    await page.evaluate(
        f"""async (token) => {{
          const {{ createLivePortfolio }} = await import("/index.js");
          window.events = [];
          window.token = token;
          window.client = createLivePortfolio({{
            url: location.origin, getToken: () => window.token, onEvent: (event) => window.events.push(event), {options}
          }});
          window.seen = [];
          window.follow = (accountId) => client.subscribe(accountId, () => window.seen.push(client.getSnapshot(accountId)));
          window.now = (accountId) => {{
            const {{ status, link, transport, value, error }} = client.getSnapshot(accountId);
            return {{ status, link, transport, equity: value?.equity ?? null, code: error?.code ?? null }};
          }};
        }}""",  # noqa: E501  # as it would stand in a page
        token,
    )


async def shows(page: Page, account_id: str, deadline_ms: int = 30_000, **expected: Any) -> None:
    """Wait until the client of `open_client` shows this."""
    wanted = {"id": account_id, "expected": expected}
    check = "({id, expected}) => Object.entries(expected).every(([name, is]) => now(id)[name] === is)"
    try:
        await page.wait_for_function(check, arg=wanted, timeout=deadline_ms, polling=20)
    except Exception as error:
        is_now = await page.evaluate("id => now(id)", account_id)
        raise AssertionError(f"wanted {expected}, is {is_now} after {deadline_ms} ms") from error


def watch_sockets(page: Page) -> list[str]:
    """Addresses of the WebSockets that a page dials, from now on."""
    dialled: list[str] = []
    page.on("websocket", lambda socket: dialled.append(socket.url))
    return dialled


async def axe_violations(page: Page) -> list[str]:
    """What axe-core finds, with where."""
    await page.evaluate(built(AXE).read_text() + ";undefined")
    found = await page.evaluate(
        """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
          .map(({id, nodes}) => `${id}: ${nodes.slice(0, 3).map(({html}) => html).join(" ")}`)"""
    )
    return list(found)


async def state_of_page(page: Page, state: str, timeout_ms: float | None = None) -> None:
    """Wait until the server's own page says that its figures are in this state."""
    place = page.locator("#connection")
    if timeout_ms is None:
        await expect(place).to_have_attribute("data-state", state)
    else:
        await expect(place).to_have_attribute("data-state", state, timeout=timeout_ms)


def dollars(cents_text: str) -> str:
    """A decimal text as a page shows money."""
    sign = MINUS if cents_text.startswith("-") else ""
    whole, fraction = cents_text.lstrip("-").split(".")
    return f"{sign}${int(whole):,}.{fraction}"
