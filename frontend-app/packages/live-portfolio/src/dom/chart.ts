import { DASH, calendarDay, clockTime, gainWithPercent, money, percent } from "../format.js";
import type { LivePortfolio, Snapshot } from "../types.js";
import { choice, drawing, element, put, set } from "./elements.js";
import { type History, type KnownPoint, type Range, createSeries, isKnown, nearest, pieces, ticks } from "./series.js";
import type { View } from "./table.js";

const RANGES: Readonly<Record<Range, string>> = { "1d": "Today", "1w": "One week", "1m": "One month", "3m": "Three months", "1y": "One year", all: "All time" };
const STEPS: Readonly<Record<string, number>> = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -1e9, End: 1e9, Escape: NaN }; // which leads to no point
const DAY_MS = 86_400_000;
const SHORT_MS = 600_000; // a shorter line is labelled with seconds
const AGAIN_MS = 5_000; // after a failure of the server
const NEWER_MS = 60_000;
const RIGHT = 72; // beside, below and above the plot
const BOTTOM = 22;
const TOP = 8;
const AWAY = -99; // outside of the plot
const TABLE_ROWS_MAX = 1_500;

export interface DayChartOptions {
  readonly client: LivePortfolio;
  readonly accountId: string;
  readonly range?: Range | undefined;
  /** Which ranges can be chosen; one range has no buttons. */
  readonly ranges?: readonly Range[] | undefined;
  /** What a screen reader calls it; several on a page need different ones. */
  readonly label?: string | undefined;
}

/** What an account was worth over time, without deposits and withdrawals: gaps stay gaps. */
export function createDayChart(container: HTMLElement, { client, accountId, range = "1d", ranges, label = "Value over time" }: DayChartOptions): View {
  const series = createSeries();
  const title = element("span");
  const reading = element("span", { class: "lp-reading" });
  const area = drawing("path", { class: "lp-area" });
  const line = drawing("path", { class: "lp-line" });
  const baseline = drawing("line", { class: "lp-base" });
  const scale = drawing("g", { class: "lp-scale" });
  const cursor = drawing("line", { class: "lp-cursor" });
  const dot = drawing("circle", { class: "lp-cursor", r: 4 });
  const plot = drawing("svg", { class: "lp-plot", role: "slider", tabindex: 0, "aria-label": label }, scale, area, baseline, line, cursor, dot);
  const body = element("tbody");
  const heads = ["Time", "Value", "Gain"].map((text) => element("th", { scope: "col" }, text));
  const details = element("details", {}, element("summary", {}, "As a table"),
    element("div", { class: "lp-scroll", tabindex: 0, role: "region", "aria-label": `${label}, as a table` },
      element("table", { class: "lp-table" }, element("thead", {}, element("tr", {}, ...heads)), body)));
  const offered = ranges ?? (Object.keys(RANGES) as Range[]);
  const root = element("figure", { class: "lp-chart" },
    element("div", { class: "lp-chart-head" }, element("figcaption", {}, title, reading),
      offered.length > 1 ? choice("Range", offered.map((name) => [name, name.toUpperCase()]), range, choose) : ""), plot, details);
  let snapshot = client.getSnapshot(accountId);
  let width = 0;
  let height = 0;
  let asking: AbortController | undefined;
  let isAsking = false; // for another range: until the answer nobody knows from where gains count
  let timer: ReturnType<typeof setTimeout> | undefined;
  let trouble = "";
  let pointed: number | null = null; // a moment
  let known: KnownPoint[] = [];
  let from = 0;
  let to = 0; // of what is known
  let base: number | null = null; // the close that gains count from
  let scaled = "";
  let tabulated = "";

  function choose(next: Range): void {
    range = next;
    series.clear();
    isAsking = range !== "1d";
    trouble = "";
    void ask();
    point(null);
  }

  function isCurrent(): boolean {
    return !/old|unknown|failed/.test(snapshot.status);
  }

  function show(next: Snapshot): void {
    const before = snapshot.value;
    const was = isCurrent();
    snapshot = next;
    const { value, status } = next;
    const is = isCurrent();
    if (status === "denied") series.clear();
    if (was && !is) series.interrupt(Date.now());
    if (value && value !== before && !isAsking) series.add(value);
    if ((is && !was) || (value && before && before.last_equity !== value.last_equity)) void ask(); // it knows what we have missed
    draw();
  }

  async function ask(): Promise<void> {
    clearTimeout(timer);
    asking?.abort();
    if (snapshot.status === "denied") return;
    const { signal } = (asking = new AbortController());
    let waitMs = AGAIN_MS;
    let said = "The past cannot be shown now";
    try {
      const answer = await client.request(`/v1/portfolio/${encodeURIComponent(accountId)}/history?range=${range}${series.since}`, { signal });
      if (answer.ok) {
        const history: History = await answer.json();
        if (signal.aborted) return;
        isAsking = false;
        series.take(history, range, snapshot.value);
        said = "";
      }
      if (answer.status < 500) waitMs = NEWER_MS;
    } catch {} // asked again soon
    if (signal.aborted) return;
    trouble = said;
    timer = setTimeout(ask, waitMs);
    draw();
  }

  function point(at: number | null): void {
    pointed = at;
    draw();
  }

  function resize(): void {
    ({ width, height } = plot.getBoundingClientRect());
    draw();
  }

  // Drawing

  function draw(): void {
    const { points } = series;
    const { value, status } = snapshot;
    known = points.filter(isKnown);
    base = series.base ?? (range === "1d" && value ? Number(value.last_equity) : null);
    const [first, last] = [known[0], known.at(-1)];
    from = first?.at ?? 0;
    to = last?.at ?? 0;
    const isDrawn = known.length > 1 && width > 0;
    set(root, { "data-empty": !isDrawn && trouble, "data-status": status });
    set(plot, { "data-direction": last ? directionOf(last.level - (base ?? first?.level ?? 0)) : 0 });
    const at = pointed === null ? undefined : nearest(known, pointed);
    const lines = isDrawn ? pieces(points) : [];
    const levels = [...known.map(({ level }) => level), base ?? first?.level ?? 0];
    const margin = (Math.max(...levels) - Math.min(...levels)) * 0.04 || 1;
    const [low, high] = [Math.min(...levels) - margin, Math.max(...levels) + margin];
    const [right, bottom] = [width - RIGHT, height - BOTTOM];
    const x = (moment: number) => (((moment - from) / (to - from || 1)) * right).toFixed(1);
    const y = (level: number) => (bottom - ((level - low) / (high - low)) * (bottom - TOP)).toFixed(1);
    const paths = lines.map((piece) => piece.map(({ at, level }) => `${x(at)} ${y(level)}`).join("L"));
    const ground = base === null ? AWAY : y(base);
    set(line, { d: paths.map((path) => `M${path}h0`).join("") });
    set(area, { d: base === null ? "" : lines.map(([start], index) => `M${x(start?.at ?? 0)} ${ground}L${paths[index]}V${ground}Z`).join("") });
    set(baseline, { x2: right, y1: ground, y2: ground });
    const across = at ? x(at.at) : AWAY;
    set(cursor, { x1: across, x2: across, y2: bottom });
    set(dot, { cx: across, cy: at ? y(at.level) : AWAY });
    drawScale(isDrawn ? ticks(low, high, Math.max(2, Math.floor(bottom / 48))) : [], x, y);
    read(at, last);
  }

  function drawScale(levels: readonly number[], x: (at: number) => string, y: (level: number) => string): void {
    const right = width - RIGHT;
    const marks: Parameters<typeof drawing>[] = [];
    const write = (x: number | string, y: string, dy: number, text: string, anchor = "start") => marks.push(["text", { x, y, dy, "text-anchor": anchor }, text]);
    const decimals = ((levels[1] ?? 0) - (levels[0] ?? 0)) % 1 ? 2 : 0;
    for (const level of levels) {
      marks.push(["line", { x2: right, y1: y(level), y2: y(level) }]);
      write(right + 6, y(level), 4, money(level.toFixed(decimals), decimals));
      write(right + 6, y(level), 16, percent(ratioTo(level))); // below, not over the line
    }
    const last = levels.length ? Math.max(1, Math.min(5, Math.floor(right / 110) - 1)) : -1;
    for (let index = 0; index <= last; index++) {
      const at = from + (index / last) * (to - from);
      write(x(at), `${height}`, -6, when(at), index ? (index < last ? "middle" : "end") : "start");
    }
    const text = JSON.stringify(marks);
    if (text !== scaled) scale.replaceChildren(...marks.map((mark) => drawing(...mark)));
    scaled = text;
  }

  function when(at: number, isWhole = false): string {
    const spanMs = to - from;
    if (spanMs > 300 * DAY_MS) return calendarDay(at, true);
    if (spanMs > 1.5 * DAY_MS) return isWhole ? `${calendarDay(at)}, ${clockTime(at, false)}` : calendarDay(at);
    return clockTime(at, spanMs < SHORT_MS);
  }

  /** What is pointed at, else what the line is. */
  function read(at: KnownPoint | undefined, last: KnownPoint | undefined): void {
    const { length } = known;
    const told = at ?? last;
    const gained = told ? gainTo(told) : "";
    const isNet = last && directionOf(Number(last.equity) - last.level); // so the line does not end at the total
    const name = at ? when(at.at, true) : RANGES[range] + (isNet ? ", without deposits and withdrawals" : "");
    const isTrouble = !at && trouble;
    put(title, name);
    put(reading, isTrouble || (at ? `${money(at.equity)} ${gained}` : range === "1d" ? "" : gained)); // today's is said elsewhere
    set(reading, { "data-direction": !isTrouble && told && base !== null ? directionOf(told.level - base) : 0 });
    set(plot, {
      "aria-valuemax": length,
      "aria-valuenow": at ? known.indexOf(at) : length,
      "aria-valuetext": at ? `${name}: ${money(at.equity)}, ${gained}` : `${name}, ${length} values; arrow keys read them`,
    });
    tabulate();
  }

  function gainTo({ level }: KnownPoint): string {
    return base === null ? DASH : gainWithPercent((level - base).toFixed(2), ratioTo(level));
  }

  function ratioTo(level: number): number {
    const brought = range === "1d" ? Number(snapshot.value?.external_cash_flow ?? 0) : 0; // as in the day's own ratio
    return (level - Number(base)) / Math.abs(Number(base) + brought); // not finite without a base: no percentage
  }

  function tabulate(): void {
    const rows = details.open ? series.points.slice(-TABLE_ROWS_MAX) : [];
    const told = `${range} ${rows.length} ${rows[0]?.at}`;
    if (tabulated === told) return;
    tabulated = told;
    body.replaceChildren(...rows.map((row) => element("tr", {}, element("th", { scope: "row" }, when(row.at, true)),
      ...(isKnown(row) ? [money(row.equity), gainTo(row)] : ["not known", DASH]).map((text) => element("td", {}, text)))));
  }

  plot.onpointermove = ({ clientX }) => {
    const share = (clientX - plot.getBoundingClientRect().left) / (width - RIGHT);
    point(from + Math.max(0, Math.min(1, share)) * (to - from));
  };
  plot.onpointerleave = plot.onblur = () => point(null);
  plot.onkeydown = (event) => {
    const step = STEPS[event.key];
    if (step === undefined || !known.length) return;
    event.preventDefault();
    const now = pointed === null ? undefined : nearest(known, pointed);
    const index = (now ? known.indexOf(now) : known.length) + step;
    point(known[Math.max(0, Math.min(known.length - 1, index))]?.at ?? null);
  };
  details.ontoggle = tabulate;
  container.append(root);
  const resizing = new ResizeObserver(resize);
  resizing.observe(plot);
  const end = client.subscribe(accountId, () => show(client.getSnapshot(accountId)));
  if (snapshot.value) series.add(snapshot.value);
  resize();
  void ask();
  return {
    destroy() {
      end();
      resizing.disconnect();
      asking?.abort();
      clearTimeout(timer);
      root.remove();
    },
  };
}

function directionOf(gained: number): number {
  return Math.sign(Math.round(gained * 100));
}
