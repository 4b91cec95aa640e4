import { DASH, decimal, money, percent, readableSymbol, signOf } from "../format.js";
import type { LivePortfolio, Snapshot, Value } from "../types.js";
import { createAssets } from "./assets.js";
import { element, put, set } from "./elements.js";
import { type Column, type Row, cellsOf, decimalsOf, sorted, tagsOf, weight } from "./rows.js";

const COLUMNS: readonly (readonly [Column, string])[] = [
  ["symbol", "Symbol"], ["quantity", "Quantity"], ["mark", "Price"], ["cost", "Average cost"],
  ["value", "Market value"], ["weight", "Weight"], ["day", "Today"], ["total", "Total gain"],
];
const SEARCHED_FROM = 10; // fewer positions are seen at a glance
const RESORT_MS = 5_000; // rows that jump at each price cannot be read
const REWEIGH_MS = 1_000;
const FLASHES_MAX = 60; // of one change; a table that flashes all over says nothing
const TURN_MS_MAX = 4; // of writing; rows that are left wait for the next frame

export interface View {
  destroy(): void;
}

export interface PositionsTableOptions {
  readonly client: LivePortfolio;
  readonly accountId: string;
  /** What a screen reader calls it; several on a page need different ones. */
  readonly label?: string | undefined;
}

interface Drawn {
  readonly line: HTMLTableRowElement;
  /** Of each column two lines: what it says, and below it in small. */
  readonly cells: Readonly<Record<Column, readonly [HTMLElement, HTMLElement]>>;
  readonly tags: HTMLElement;
  texts: ReturnType<typeof cellsOf> | null;
  row: Row | null;
  /** Under which decimals and doubts it was written. */
  look: string;
  flash: number;
}

/** The positions of an account: sorted, searched, each row written only when it changes. */
export function createPositionsTable(container: HTMLElement, { client, accountId, label = "Table of positions" }: PositionsTableOptions): View {
  const search = element("input", { type: "search", autocomplete: "off", spellcheck: "false", placeholder: "Search", "aria-label": "Search positions" });
  const bar = element("div", { class: "lp-search", hidden: true }, search);
  const heads = COLUMNS.map(([column, text]) => {
    const button = element("button", { type: "button" }, text);
    button.onclick = () => sortBy(column);
    return element("th", { scope: "col", "data-column": column }, button);
  });
  const body = element("tbody");
  const scroller = element("div", { class: "lp-scroll", tabindex: 0, role: "region", "aria-label": label },
    element("table", { class: "lp-table" },
      element("caption", { class: "lp-hidden" }, "Positions; press a head to sort"),
      element("thead", {}, element("tr", {}, ...heads)), body));
  const empty = element("p", { class: "lp-empty", hidden: true });
  const root = element("div", { class: "lp-positions" }, bar, scroller, empty);
  const lines = new Map<string, Drawn>();
  const assets = createAssets(client, accountId, () => {
    for (const { cells, row } of lines.values()) if (row) put(cells.symbol[1], below(row.symbol));
    arrange(true);
  });
  let sorting: Column = "value";
  let isDescending = true;
  let sortedAt = 0;
  let snapshot: Snapshot | null = null;
  let decimals = { quantity: 0, mark: 2 };
  let look = ""; // decimals, and what is not known or not sure: where that changes, every row is written
  let weighedAt = 0;
  let flashes = 0;
  let frame = 0;
  const waiting = new Set<string>(); // rows to be written

  function show(next: Snapshot): void {
    const before = snapshot;
    snapshot = next;
    const { positions, value, status } = next;
    set(root, { "data-status": status });
    if (before?.positions === positions && before.value === value) return;
    const all = [...positions.values()];
    const changed = all.filter((row) => lines.get(row.symbol)?.row !== row);
    const isOther = all.length !== lines.size || changed.some((row) => !lines.has(row.symbol));
    if (isOther) removeGone(positions);
    // a weight moves with the whole account: of rows that did not change it is looked at now and then
    const isEach = isOtherwise(isOther ? all : changed, value, isOther) || Date.now() - weighedAt > REWEIGH_MS;
    if (isEach) weighedAt = Date.now();
    for (const { symbol } of isEach ? all : changed) waiting.add(symbol);
    flashes = 0;
    work(isOther ? Infinity : TURN_MS_MAX);
    if (isOther) bar.hidden = all.length < SEARCHED_FROM;
    arrange(isOther || !before?.value);
    assets.look(positions.keys());
  }

  function removeGone(positions: Snapshot["positions"]): void {
    for (const [symbol, { line }] of lines) {
      if (positions.has(symbol)) continue;
      line.remove();
      lines.delete(symbol);
    }
  }

  /** Write rows that wait, for so long, and go on with the next frame. */
  function work(ms: number): void {
    cancelAnimationFrame(frame);
    const until = Date.now() + ms;
    for (const symbol of waiting) {
      const row = snapshot?.positions.get(symbol);
      waiting.delete(symbol);
      if (row) write(lines.get(symbol) ?? line(symbol), row, snapshot?.value ?? null);
      if (Date.now() >= until) break;
    }
    if (waiting.size) frame = requestAnimationFrame(() => work(TURN_MS_MAX));
  }

  /** Must every row be written, as the decimals of a column or what is not known or not sure has changed? */
  function isOtherwise(rows: readonly Row[], value: Value | null, isAnew: boolean): boolean {
    const before = look;
    if (isAnew) decimals = { quantity: 0, mark: 2 };
    for (const { quantity, mark } of rows) {
      decimals.quantity = decimalsOf(quantity, decimals.quantity);
      if (Number(mark) < 1) decimals.mark = decimalsOf(mark, decimals.mark);
    }
    look = JSON.stringify([decimals, !value?.equity, value?.stale, value?.stale_ages_s, value?.unvalued]);
    return look !== before;
  }

  /** The name of a company, or how the broker writes an option. */
  function below(symbol: string): string {
    return assets.known.get(symbol)?.name?.replace(" Common Stock", "") ?? (readableSymbol(symbol) === symbol ? "" : symbol);
  }

  // Order and search

  function arrange(isDue: boolean): void {
    if (!snapshot) return;
    const isHeld = body.matches(":hover") || root.contains(document.activeElement); // somebody is pointing at a row
    if (!isDue && (isHeld || Date.now() - sortedAt < RESORT_MS)) return;
    sortedAt = Date.now();
    const wanted = search.value.trim().toLowerCase();
    let next = body.firstElementChild;
    let shown = 0;
    for (const { symbol } of sorted(snapshot.positions.values(), sorting, isDescending)) {
      const { line } = lines.get(symbol) as Drawn;
      line.hidden = !`${symbol} ${readableSymbol(symbol)} ${below(symbol)}`.toLowerCase().includes(wanted);
      if (!line.hidden) shown++;
      if (line === next) next = next.nextElementSibling;
      else body.insertBefore(line, next);
    }
    const isEmpty = !shown && snapshot.value !== null;
    empty.hidden = !isEmpty;
    scroller.hidden = isEmpty && !wanted;
    put(empty, wanted ? `No position matches “${search.value.trim()}”.` : "No positions in this account.");
  }

  function sortBy(column: Column): void {
    isDescending = column === sorting ? !isDescending : column !== "symbol";
    sorting = column;
    markSorted();
    arrange(true);
  }

  function markSorted(): void {
    for (const head of heads) set(head, { "aria-sort": head.dataset.column !== sorting ? "none" : isDescending ? "descending" : "ascending" });
  }

  // Rows

  function line(symbol: string): Drawn {
    const tags = element("span");
    const line = element("tr", { "data-symbol": symbol });
    const cells = Object.fromEntries(COLUMNS.map(([column], index) => {
      const two = [element("span"), element("small")] as const;
      line.append(index ? element("td", { "data-column": column }, ...two) : element("th", { scope: "row", "data-column": column }, two[0], tags, two[1]));
      return [column, two];
    })) as unknown as Drawn["cells"];
    const drawn: Drawn = { line, cells, tags, texts: null, row: null, look: "", flash: 0 };
    lines.set(symbol, drawn);
    return drawn;
  }

  function write(drawn: Drawn, row: Row, value: Value | null): void {
    const { cells, row: before } = drawn;
    put(cells.weight[0], percent(weight(row, value), false) || DASH);
    if (before === row && drawn.look === look) return;
    const texts = cellsOf(row, decimals);
    texts.symbol[1] = below(row.symbol);
    for (const column of Object.keys(texts) as (keyof typeof texts)[]) {
      for (const at of [0, 1] as const) {
        // compared with what was written last: asking the document costs more than most writes
        if (drawn.texts?.[column][at] !== texts[column][at]) cells[column][at].textContent = texts[column][at];
      }
    }
    // in place of columns that a phone has no room for
    set(cells.symbol[1], { "data-holding": signOf(row.quantity) ? `${decimal(row.quantity)} × ${money(row.mark)}` : "" });
    set(cells.value[1], { "data-day": texts.day[0] + (texts.day[1] && ` (${texts.day[1]})`) });
    for (const column of ["value", "day", "total"] as const) {
      set(cells[column][0].parentElement as Element, { "data-direction": signOf(column === "total" ? row.unrealized_pnl : row.day_pnl) ?? 0 });
    }
    tag(drawn.tags, tagsOf(row, value));
    if (flashes++ < FLASHES_MAX && before?.mark && row.mark && before.mark !== row.mark) {
      const direction = Number(row.mark) > Number(before.mark) ? "up" : "down";
      set(cells.mark[0], { "data-flash": `${direction}-${(drawn.flash ^= 1)}` }); // two names: so it starts again without a layout
    }
    Object.assign(drawn, { row, texts, look });
  }

  function tag(place: HTMLElement, tags: readonly string[]): void {
    if (place.dataset.tags === tags.join()) return;
    place.dataset.tags = tags.join();
    place.replaceChildren(...tags.map((text) => element("span", { class: "lp-tag" }, text)));
  }

  search.oninput = () => arrange(true);
  /** All digits, and where a price is from: only for a row that is pointed at. */
  body.onpointerover = ({ target }) => {
    const { row, cells } = lines.get((target as Element).closest("tr")?.dataset.symbol ?? "") ?? {};
    if (!row || !cells) return;
    cells.quantity[0].title = decimal(row.quantity);
    cells.mark[0].title = row.mark ? `${money(row.mark)} ${(row.mark_quality ?? row.mark_source ?? "").replaceAll("_", " ")}` : "";
  };
  container.append(root);
  markSorted();
  const draw = () => show(client.getSnapshot(accountId));
  const end = client.subscribe(accountId, draw, { detail: "positions" });
  draw();
  return {
    destroy() {
      end();
      assets.stop();
      waiting.clear();
      root.remove();
    },
  };
}
