import { DASH, decimal, money, percent, readableSymbol, signOf } from "../format.js";
import type { LivePortfolio, Snapshot, Value } from "../types.js";
import { element, freshId, put, set } from "./elements.js";
import { type Column, type Row, cellsOf, decimalsOf, sorted, tagsOf, weight } from "./rows.js";

const COLUMNS: readonly (readonly [Column, string])[] = [
  ["symbol", "Symbol"], ["quantity", "Quantity"], ["mark", "Price"], ["cost", "Average cost"],
  ["value", "Market value"], ["weight", "Weight"], ["day", "Today"], ["total", "Total gain"],
];
const SEARCHED_FROM = 10; // fewer positions are seen at a glance
const RESORT_MS = 5_000; // rows that jump at each price cannot be read
const REWEIGH_MS = 1_000;
const FLASHES_MAX = 60; // in one frame; a table that flashes all over says nothing

export interface View {
  destroy(): void;
}

export interface PositionsTableOptions {
  readonly client: LivePortfolio;
  readonly accountId: string;
  /** What a screen reader calls it; several on a page need different ones. */
  readonly label?: string;
  /** Names of companies by symbol, where the app knows them. */
  readonly names?: ReadonlyMap<string, string>;
}

interface Drawn {
  readonly line: HTMLTableRowElement;
  readonly cells: Readonly<Record<Column, readonly [HTMLElement, HTMLElement]>>;
  readonly tags: HTMLElement;
  texts: ReturnType<typeof cellsOf> | null;
  row: Row | null;
  flash: number;
}

/** The positions of an account: sorted, searched, each row written only when it changes. */
export function createPositionsTable(container: HTMLElement, { client, accountId, names, label = "Table of positions" }: PositionsTableOptions): View {
  const table = new PositionsTable(container, names ?? new Map(), label);
  const draw = () => table.show(client.getSnapshot(accountId));
  const end = client.subscribe(accountId, draw, { detail: "positions" });
  draw();
  return {
    destroy() {
      end();
      table.remove();
    },
  };
}

class PositionsTable {
  readonly #root: HTMLElement;
  readonly #names: ReadonlyMap<string, string>;
  readonly #body = element("tbody");
  readonly #heads = new Map<Column, HTMLTableCellElement>();
  readonly #search = element("input", { type: "search", autocomplete: "off", spellcheck: "false", placeholder: "Search" });
  readonly #bar: HTMLElement;
  readonly #empty = element("p", { class: "lp-empty", hidden: true });
  readonly #scroller: HTMLElement;
  readonly #drawn = new Map<string, Drawn>();
  #column: Column = "value";
  #isDescending = true;
  #sortedAt = 0;
  #order: string[] = [];
  #snapshot: Snapshot | null = null;
  #decimals = { quantity: 0, mark: 2 };
  #doubts = "";
  #weighedAt = 0;

  constructor(container: HTMLElement, names: ReadonlyMap<string, string>, label: string) {
    this.#names = names;
    const id = freshId();
    this.#search.id = id;
    this.#bar = element("div", { class: "lp-search", hidden: true }, element("label", { for: id, class: "lp-hidden" }, "Search positions"), this.#search);
    const heads = COLUMNS.map(([column, text]) => this.#head(column, text));
    const table = element("table", { class: "lp-table" },
      element("caption", { class: "lp-hidden" }, "Positions, with buttons in the head to sort by"),
      element("thead", {}, element("tr", {}, ...heads)), this.#body);
    this.#scroller = element("div", { class: "lp-scroll", tabindex: 0, role: "region", "aria-label": label }, table);
    this.#root = element("div", { class: "lp-positions" }, this.#bar, this.#scroller, this.#empty);
    this.#search.oninput = () => this.#arrange(true);
    this.#body.onpointerover = ({ target }) => this.#explain(target);
    container.append(this.#root);
    this.#markSorted();
  }

  remove(): void {
    this.#root.remove();
  }

  show(snapshot: Snapshot): void {
    const before = this.#snapshot;
    this.#snapshot = snapshot;
    const { positions, value } = snapshot;
    set(this.#root, { "data-status": snapshot.status });
    if (before?.positions === positions && before.value === value) return;
    const changed = [...positions.values()].filter((row) => this.#drawn.get(row.symbol)?.row !== row);
    const isOther = positions.size !== this.#drawn.size || changed.some((row) => !this.#drawn.has(row.symbol));
    if (isOther) this.#removeGone(positions);
    const isAll = this.#isOtherwise(isOther ? positions.values() : changed, value, isOther);
    let flashes = 0;
    for (const row of isAll ? positions.values() : changed) {
      this.#write(this.#drawn.get(row.symbol) ?? this.#line(row.symbol), row, value, flashes++ < FLASHES_MAX);
    }
    this.#weigh(isAll ? positions.values() : changed, positions.values(), value);
    if (isOther) this.#bar.hidden = positions.size < SEARCHED_FROM;
    this.#arrange(isOther);
  }

  #removeGone(positions: Snapshot["positions"]): void {
    for (const [symbol, { line }] of this.#drawn) {
      if (positions.has(symbol)) continue;
      line.remove();
      this.#drawn.delete(symbol);
    }
  }

  /** Must every row be written, as the decimals of a column or what is not sure about symbols has changed? */
  #isOtherwise(rows: Iterable<Row>, value: Value | null, isAnew: boolean): boolean {
    const { quantity, mark } = isAnew ? { quantity: 0, mark: 2 } : this.#decimals;
    const decimals = { quantity, mark };
    for (const row of rows) {
      decimals.quantity = decimalsOf(row.quantity, decimals.quantity);
      decimals.mark = decimalsOf(row.mark, decimals.mark);
    }
    const doubts = value ? JSON.stringify([value.stale, value.stale_ages_s, value.unvalued]) : "";
    const isOtherwise = doubts !== this.#doubts || decimals.quantity !== quantity || decimals.mark !== mark;
    this.#doubts = doubts;
    this.#decimals = decimals;
    return isOtherwise || isAnew;
  }

  /** A weight moves with the whole account: of rows that did not change it is looked at now and then. */
  #weigh(changed: Iterable<Row>, all: Iterable<Row>, value: Value | null): void {
    const now = Date.now();
    const isDue = now - this.#weighedAt > REWEIGH_MS;
    if (isDue) this.#weighedAt = now;
    for (const row of isDue ? all : changed) {
      const cell = this.#drawn.get(row.symbol)?.cells.weight[0];
      if (cell) put(cell, percent(weight(row, value), false) || DASH);
    }
  }

  // Order and search

  #arrange(isDue: boolean): void {
    const snapshot = this.#snapshot;
    if (!snapshot) return;
    const now = Date.now();
    const isHeld = this.#body.matches(":hover") || this.#root.contains(document.activeElement); // somebody is pointing at a row
    if (isDue || (now - this.#sortedAt > RESORT_MS && !isHeld)) {
      this.#sortedAt = now;
      this.#order = sorted(snapshot.positions.values(), this.#column, this.#isDescending).map((row) => row.symbol);
      this.#place();
    }
  }

  #place(): void {
    const wanted = this.#search.value.trim().toLowerCase();
    let next = this.#body.firstElementChild;
    let shown = 0;
    for (const symbol of this.#order) {
      const line = this.#drawn.get(symbol)?.line;
      if (!line) continue;
      const text = `${symbol} ${readableSymbol(symbol)} ${this.#names.get(symbol) ?? ""}`.toLowerCase();
      line.hidden = !text.includes(wanted);
      if (!line.hidden) shown++;
      if (line === next) next = next.nextElementSibling;
      else this.#body.insertBefore(line, next);
    }
    const isEmpty = shown === 0 && this.#snapshot?.value !== null;
    this.#empty.hidden = !isEmpty;
    this.#scroller.hidden = isEmpty && !wanted;
    put(this.#empty, wanted ? `No position matches “${this.#search.value.trim()}”.` : "No positions in this account.");
  }

  #sortBy(column: Column): void {
    this.#isDescending = column === this.#column ? !this.#isDescending : column !== "symbol";
    this.#column = column;
    this.#markSorted();
    this.#arrange(true);
  }

  #markSorted(): void {
    for (const [column, head] of this.#heads) {
      set(head, { "aria-sort": column === this.#column ? (this.#isDescending ? "descending" : "ascending") : "none" });
    }
  }

  #head(column: Column, text: string): HTMLTableCellElement {
    const button = element("button", { type: "button" }, text);
    button.onclick = () => this.#sortBy(column);
    const head = element("th", { scope: "col", "data-column": column }, button);
    this.#heads.set(column, head);
    return head;
  }

  // Rows

  #line(symbol: string): Drawn {
    const line = element("tr", { "data-symbol": symbol });
    const tags = element("span", { class: "lp-tags" });
    const cells = Object.fromEntries(COLUMNS.map(([column]) => {
      const lines = [element("span"), element("small")] as const;
      const cell = column === "symbol"
        ? element("th", { scope: "row", "data-column": column }, lines[0], tags, lines[1])
        : element("td", { "data-column": column }, ...lines);
      line.append(cell);
      return [column, lines];
    })) as unknown as Drawn["cells"];
    const drawn: Drawn = { line, cells, tags, texts: null, row: null, flash: 0 };
    this.#drawn.set(symbol, drawn);
    return drawn;
  }

  #write(drawn: Drawn, row: Row, value: Value | null, mayFlash: boolean): void {
    const texts = cellsOf(row, this.#decimals);
    const isOption = texts.symbol[0] !== row.symbol;
    const holding = signOf(row.quantity) === 0 ? "" : `${decimal(row.quantity)} × ${texts.mark[0]}`;
    texts.symbol[1] = this.#names.get(row.symbol) ?? (isOption ? row.symbol : "");
    for (const column of Object.keys(texts) as (keyof typeof texts)[]) {
      for (const line of [0, 1] as const) {
        // compared with what was written last: asking the document costs more than most writes
        if (drawn.texts?.[column][line] !== texts[column][line]) drawn.cells[column][line].textContent = texts[column][line];
      }
    }
    set(drawn.cells.symbol[1], { "data-holding": holding }); // in place of columns that a phone has no room for
    set(drawn.cells.value[1], { "data-day": `${texts.day[0]}${texts.day[1] && ` (${texts.day[1]})`}` });
    for (const column of ["day", "total"] as const) {
      const direction = signOf(column === "day" ? row.day_pnl : row.unrealized_pnl);
      set(drawn.cells[column][0].parentElement as Element, { "data-direction": direction ?? 0 });
    }
    set(drawn.cells.value[0].parentElement as Element, { "data-direction": signOf(row.day_pnl) ?? 0 });
    this.#tag(drawn, tagsOf(row, value));
    if (mayFlash && drawn.row && drawn.row.mark != null && row.mark != null && drawn.row.mark !== row.mark) {
      const direction = Number(row.mark) > Number(drawn.row.mark) ? "up" : "down";
      set(drawn.cells.mark[0], { "data-flash": `${direction}-${(drawn.flash ^= 1)}` }); // two names: so it begins anew without a layout
    }
    drawn.row = row;
    drawn.texts = texts;
  }

  /** All digits, and where a price is from: only for a row that is pointed at. */
  #explain(target: EventTarget | null): void {
    const drawn = this.#drawn.get((target as Element).closest("tr")?.dataset.symbol ?? "");
    if (!drawn?.row) return;
    const { quantity, mark, mark_quality, mark_source } = drawn.row;
    drawn.cells.quantity[0].title = decimal(quantity);
    drawn.cells.mark[0].title = mark == null ? "" : `${money(mark)} ${(mark_quality ?? mark_source ?? "").replaceAll("_", " ")}`;
  }

  #tag(drawn: Drawn, tags: readonly string[]): void {
    if ([...drawn.tags.children].map((tag) => tag.textContent).join() === tags.join()) return;
    drawn.tags.replaceChildren(...tags.map((tag) => element("span", { class: "lp-tag" }, tag)));
  }
}
