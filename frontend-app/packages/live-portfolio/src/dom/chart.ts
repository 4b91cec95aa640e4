import { DASH, calendarDay, clockTime, gainWithPercent, money, percent, ratioOf, signOf } from "../format.js";
import type { LivePortfolio, Snapshot } from "../types.js";
import { choice, drawing, element, put, set } from "./elements.js";
import { type History, type Point, type Range, Series, nearest, pieces, ticks } from "./series.js";
import type { View } from "./table.js";

const RANGES: readonly (readonly [Range, string, string])[] = [
  ["1d", "1D", "Today"], ["1w", "1W", "One week"], ["1m", "1M", "One month"], ["3m", "3M", "Three months"], ["1y", "1Y", "One year"], ["all", "All", "All of it"],
];
const DAY_MS = 86_400_000;
const SHORT_MS = 600_000; // a shorter line is labelled with seconds
const AGAIN_MS = { now: 5_000, later: 60_000 }; // after a failure of the server; and for what is new
const GUTTER = { right: 72, bottom: 22, top: 8 };
const NARROW = 420;
const AWAY = -99; // outside of the plot
const TABLE_ROWS_MAX = 1_500;

export interface DayChartOptions {
  readonly client: LivePortfolio;
  readonly accountId: string;
  readonly range?: Range;
  /** Which ranges can be chosen; one range has no buttons. */
  readonly ranges?: readonly Range[];
  /** What a screen reader calls it; several on a page need different ones. */
  readonly label?: string;
}

/** From moments and levels to the plane. */
interface Place {
  readonly low: number;
  readonly high: number;
  readonly from: number;
  readonly to: number;
  readonly width: number;
  readonly bottom: number;
  readonly x: (at: number) => number;
  readonly y: (level: number) => number;
}

/** What an account was worth over time, without deposits and withdrawals: gaps stay gaps. */
export function createDayChart(container: HTMLElement, options: DayChartOptions): View {
  return new DayChart(container, options);
}

class DayChart implements View {
  readonly #client: LivePortfolio;
  readonly #accountId: string;
  readonly #series = new Series();
  readonly #title = element("span", { class: "lp-chart-title" });
  readonly #reading = element("span", { class: "lp-reading" });
  readonly #plot = drawing("svg", { class: "lp-plot", role: "slider", tabindex: 0, "aria-valuemin": 0 });
  readonly #area = drawing("path", { class: "lp-area" });
  readonly #line = drawing("path", { class: "lp-line" });
  readonly #baseline = drawing("line", { class: "lp-base" });
  readonly #scale = drawing("g", { class: "lp-scale" });
  readonly #cursor = drawing("line", { class: "lp-cursor" });
  readonly #dot = drawing("circle", { class: "lp-cursor-dot", r: 4 });
  readonly #table = element("tbody");
  readonly #details: HTMLDetailsElement;
  readonly #root: HTMLElement;
  readonly #resizing: ResizeObserver | null;
  readonly #end: () => void;
  #range: Range;
  #size = { width: 0, height: 0 };
  #asking: AbortController | null = null;
  #isAsking = false; // for another range: until the answer nobody knows from where gains count
  #timer: ReturnType<typeof setTimeout> | undefined;
  #trouble = "";
  #pointed: number | null = null; // a moment
  #known: Point[] = [];
  #from = 0;
  #to = 0; // of what is known
  #base: number | null = null; // the close that gains count from
  #snapshot: Snapshot;

  constructor(container: HTMLElement, { client, accountId, range = "1d", ranges = RANGES.map(([name]) => name), label = "Value over time" }: DayChartOptions) {
    this.#client = client;
    this.#accountId = accountId;
    this.#range = range;
    set(this.#plot, { "aria-label": label });
    const offered = RANGES.filter(([name]) => ranges.includes(name)).map(([name, text]) => [name, text] as const);
    this.#plot.append(this.#scale, this.#area, this.#baseline, this.#line, this.#cursor, this.#dot);
    this.#details = element("details", {}, element("summary", {}, "As a table"), element("div", { class: "lp-scroll", tabindex: 0, role: "region", "aria-label": `${label}, as a table` },
      element("table", { class: "lp-table" }, element("thead", {}, element("tr", {}, ...["Time", "Value", "Gain"].map((text) => element("th", { scope: "col" }, text)))), this.#table)));
    this.#root = element("figure", { class: "lp-chart" },
      element("div", { class: "lp-chart-head" }, element("figcaption", {}, this.#title, this.#reading), ...(offered.length > 1 ? [choice("Range", offered, range, (name) => this.#choose(name))] : [])),
      this.#plot, this.#details);
    container.append(this.#root);
    this.#listen();
    this.#resizing = typeof ResizeObserver === "function" ? new ResizeObserver(() => this.#resize()) : null;
    this.#resizing?.observe(this.#plot);
    this.#snapshot = client.getSnapshot(accountId);
    this.#end = client.subscribe(accountId, () => this.#show(client.getSnapshot(accountId)));
    if (this.#snapshot.value) this.#series.add(this.#snapshot.value);
    this.#resize();
    this.#draw();
    void this.#ask();
  }

  destroy(): void {
    this.#end();
    this.#resizing?.disconnect();
    this.#asking?.abort();
    clearTimeout(this.#timer);
    this.#root.remove();
  }

  #choose(range: Range): void {
    this.#range = range;
    this.#series.clear();
    this.#isAsking = range !== "1d";
    this.#trouble = "";
    this.#pointed = null;
    void this.#ask();
    this.#draw();
  }

  #show(snapshot: Snapshot): void {
    const before = this.#snapshot;
    this.#snapshot = snapshot;
    const [was, is] = [before.status, snapshot.status].map((status) => status !== "old" && status !== "unknown" && status !== "failed");
    if (snapshot.status === "denied") this.#series.clear();
    if (was && !is) this.#series.interrupt(Date.now());
    if (snapshot.value && snapshot.value !== before.value && !this.#isAsking) this.#series.add(snapshot.value);
    const isNewDay = before.value && snapshot.value && before.value.last_equity !== snapshot.value.last_equity;
    if ((is && !was) || isNewDay) void this.#ask(); // it knows what we have missed
    this.#draw();
  }

  // The past

  async #ask(): Promise<void> {
    clearTimeout(this.#timer);
    this.#asking?.abort();
    if (this.#snapshot.status === "denied") return;
    const asking = (this.#asking = new AbortController());
    const range = this.#range;
    let waitMs = AGAIN_MS.now;
    let trouble = "The past cannot be shown now";
    try {
      const answer = await this.#client.request(`/v1/portfolio/${encodeURIComponent(this.#accountId)}/history?range=${range}${this.#series.since}`, { signal: asking.signal });
      if (answer.ok) {
        const history = (await answer.json()) as History;
        if (asking.signal.aborted) return;
        this.#isAsking = false;
        this.#series.take(history, range, this.#snapshot.value);
        trouble = "";
      }
      if (answer.status === 422) trouble = "This server does not know so long a time";
      if (answer.status < 500) waitMs = AGAIN_MS.later;
    } catch {} // asked again soon
    if (asking.signal.aborted) return;
    this.#trouble = trouble;
    this.#timer = setTimeout(() => void this.#ask(), waitMs);
    this.#draw();
  }

  // Pointing

  #listen(): void {
    const plot = this.#plot;
    plot.onpointermove = ({ clientX }) => {
      const share = (clientX - plot.getBoundingClientRect().left) / (this.#size.width - GUTTER.right);
      this.#point(this.#from + Math.max(0, Math.min(1, share)) * (this.#to - this.#from));
    };
    plot.onpointerleave = plot.onblur = () => this.#point(null);
    plot.onkeydown = (event) => {
      const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity }[event.key];
      if (event.key === "Escape") return this.#point(null);
      if (step === undefined || !this.#known.length) return;
      event.preventDefault();
      const now = nearest(this.#known, this.#pointed ?? Infinity) ?? this.#known.at(-1);
      const index = this.#known.indexOf(now as Point) + (this.#pointed === null && step < 0 ? 0 : step);
      return this.#point(this.#known[Math.max(0, Math.min(this.#known.length - 1, index))]?.at ?? null);
    };
    this.#details.ontoggle = () => this.#tabulate();
  }

  #point(at: number | null): void {
    this.#pointed = at;
    this.#draw();
  }

  // Drawing

  #resize(): void {
    const { width, height } = this.#plot.getBoundingClientRect();
    if (Math.abs(width - this.#size.width) < 1 && Math.abs(height - this.#size.height) < 1) return;
    this.#size = { width, height };
    set(this.#plot, { viewBox: `0 0 ${width || 1} ${height || 1}` });
    this.#draw();
  }

  #draw(): void {
    const points = this.#series.points;
    const known = (this.#known = points.filter((point) => point.level !== null));
    const { value, status } = this.#snapshot;
    const base = (this.#base = this.#series.base ?? (this.#range === "1d" && value ? Number(value.last_equity) : null));
    const [first, last] = [known[0], known.at(-1)];
    this.#from = first?.at ?? 0;
    this.#to = last?.at ?? 0;
    const isDrawn = known.length > 1 && this.#size.width > 0;
    const change = (last?.level ?? 0) - (base ?? first?.level ?? 0);
    set(this.#root, { "data-empty": !isDrawn, "data-status": status });
    set(this.#plot, { "data-direction": Math.sign(Math.round(change * 100)) });
    const point = this.#pointed === null ? null : nearest(known, this.#pointed);
    this.#drawLines(isDrawn ? this.#place() : null, points, point);
    this.#read(point, last);
  }

  #drawLines(place: Place | null, points: readonly Point[], point: Point | null): void {
    const base = this.#base;
    const y = place && base !== null ? place.y(base) : null;
    const paths = place ? pieces(points).map((piece) => path(piece, place)) : [];
    set(this.#line, { d: paths.map(({ line }) => line).join("") });
    set(this.#area, { d: y === null ? "" : paths.map(({ line, first, last }) => `${line}L${last} ${y}L${first} ${y}Z`).join("") });
    set(this.#baseline, { x1: 0, x2: place?.width ?? 0, y1: y ?? AWAY, y2: y ?? AWAY });
    const x = place && point ? place.x(point.at) : AWAY;
    set(this.#cursor, { x1: x, x2: x, y1: 0, y2: place?.bottom ?? 0 });
    set(this.#dot, { cx: x, cy: place && point ? place.y(point.level as number) : AWAY });
    this.#drawScale(place);
  }

  #place(): Place {
    const [base, from, to] = [this.#base, this.#from, this.#to];
    const levels = this.#known.map((point) => point.level as number);
    const [low, high] = [Math.min(...levels, base ?? Infinity), Math.max(...levels, base ?? -Infinity)];
    const width = this.#size.width - GUTTER.right;
    const bottom = this.#size.height - GUTTER.bottom;
    const margin = (high - low) * 0.04 || 1;
    const y = (level: number) => round(bottom - ((level - low + margin) / (high - low + 2 * margin)) * (bottom - GUTTER.top));
    return { low: low - margin, high: high + margin, from, to, width, bottom, y, x: (at: number) => round(((at - from) / (to - from || 1)) * width) };
  }

  #drawScale(place: Place | null): void {
    const base = this.#base;
    const marks: Node[] = [];
    if (place) {
      const levels = ticks(place.low, place.high, Math.max(2, Math.floor((place.bottom - GUTTER.top) / 44)));
      const decimals = (levels[1] ?? 1) - (levels[0] ?? 0) < 1 ? 2 : 0;
      for (const level of levels) {
        const y = place.y(level);
        marks.push(drawing("line", { x1: 0, x2: place.width, y1: y, y2: y }));
        marks.push(label(place.width + 6, y + 4, money(level.toFixed(decimals), decimals)));
        if (base && this.#size.width >= NARROW) marks.push(label(0, y - 4, percent((level - base) / Math.abs(base)), "lp-percent"));
      }
      const count = Math.max(2, Math.min(6, Math.floor(place.width / 110)));
      for (let index = 0; index < count; index++) {
        const at = place.from + (index / (count - 1)) * (place.to - place.from);
        const anchor = index === 0 ? "start" : index === count - 1 ? "end" : "middle";
        marks.push(label(place.x(at), this.#size.height - 6, this.#when(at), "", anchor));
      }
    }
    const text = marks.map((mark) => (mark as Element).outerHTML).join("");
    if (text !== this.#scaleText) this.#scale.replaceChildren(...marks);
    this.#scaleText = text;
  }
  #scaleText = "";

  #when(at: number, isWhole = false): string {
    const spanMs = this.#to - this.#from;
    if (spanMs > 300 * DAY_MS) return calendarDay(at, true);
    if (spanMs > 1.5 * DAY_MS) return isWhole ? `${calendarDay(at)}, ${clockTime(at, false)}` : calendarDay(at);
    return clockTime(at, spanMs < SHORT_MS);
  }

  /** What is pointed at, else what the line is. */
  #read(point: Point | null, last: Point | undefined): void {
    const { length } = this.#known;
    const title = RANGES.find(([name]) => name === this.#range)?.[2] ?? "";
    const told = point ?? last;
    const when = point ? this.#when(point.at, true) : title;
    const gained = told ? this.#gain(told) : "";
    const trouble = point ? "" : this.#trouble;
    put(this.#title, when);
    put(this.#reading, trouble || (point ? `${money(point.equity)} ${gained}` : this.#range === "1d" ? "" : gained)); // today's is said elsewhere
    set(this.#reading, { "data-direction": !trouble && (signOf(this.#gainOf(told)) ?? 0) });
    set(this.#plot, {
      "aria-valuemax": Math.max(0, length - 1),
      "aria-valuenow": Math.max(0, point ? this.#known.indexOf(point) : length - 1),
      "aria-valuetext": point ? `${when}: ${money(point.equity)}, ${gained}` : `${title}, ${length} values; arrow keys read them`,
    });
    this.#tabulate();
  }

  #gainOf(point: Point | undefined): string | null {
    return this.#base === null || point?.level == null ? null : (point.level - this.#base).toFixed(2);
  }

  #gain(point: Point): string {
    const gained = this.#gainOf(point);
    return gained === null ? DASH : gainWithPercent(gained, ratioOf(gained, `${this.#base}`));
  }

  #tabulated = "";

  #tabulate(): void {
    if (!this.#details.open) return;
    const rows = this.#series.points.slice(-TABLE_ROWS_MAX);
    const told = `${this.#range} ${rows.length} ${rows[0]?.at}`;
    if (this.#tabulated === told) return;
    this.#tabulated = told;
    this.#table.replaceChildren(...rows.map((point) => element("tr", {},
      element("th", { scope: "row" }, this.#when(point.at, true)),
      element("td", {}, point.level === null ? "not known" : money(point.equity)),
      element("td", {}, point.level === null ? DASH : this.#gain(point)))));
  }
}

function path(piece: readonly Point[], { x, y }: Place) {
  const line = piece.map((point, index) => `${index ? "L" : "M"}${x(point.at)} ${y(point.level as number)}`).join("");
  return { line: piece.length > 1 ? line : `${line}h0`, first: x(piece[0]?.at ?? 0), last: x(piece.at(-1)?.at ?? 0) };
}

function label(x: number, y: number, text: string, className = "", anchor = "start"): SVGTextElement {
  const made = drawing("text", { x, y, "text-anchor": anchor, ...(className ? { class: className } : {}) });
  made.textContent = text;
  return made;
}

function round(number: number): number {
  return Math.round(number * 10) / 10;
}
