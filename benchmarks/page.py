"""What live values cost a browser: our table, the same table as commonly written, and an idle page.

`make bench-page`: 100 rows, 50 messages a second (ARGS="--rows 1000 --changed 1000 --per-second 2": all of a
thousand rows, twice a second), in turn in one Chromium: script time for each message,
renders against frames, rows that were written without having changed, and the heap after a forced collection.
"""

import argparse
import asyncio
import contextlib
import functools
import http
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from playwright.async_api import Browser, CDPSession, async_playwright
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from benchmarks.provenance import provenance

PACKAGE: Final = Path(__file__).parents[1] / "frontend-app" / "packages" / "live-portfolio"
BROWSER_OPTIONS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
KINDS: Final = ("idle", "common", "ours")
CHANGED: Final = 2  # rows in each message, unless said otherwise
WARM_UP_S: Final = 3.0
SHARE_MAX: Final = 0.25  # of the common way's script time
HEAP_GROWTH_MAX: Final = 1.1
MUTED: Final = {"mark_source": "iex", "mark_as_of": "2026-11-20T15:04:05.000000Z", "mark_quality": "iex"}

# How long each message and each frame keeps the thread, by the wall clock: a busy machine makes it longer.
WATCH_TURNS: Final = """
(() => {
  window.turns = [];
  const timed = (run) => function (...given) {
    const from = performance.now();
    try { return run.apply(this, given) } finally { window.turns.push(performance.now() - from) }
  };
  const frame = window.requestAnimationFrame.bind(window);
  window.rawFrame = frame;
  window.requestAnimationFrame = (run) => frame(timed(run));
  const {get, set} = Object.getOwnPropertyDescriptor(WebSocket.prototype, "onmessage");
  const setTimed = function (run) { set.call(this, run && timed(run)) };
  Object.defineProperty(WebSocket.prototype, "onmessage", {get, set: setTimed});
})()
"""
WATCH_FRAMES: Final = """
() => {
  window.frames_ = 0;
  const count = () => { window.frames_++; window.rawFrame(count) };
  window.rawFrame(count);
}
"""
WATCH_ROWS: Final = """
() => {
  window.written = new Map();
  new MutationObserver((records) => {
    for (const {target} of records) {
      const at = target instanceof Element ? target : target.parentElement;
      const name = at?.closest("tbody tr")?.querySelector("th span, th")?.textContent;
      const cell = at?.closest("td,th")?.dataset.column;
      if (name && cell !== "weight") window.written.set(name, (window.written.get(name) ?? 0) + 1);
    }
  }).observe(document.body, {subtree: true, childList: true, characterData: true});
}
"""


class Feed:
    """Says what a server would: first all rows, then `changed` of them in each message."""

    def __init__(self, folder: Path, rows: int, per_second: float, changed: int) -> None:
        self._folder = folder
        self._rows = rows
        self.changed = min(changed, rows)
        self._interval_s = 1 / per_second
        self.sent = 0

    def page(self, _connection: ServerConnection, request: Request) -> Response | None:
        """The pages and their scripts; None for a WebSocket."""
        path = request.path.split("?")[0]
        if path.startswith("/ws/"):
            return None
        name = path.strip("/")
        file = self._folder / name
        if file.suffix == ".js" and file.is_file():
            return _answer(file.read_bytes(), "text/javascript")
        script = f'<script type="module" src="/{name}.js"></script>' if name != "idle" else ""
        return _answer(
            f"<!doctype html><title>{name}</title><div id=root></div>{script}".encode(), "text/html"
        )

    async def talk(self, socket: ServerConnection) -> None:
        """One client, until it goes."""
        rng = random.Random(7)
        prices = {f"SYM{number}": 100.0 + number for number in range(self._rows)}
        reading = asyncio.ensure_future(_acknowledge(socket))
        due_s = time.monotonic()
        with contextlib.suppress(Exception):
            await socket.send(_message(1, prices, list(prices)))
            for sequence in range(2, 1_000_000):
                changed = rng.sample(sorted(prices), self.changed)
                for symbol in changed:
                    prices[symbol] = round(prices[symbol] * (1 + rng.uniform(-0.001, 0.001)), 4)
                await socket.send(_message(sequence, prices, changed))
                self.sent += 1
                due_s += self._interval_s
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        reading.cancel()


async def _acknowledge(socket: ServerConnection) -> None:
    async for text in socket:
        message = json.loads(text)
        if message["type"] == "heartbeat":
            await socket.send(json.dumps({"type": "heartbeat_ack", "timestamp": message["timestamp"]}))


def _answer(body: bytes, kind: str) -> Response:
    headers = Headers({"Content-Type": kind, "Content-Length": str(len(body))})
    return Response(http.HTTPStatus.OK, "OK", headers, body)


def _message(sequence: int, prices: dict[str, float], changed: list[str]) -> str:
    value = sum(10 * price for price in prices.values())
    rows = [
        {
            "symbol": symbol,
            "quantity": "10",
            "mark": f"{prices[symbol]:.4f}",
            **MUTED,
            "previous_close": "100",
            "market_value": f"{10 * prices[symbol]:.2f}",
            "day_pnl": f"{10 * prices[symbol] - 1000:.2f}",
            "unrealized_pnl": f"{10 * prices[symbol] - 900:.2f}",
        }
        for symbol in changed
    ]
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    figures = {"cash": "0.00", "last_equity": "100000.00", "external_cash_flow": "0.00"}
    texts = {
        "total_value": f"${value:,.2f}",
        "today_return": "+$1.00 (+0.00%)",
        "as_of": now,
        "timestamp": now,
    }
    known = {"equity": f"{value:.2f}", "day_pnl": f"{value - 100000:.2f}", "day_pnl_ratio": 0.01}
    head = {"type": "portfolio", "account_id": "bench", "epoch": 1, "sequence": sequence, "record_as_of": now}
    return json.dumps({**head, **known, **figures, **texts, "stale": [], "unpriced": [], "positions": rows})


async def _metrics(session: CDPSession) -> dict[str, float]:
    answer: Any = await session.send("Performance.getMetrics")
    return {one["name"]: one["value"] for one in answer["metrics"]}


async def _heap_bytes(session: CDPSession) -> float:
    await session.send("HeapProfiler.collectGarbage")
    return (await _metrics(session))["JSHeapUsedSize"]


async def measure(browser: Browser, url: str, kind: str, feed: Feed, duration_s: float) -> dict[str, Any]:
    """One page for `duration_s`."""
    page = await browser.new_page(viewport={"width": 1280, "height": 900})
    await page.add_init_script(WATCH_TURNS)
    await page.goto(f"{url}/{kind}")
    session = await page.context.new_cdp_session(page)
    # by the thread's own clock: time in which a busy machine runs something else is nobody's script
    await session.send("Performance.enable", {"timeDomain": "threadTicks"})
    if kind != "idle":
        await page.wait_for_selector("tbody tr:nth-child(100)")
    await page.evaluate(WATCH_FRAMES)
    await asyncio.sleep(WARM_UP_S)
    heap_before = await _heap_bytes(session)
    before, sent, started_s = await _metrics(session), feed.sent, time.monotonic()
    frames, renders = await page.evaluate("window.turns.length = 0, [window.frames_, window.renders ?? 0]")
    await asyncio.sleep(duration_s / 2)
    heap_half_way = await _heap_bytes(session)
    await asyncio.sleep(duration_s / 2)
    after, messages = await _metrics(session), feed.sent - sent
    frames_after, renders_after = await page.evaluate("[window.frames_, window.renders ?? 0]")
    elapsed_s = time.monotonic() - started_s
    turns = sorted(await page.evaluate("window.turns"))
    heap_after = await _heap_bytes(session)
    rows: dict[str, int] = {}
    if kind != "idle":
        await page.evaluate(WATCH_ROWS)
        sent_before_rows = feed.sent
        await asyncio.sleep(2)
        rows = {"rows_written": await page.evaluate("[...window.written.values()].length")}
        rows["rows_changed_at_most"] = feed.changed * (feed.sent - sent_before_rows + 2)
    await page.close()
    script_s = after["ScriptDuration"] - before["ScriptDuration"]
    return {
        "messages": messages,
        "messages_per_s": round(messages / elapsed_s, 1),
        "script_ms": round(1000 * script_s, 1),
        "script_ms_per_message": round(1000 * script_s / messages, 4) if messages else None,
        "turn_ms_p99": round(turns[int(0.99 * len(turns))], 2) if turns and kind == "ours" else None,
        "task_ms": round(1000 * (after["TaskDuration"] - before["TaskDuration"]), 1),
        "frames_per_s": round((frames_after - frames) / elapsed_s, 1),
        "renders_per_frame": round((renders_after - renders) / max(1, frames_after - frames), 3),
        "heap_bytes_before": int(heap_before),
        "heap_growth": round(heap_after / heap_before, 3),
        "heap_growth_second_half": round(heap_after / heap_half_way, 3),
        **rows,
    }


@contextlib.asynccontextmanager
async def served(rows: int, per_second: float, changed: int) -> AsyncGenerator[tuple[Feed, str]]:
    """The pages, built, and the feed behind them."""
    node = shutil.which("node", path=str(Path(sys.executable).parent)) or "node"
    with TemporaryDirectory() as folder:
        building = [node, "bench/build.mjs", folder]
        await asyncio.to_thread(subprocess.run, building, cwd=PACKAGE, check=True, timeout=60)
        feed = Feed(Path(folder), rows, per_second, changed)
        listening = functools.partial(serve, feed.talk, "127.0.0.1", 0, process_request=feed.page)
        async with listening(compression=None) as server:
            yield feed, f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def run(duration_s: float, rows: int, per_second: float, changed: int) -> dict[str, Any]:
    """All kinds in turn in one browser, and the verdict."""
    chromium = shutil.which("chromium") or sys.exit("no browser: apt-get install chromium")
    results: dict[str, Any] = {}
    async with served(rows, per_second, changed) as (feed, url), async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=BROWSER_OPTIONS)
        for kind in KINDS:
            print(f"{kind}: {duration_s:g} s", file=sys.stderr, flush=True)
            results[kind] = await measure(browser, url, kind, feed, duration_s)
        await browser.close()
    ours, common = results["ours"], results["common"]
    idle_ms = results["idle"]["script_ms"]  # what counting frames costs, and the page itself
    net = [(one["script_ms"] - idle_ms) / one["messages"] for one in (ours, common)]
    share = net[0] / net[1]
    results["script_ms_per_message_above_idle"] = {"ours": round(net[0], 4), "common": round(net[1], 4)}
    results["share_of_common_script_time"] = round(share, 3)
    results["is_good"] = (
        share <= SHARE_MAX
        and ours["renders_per_frame"] <= 1
        and ours["heap_growth"] <= HEAP_GROWTH_MAX
        and ours["rows_written"] <= ours["rows_changed_at_most"]
    )
    return results


def main() -> None:
    """Print JSON; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration", type=float, default=60, help="seconds for each page")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--per-second", type=float, default=50, help="messages")
    parser.add_argument("--changed", type=int, default=CHANGED, help="rows in each message")
    parser.add_argument("--data", type=Path, help="where to keep the figures, with where they are from")
    given = parser.parse_args()
    results = asyncio.run(run(given.duration, given.rows, given.per_second, given.changed))
    print(json.dumps(results, indent=2))
    if given.data:
        given.data.write_text(json.dumps({**provenance(), **results}, indent=2) + "\n")
    sys.exit(0 if results["is_good"] else 1)


if __name__ == "__main__":
    main()
