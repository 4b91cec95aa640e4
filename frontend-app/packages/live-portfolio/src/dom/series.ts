/** A line of values over time: what the server remembers, then what has come since. No DOM. */
import type { Value } from "../types.js";

export type Range = "1d" | "1w" | "1m" | "3m" | "1y" | "all";

/** `level` is the equity without what the client brought in, so that a deposit is no gain; null is a gap. */
export interface Point {
  readonly timestamp: string;
  readonly at: number;
  readonly level: number | null;
  readonly equity: string | null;
}

/** What `GET /v1/portfolio/{id}/history` answers. Flows are what the client has brought in since the base. */
export interface History {
  readonly base: string | null;
  readonly points: readonly { readonly timestamp: string; readonly equity: string | null; readonly external_cash_flow: string | null }[];
  /** Asked for again with it, the server answers with later points only. */
  readonly revision?: string;
  readonly is_whole?: boolean;
}

const LIVE_POINTS_MAX = 2_000;

export class Series {
  #past: readonly Point[] = [];
  #live: Point[] = [];
  #base: number | null = null;
  #revision = "";
  #flowBefore: number | null = 0; // what the client had brought in before today

  /** The last close before the line: gains count from it. */
  get base(): number | null {
    return this.#base;
  }

  /** The past, then live. Where the past ends in a gap before the first live point, the gap stays. */
  get points(): Point[] {
    const firstLive = this.#live[0]?.at ?? Infinity;
    return [...this.#past.filter((point) => point.at < firstLive), ...this.#live];
  }

  /** What to add to the question, so that only what is new is answered. */
  get since(): string {
    const last = this.#past.at(-1);
    return this.#revision && last ? `&since=${encodeURIComponent(last.timestamp)}&revision=${this.#revision}` : "";
  }

  take(history: History, range: Range, today: Value | null): void {
    const points = history.points.map(({ timestamp, equity, external_cash_flow }) => pointOf(timestamp, equity, external_cash_flow));
    const all = history.is_whole === false ? [...this.#past, ...points] : points;
    const first = all.findIndex((point) => point.level !== null);
    this.#past = first < 0 ? [] : all.slice(first);
    this.#base = history.base === null ? null : Number(history.base);
    this.#revision = history.revision ?? "";
    if (range !== "1d") this.#live = []; // they were added before it was known from where they count
    this.#flowBefore = range === "1d" ? 0 : flowBefore(all, today);
    const last = this.#past.findLast((point) => point.level !== null);
    if (last) this.#live = this.#live.filter((point) => point.at > last.at);
    if (today && Date.parse(today.timestamp) > (last?.at ?? 0)) this.add(today);
  }

  /** The newest value, as the point that it will be. */
  add({ timestamp, equity, external_cash_flow }: Value): void {
    const flow = this.#flowBefore === null ? null : String(this.#flowBefore + Number(external_cash_flow));
    const point = pointOf(timestamp, equity, flow);
    const last = this.#live.at(-1)?.at ?? 0;
    if (point.at < last) return;
    if (point.at === last) this.#live.pop(); // of the same moment the newer one counts
    this.#live.push(point);
    if (this.#live.length > LIVE_POINTS_MAX) this.#live = this.#live.filter((_, index) => index % 2 || index > LIVE_POINTS_MAX - 20);
  }

  /** Nothing was seen from now on: the line is not drawn across. */
  interrupt(now: number): void {
    const last = this.#live.at(-1);
    if (last && last.level !== null) this.#live.push({ ...last, at: Math.max(now, last.at + 1), level: null });
  }

  clear(): void {
    this.#past = this.#live = [];
    this.#base = null;
    this.#revision = "";
    this.#flowBefore = 0;
  }
}

/** What had been brought in by the last close: that point has the account's last equity. Null where none has. */
function flowBefore(points: readonly Point[], today: Value | null): number | null {
  const close = points.findLast(({ equity }) => equity !== null && equity === today?.last_equity);
  return close?.level == null ? null : Number(close.equity) - close.level;
}

/** Without its flow an equity says nothing about gains: a gap. */
function pointOf(timestamp: string, equity: string | null, flow: string | null): Point {
  return { timestamp, at: Date.parse(timestamp), level: equity === null || flow === null ? null : Number(equity) - Number(flow), equity };
}

/** The parts between gaps. */
export function pieces(points: readonly Point[]): Point[][] {
  const found: Point[][] = [[]];
  for (const point of points) {
    if (point.level === null) found.push([]);
    else found.at(-1)?.push(point);
  }
  return found.filter((piece) => piece.length > 0);
}

/** Round levels between two, about `count` of them. */
export function ticks(low: number, high: number, count: number): number[] {
  if (high <= low) return [low];
  const span = high - low;
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power;
  const found: number[] = [];
  for (let level = Math.ceil(low / step) * step; level <= high + step / 1e6; level += step) found.push(level);
  return found;
}

/** The known point that is nearest to a moment. */
export function nearest(points: readonly Point[], at: number): Point | null {
  let best: Point | null = null;
  for (const point of points) {
    if (point.level !== null && (!best || Math.abs(point.at - at) < Math.abs(best.at - at))) best = point;
  }
  return best;
}
