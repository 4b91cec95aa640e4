import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createAllocation, createDayChart, createPositionsTable } from "../src/dom/index.js";
import { averageCost, gainRatio, sorted } from "../src/dom/rows.js";
import { createSeries, pieces, ticks } from "../src/dom/series.js";
import { createFixedPortfolio, portfolioMessage, states } from "../src/testing/index.js";
import { Stage, pass, withFakeClock } from "./stage.js";

withFakeClock();

const FORBIDDEN_TEXTS = /NaN|null|undefined|Infinity|\[object/;
let container: HTMLElement;

beforeEach(() => {
  container = document.body.appendChild(document.createElement("div"));
  vi.spyOn(Element.prototype, "getBoundingClientRect").mockReturnValue({ width: 600, height: 200, left: 0, top: 0 } as DOMRect);
});
afterEach(() => container.remove());

const row = (symbol: string, quantity: string, mark: string | null, value: string | null) => ({
  symbol, quantity, mark, market_value: value, day_pnl: value && "1.00", unrealized_pnl: value && "5.00", mark_quality: "iex",
});

const cells = (column: string) => [...container.querySelectorAll<HTMLElement>("tbody tr:not([hidden])")].map((line) => line.querySelector(`[data-column="${column}"] span`)?.textContent);

describe("the table of positions", () => {
  it.each(Object.entries(states))("behaviour 3: in the state %s nothing is invented", (_, snapshot) => {
    const view = createPositionsTable(container, { client: createFixedPortfolio({ alice: snapshot }), accountId: "alice" });
    expect(container.textContent).not.toMatch(FORBIDDEN_TEXTS);
    expect(container.querySelectorAll("tbody tr")).toHaveLength(snapshot.positions.size);
    view.destroy();
    expect(container.childElementCount).toBe(0);
  });

  it("behaviour 4: what has no price is named and has dashes", () => {
    createPositionsTable(container, { client: createFixedPortfolio({ alice: states.everything }), accountId: "alice" });
    const line = container.querySelector('[data-symbol="NEWCO"]');
    expect(line?.textContent).toContain("no price");
    const texts = ["mark", "cost", "value", "weight", "day", "total"].map((column) => line?.querySelector(`[data-column="${column}"] span`)?.textContent);
    expect(texts).toEqual(["—", "—", "—", "—", "—", "—"]);
    expect(container.querySelector('[data-symbol="AAPL"]')?.textContent).toContain("transferred");
  });

  it("says at once that an account holds nothing", async () => {
    const stage = new Stage();
    createPositionsTable(container, { client: stage.client, accountId: "alice" });
    await pass(150);
    expect(container.querySelector(".lp-empty")?.hasAttribute("hidden")).toBe(true);
    stage.server.send(portfolioMessage("alice", { positions: [] }));
    await pass(150);
    expect(container.querySelector(".lp-empty")?.hasAttribute("hidden")).toBe(false);
    expect(container.querySelector(".lp-scroll")?.hasAttribute("hidden")).toBe(true);
  });

  it("sorts by each column and back, and what is not known comes last", async () => {
    const stage = new Stage();
    createPositionsTable(container, { client: stage.client, accountId: "alice" });
    await pass(150);
    stage.server.send(portfolioMessage("alice", { positions: [row("B", "1", "10", "10.00"), row("A", "2", "20", "40.00"), row("C", "3", null, null)] }));
    await pass(150);
    expect(cells("symbol")).toEqual(["A", "B", "C"]);
    const head = container.querySelector<HTMLButtonElement>('thead [data-column="quantity"] button');
    head?.click();
    expect(cells("symbol")).toEqual(["C", "A", "B"]);
    expect(head?.parentElement?.getAttribute("aria-sort")).toBe("descending");
    head?.click();
    expect(cells("symbol")).toEqual(["B", "A", "C"]);
    container.querySelector<HTMLButtonElement>('thead [data-column="symbol"] button')?.click();
    expect(cells("symbol")).toEqual(["A", "B", "C"]);
  });

  it("a search finds symbols, options as they read, and names", async () => {
    const asked: string[] = [];
    const assets = [{ symbol: "AAPL", asset_class: "us_equity", name: "Apple Inc. Common Stock" }, { symbol: "AAPL251219C00150000", asset_class: "us_option" }];
    const stage = new Stage({ fetch: async (url) => (asked.push(String(url)), Response.json({ assets })) });
    createPositionsTable(container, { client: stage.client, accountId: "alice" });
    await pass(150);
    const rows = ["AAPL", "AAPL251219C00150000", ..."BCDEFGHIJ"].map((symbol) => row(symbol, "1", "1", "1.00"));
    stage.server.send(portfolioMessage("alice", { positions: rows }));
    await pass(150);
    const search = container.querySelector<HTMLInputElement>("input[type=search]");
    const find = (text: string) => {
      if (search) search.value = text;
      search?.dispatchEvent(new Event("input"));
      return cells("symbol");
    };
    expect(search?.closest("[hidden]")).toBeNull();
    expect(find("apple")).toEqual(["AAPL"]);
    expect(container.querySelector('[data-symbol="AAPL"] small')?.textContent).toBe("Apple Inc.");
    expect(asked).toEqual(["http://localhost:8001/v1/portfolio/alice/assets"]);
    expect(find("150 call")).toEqual(["AAPL 19 Dec 2025 150 call"]);
    expect(find("zzz")).toEqual([]);
    expect(container.textContent).toContain("No position matches “zzz”");
    expect(find("")).toHaveLength(11);
  });

  it("behaviour 16: only rows that changed are written", async () => {
    const stage = new Stage();
    createPositionsTable(container, { client: stage.client, accountId: "alice" });
    await pass(150);
    const all = Array.from({ length: 1000 }, (_, index) => row(`S${index}`, "1", "1", "1.00"));
    stage.server.send(portfolioMessage("alice", { positions: all }));
    await pass(150);
    const touched = new Set<string | undefined>();
    const watching = new MutationObserver((records) => {
      for (const { target } of records) touched.add((target instanceof Element ? target : target.parentElement)?.closest("tr")?.dataset.symbol);
    });
    watching.observe(container, { subtree: true, childList: true, characterData: true, attributes: true });
    stage.server.send(portfolioMessage("alice", { positions: [row("S7", "1", "2", "2.00"), row("S8", "1", "0.5", "0.50")] }));
    await pass(150);
    expect([...touched].filter(Boolean).sort()).toEqual(["S7", "S8"]);
    expect(container.querySelector('[data-symbol="S7"] [data-flash]')?.getAttribute("data-flash")).toMatch(/^up/);
    expect(container.querySelector('[data-symbol="S8"] [data-flash]')?.getAttribute("data-flash")).toMatch(/^down/);
  });

  it("behaviour 16: when every row changes they are written some milliseconds a frame, and none is left", async () => {
    const stage = new Stage();
    createPositionsTable(container, { client: stage.client, accountId: "alice" });
    await pass(150);
    const all = (mark: string) => portfolioMessage("alice", { positions: Array.from({ length: 100 }, (_, index) => row(`S${index}`, "1", mark, "1.00")) });
    stage.server.send(all("1.00"));
    await pass(150);
    const { now } = Date;
    let lateMs = 0;
    vi.spyOn(Date, "now").mockImplementation(() => now() + lateMs++); // each look at the clock is a millisecond later
    stage.server.send(all("2.00"));
    const written: number[] = [];
    for (let frame = 0; frame < 60; frame++) {
      await pass(16);
      written.push(cells("mark").filter((text) => text === "$2.00").length);
    }
    const most = Math.max(...written.map((count, index) => count - (written[index - 1] ?? 0)));
    expect(most).toBeGreaterThan(1);
    expect(most).toBeLessThan(10);
    expect(written.at(-1)).toBe(100);
  });

  it("weights come back with the total in every row, not only in those that changed", async () => {
    const stage = new Stage();
    createPositionsTable(container, { client: stage.client, accountId: "alice" });
    await pass(150);
    const rows = [row("A", "1", "10", "10.00"), row("B", "2", "20", "40.00")];
    const weights = async (sequence: number, equity: string | null) => {
      stage.server.send(portfolioMessage("alice", { sequence, equity, positions: rows }));
      await pass(150);
      return cells("weight");
    };
    expect(await weights(1, "50.00")).toEqual(["80.00%", "20.00%"]);
    expect(await weights(2, null)).toEqual(["—", "—"]);
    expect(await weights(3, "50.00")).toEqual(["80.00%", "20.00%"]);
  });

  it("one number of decimals in a column, and a price that would vanish is whole", async () => {
    const stage = new Stage();
    createPositionsTable(container, { client: stage.client, accountId: "alice" });
    await pass(150);
    stage.server.send(portfolioMessage("alice", { positions: [row("A", "1", "270.155", "270.16"), row("B", "1.5", "3", "4.50"), row("C", "9", "0.00001234", "0.00")] }));
    await pass(150);
    expect(cells("mark").sort()).toEqual(["$0.00001234", "$270.1550", "$3.0000"]);
    expect(cells("quantity").sort()).toEqual(["1.0", "1.5", "9.0"]);
  });

  it("zeros at the end are no decimals: whole numbers are written whole", async () => {
    const stage = new Stage();
    createPositionsTable(container, { client: stage.client, accountId: "alice" });
    await pass(150);
    const bought = (quantity: string) => portfolioMessage("alice", { sequence: quantity.length, positions: [row("A", "33.0000", "270.1200", "8913.96"), row("B", quantity, "3.5004", "7.00")] });
    stage.server.send(bought("2"));
    await pass(150);
    expect(cells("quantity").sort()).toEqual(["2", "33"]);
    expect(cells("mark").sort()).toEqual(["$270.12", "$3.50"]);
    expect(container.querySelector("[data-symbol=A] [data-holding]")?.getAttribute("data-holding")).toBe("33 × $270.12");
    stage.server.send(bought("2.50000"));
    await pass(150);
    expect(cells("quantity").sort()).toEqual(["2.5", "33.0"]);
  });
});

it("average cost, gains in percent, and an order that does not depend on where rows came from", () => {
  expect(averageCost(row("A", "2", "20", "40.00"))).toBe(17.5);
  expect(averageCost(row("AAPL251219C00150000", "1", "2.5", "250.00"))).toBe(2.45);
  expect(averageCost(row("A", "-2", "20", "-40.00"))).toBe(22.5);
  expect(averageCost(row("A", "0", "20", "0.00"))).toBeNaN();
  expect(gainRatio(row("A", "2", "20", "41.00"), "1.00")).toBe(0.025);
  expect(gainRatio(row("A", "0", "20", "0.00"), "1.00")).toBeNaN();
  expect(sorted([row("B", "1", "1", "1.00"), row("A", "1", "1", "1.00")], "value", true).map(({ symbol }) => symbol)).toEqual(["A", "B"]);
});

describe("the line of values", () => {
  const point = (minute: number, equity: string | null, flow = "0.00") => ({ timestamp: `2026-11-20T15:0${minute}:00.000000Z`, equity, external_cash_flow: flow, day_pnl: equity && "1.00" });

  it("gaps stay gaps, a deposit is no step, and the live end joins without being doubled", () => {
    const series = createSeries();
    series.add({ ...portfolioMessage("alice"), equity: "100.00", timestamp: "2026-11-20T15:01:30.000000Z" });
    series.add({ ...portfolioMessage("alice"), equity: "107.00", timestamp: "2026-11-20T15:05:30.000000Z" });
    series.take({ base: "90.00", points: [point(0, null), point(1, "100.00"), point(2, null), point(3, "102.00"), point(4, "602.00", "500.00")] }, "1d", null);
    expect(pieces(series.points).map((piece) => piece.map(({ level }) => level))).toEqual([[100], [102, 102, 107]]);
    expect(series.base).toBe(90);
  });

  it("beyond the day flows count from the base, also in what comes live, and a flow that nobody knows is a gap", () => {
    const series = createSeries();
    const now = { ...portfolioMessage("alice"), last_equity: "1200.00", equity: "1257.00", external_cash_flow: "50.00", timestamp: "2026-11-20T15:05:00.000000Z" };
    const points = [point(0, "1000.00", "0.00"), { ...point(1, "1100.00"), external_cash_flow: null }, point(2, "1200.00", "200.00"), point(4, "1205.00", "200.00")];
    series.take({ base: "990.00", points, revision: "r1", is_whole: true }, "1m", now);
    series.add(now); // 50 were brought in since the newest point
    expect(series.points.map(({ level }) => level)).toEqual([1000, null, 1000, 1005, 1007]);
  });

  it("in the day what was brought in since the newest minute is no gain either", () => {
    const series = createSeries();
    const now = { ...portfolioMessage("alice"), last_equity: "990.00", equity: "1101.00", external_cash_flow: "100.00", timestamp: "2026-11-20T15:05:00.000000Z" };
    series.take({ base: "990.00", points: [point(0, "1000.00", "0.00")] }, "1d", now);
    series.add(now);
    expect(series.points.map(({ level }) => level)).toEqual([1000, 1001]);
  });

  it("asks only for what is new, and takes it behind what was there", () => {
    const series = createSeries();
    expect(series.since).toBe("");
    series.take({ base: "90.00", points: [point(0, "91.00"), point(1, "92.00")], revision: "r1", is_whole: true }, "1d", null);
    expect(series.since).toBe("&since=2026-11-20T15%3A01%3A00.000000Z&revision=r1");
    series.take({ base: "90.00", points: [point(2, "93.00")], revision: "r1", is_whole: false }, "1d", null);
    expect(series.points.map(({ level }) => level)).toEqual([91, 92, 93]);
    series.take({ base: "90.00", points: [point(2, "94.00")], revision: "r2", is_whole: true }, "1d", null);
    expect(series.points.map(({ level }) => level)).toEqual([94]);
  });

  it("levels are round and inside", () => {
    expect(ticks(103_912, 104_388, 4)).toEqual([104_000, 104_200]);
    expect(ticks(0, 1, 4)).toEqual([0, 0.25, 0.5, 0.75, 1]);
    expect(ticks(5, 5, 4).length).toBeGreaterThan(0);
  });

  const PATH = "/v1/portfolio/alice/history?range=1d";
  const HISTORY = { account_id: "alice", range: "1d", timeframe: "1Min", base: "90.00", points: [point(0, "91.00"), point(1, null), point(2, "93.00"), point(3, "94.00")] };

  it("is drawn in as many pieces as are known, with the last close, a scale and percentages", async () => {
    createDayChart(container, { client: createFixedPortfolio({}, { [PATH]: HISTORY }), accountId: "alice" });
    await pass(10);
    expect(container.querySelector(".lp-line")?.getAttribute("d")?.match(/M/g)).toHaveLength(2);
    expect(Number(container.querySelector(".lp-base")?.getAttribute("y1"))).toBeGreaterThan(0);
    const scale = [...container.querySelectorAll(".lp-scale text")].map((text) => text.textContent);
    expect(scale).toContain("$92");
    expect(scale.filter((text) => text?.startsWith("$")).map((text) => text?.includes("."))).not.toContain(true);
    expect(scale).toContain("+2.22%");
  });

  it("a percentage of today counts what was brought in, as the account's own does", async () => {
    const value = { ...portfolioMessage("alice"), last_equity: "100.00", external_cash_flow: "100.00", day_pnl: "10.00", day_pnl_ratio: 0.05, equity: "210.00" };
    const day = { ...HISTORY, base: "100.00", points: [point(1, "205.00", "100.00"), point(3, "210.00", "100.00")] };
    createDayChart(container, { client: createFixedPortfolio({ alice: { ...states.live, value } }, { [PATH]: day }), accountId: "alice" });
    await pass(10);
    const plot = container.querySelector(".lp-plot") as SVGElement;
    plot.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", cancelable: true })); // nothing was pointed at: the newest
    expect(container.querySelector(".lp-reading")?.textContent).toBe("$210.00 +$10.00 (+5.00%)");
  });

  it("says why it does not end at the total, when something was brought in or taken out", async () => {
    const caption = async (flow: string) => {
      const day = { ...HISTORY, points: [point(1, "205.00", flow), point(3, "210.00", flow)] };
      const { destroy } = createDayChart(container, { client: createFixedPortfolio({}, { [PATH]: day }), accountId: "alice" });
      await pass(10);
      const text = container.querySelector("figcaption")?.textContent;
      destroy();
      return text;
    };
    expect(await caption("100.00")).toBe("Today, without deposits and withdrawals");
    expect(await caption("0.00")).toBe("Today");
  });

  it("behaviour 18: keys read it value by value, Escape leaves it, and a table says the same", async () => {
    createDayChart(container, { client: createFixedPortfolio({}, { [PATH]: HISTORY }), accountId: "alice" });
    await pass(10);
    const plot = container.querySelector(".lp-plot") as SVGElement;
    const press = (key: string) => {
      plot.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
      return plot.getAttribute("aria-valuetext");
    };
    expect(press("Home")).toContain("$91.00");
    expect(press("ArrowRight")).toContain("$93.00");
    expect(press("End")).toContain("$94.00");
    expect(press("ArrowLeft")).toContain("$93.00");
    expect(press("Escape")).toContain("3 values");
    const details = container.querySelector("details") as HTMLDetailsElement;
    details.open = true;
    details.dispatchEvent(new Event("toggle"));
    expect([...container.querySelectorAll("tbody td:nth-child(2)")].map((cell) => cell.textContent)).toEqual(["$91.00", "not known", "$93.00", "$94.00"]);
  });

  it("a range that cannot be had is said, and the others stay", async () => {
    createDayChart(container, { client: createFixedPortfolio({}, { [PATH]: HISTORY }), accountId: "alice" });
    await pass(10);
    [...container.querySelectorAll<HTMLButtonElement>(".lp-choice button")].find((button) => button.textContent === "1Y")?.click();
    await pass(10);
    expect(container.querySelector(".lp-reading")?.textContent).toBe("The past cannot be shown now");
    container.querySelector<HTMLButtonElement>(".lp-choice button")?.click();
    await pass(10);
    expect(container.querySelector("[data-empty]")).toBeNull();
  });
});

it("the allocation goes by the broker's classes, until they are known by how symbols look", async () => {
  const positions = new Map([row("AAPL", "1", "5", "500.00"), row("AAPL1", "1", "3", "300.00"), row("T30", "1", "1", "100.00"), row("BTC/USD", "1", "1", "100.00")].map((one) => [one.symbol, one]));
  const snapshot = { ...states.live, value: { ...states.live.value, cash: "0.00" }, positions } as unknown as typeof states.live;
  const assets = [["AAPL", "us_equity"], ["AAPL1", "us_option"], ["T30", "us_treasury"], ["BTC/USD", "crypto"]].map(([symbol, asset_class]) => ({ symbol, asset_class }));
  createAllocation(container, { client: createFixedPortfolio({ alice: snapshot }, { "/v1/portfolio/alice/assets": { assets } }), accountId: "alice" });
  const slices = () => [...container.querySelectorAll("li")].map((slice) => slice.textContent);
  expect(slices()).toEqual(["Stocks and funds90.00%", "Crypto10.00%"]);
  await pass(10);
  expect(slices()).toEqual(["Stocks and funds50.00%", "Options30.00%", "Others10.00%", "Crypto10.00%"]);
});

it.each(Object.entries(states))("behaviour 3: the allocation in the state %s", (_, snapshot) => {
  const view = createAllocation(container, { client: createFixedPortfolio({ alice: snapshot }), accountId: "alice", by: "symbol" });
  expect(container.textContent).not.toMatch(FORBIDDEN_TEXTS);
  view.destroy();
  expect(container.childElementCount).toBe(0);
});
