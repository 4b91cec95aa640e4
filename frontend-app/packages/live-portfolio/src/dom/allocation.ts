import { money, percent, readableSymbol } from "../format.js";
import type { LivePortfolio, Snapshot } from "../types.js";
import { type Asset, createAssets } from "./assets.js";
import { choice, drawing, element, put, set } from "./elements.js";
import type { View } from "./table.js";

const SLICES_MAX = 8; // smaller ones are one
const CLASS_WORDS: Readonly<Record<string, string>> = { us_equity: "Stocks and funds", us_option: "Options", crypto: "Crypto" };
const REDRAW_MS = 1_000; // shares move slowly

export type AllocationBy = "class" | "symbol";

export interface AllocationOptions {
  readonly client: LivePortfolio;
  readonly accountId: string;
  readonly by?: AllocationBy | undefined;
  /** What a screen reader calls it; several on a page need different ones. */
  readonly label?: string | undefined;
}

interface Slice {
  readonly name: string;
  readonly cents: number;
}

/** Where the money is: a bar and its legend, by asset class or by symbol. Debts and short positions are named, not drawn. */
export function createAllocation(container: HTMLElement, { client, accountId, by = "class", label = "Allocation" }: AllocationOptions): View {
  let chosen = by;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let drawn = "";
  const bar = drawing("svg", { class: "lp-bar", viewBox: "0 0 1000 12", preserveAspectRatio: "none", "aria-hidden": "true" });
  const legend = element("ul", { class: "lp-legend" });
  const buttons = choice<AllocationBy>(label, [["class", "Class"], ["symbol", "Symbol"]], by, (name) => {
    chosen = name;
    draw();
  });
  const note = element("p", { class: "lp-note", hidden: true });
  const root = element("div", { class: "lp-allocation" }, buttons, bar, legend, note);
  container.append(root);
  const assets = createAssets(client, accountId, draw);

  function draw(): void {
    clearTimeout(timer);
    timer = undefined;
    const snapshot = client.getSnapshot(accountId);
    set(root, { "data-status": snapshot.status });
    const slices = slicesOf(snapshot, chosen, assets.known);
    if (chosen === "class") assets.look(snapshot.positions.keys());
    const whole = slices.reduce((sum, { cents }) => sum + Math.max(0, cents), 0);
    const key = JSON.stringify(slices.map(({ name, cents }) => [name, percent(whole ? cents / whole : null)]));
    if (key === drawn) return;
    drawn = key;
    let x = 0;
    bar.replaceChildren(...slices.flatMap(({ cents }, index) => {
      const width = whole ? (Math.max(0, cents) / whole) * 1000 : 0;
      x += width;
      return width ? [drawing("rect", { x: x - width, y: 0, width: Math.max(1, width - 2), height: 12, "data-slice": index % SLICES_MAX })] : [];
    }));
    legend.replaceChildren(...slices.map(({ name, cents }, index) => element("li", { "data-slice": index % SLICES_MAX },
      element("span", {}, name), element("span", { class: "lp-share" }, cents < 0 ? money((cents / 100).toFixed(2)) : percent(whole ? cents / whole : null, false)))));
    const unpriced = snapshot.value?.equity === null;
    note.hidden = !unpriced;
    put(note, unpriced ? "Shares of what has a price." : "");
  }

  const end = client.subscribe(accountId, () => {
    timer ??= setTimeout(draw, drawn ? REDRAW_MS : 0);
  }, { detail: "positions" });
  draw();
  return {
    destroy() {
      end();
      assets.stop();
      clearTimeout(timer);
      root.remove();
    },
  };
}

/** In words: what the broker says, else what the symbol looks like. */
function classOf(symbol: string, asset: Asset | undefined): string {
  const name = asset?.asset_class ?? (readableSymbol(symbol) !== symbol ? "us_option" : symbol.includes("/") ? "crypto" : "us_equity");
  return CLASS_WORDS[name] ?? "Others";
}

export function slicesOf({ value, positions }: Snapshot, by: AllocationBy, assets: ReadonlyMap<string, Asset>): Slice[] {
  if (!value) return [];
  const sums = new Map<string, number>();
  for (const row of positions.values()) {
    if (row.market_value == null || row.market_value === "0.00") continue;
    const name = by === "symbol" ? readableSymbol(row.symbol) : classOf(row.symbol, assets.get(row.symbol));
    sums.set(name, (sums.get(name) ?? 0) + Math.round(Number(row.market_value) * 100));
  }
  if (Number(value.cash)) sums.set("Cash", Math.round(Number(value.cash) * 100));
  const slices = Array.from(sums, ([name, cents]) => ({ name, cents })).sort((one, other) => other.cents - one.cents);
  if (slices.length <= SLICES_MAX) return slices;
  const rest = slices.slice(SLICES_MAX - 1);
  return [...slices.slice(0, SLICES_MAX - 1), { name: `${rest.length} others`, cents: rest.reduce((sum, { cents }) => sum + cents, 0) }];
}
