/** A line of values over time: what the server remembers, then what has come since. No DOM. */
import type { Value } from "../types.js";

export type Range = "1d" | "1w" | "1m" | "3m" | "1y" | "all";

/** `level` is the equity without what the client brought in, so that a deposit is no gain; null is a gap. */
export interface Point {
  readonly at: number;
  readonly level: number | null;
  readonly equity: string | null;
  readonly gain: string | null;
}

/** What `GET /v1/portfolio/{id}/history` answers. */
export interface History {
  readonly base: string | null;
  readonly points: readonly { readonly timestamp: string; readonly equity: string | null; readonly external_cash_flow: string | null; readonly day_pnl?: string | null; readonly pnl?: string | null }[];
}

const LIVE_POINTS_MAX = 2_000;

export class Series {
  #past: readonly Point[] = [];
  #live: Point[] = [];
  #base: number | null = null;

  /** The last close before the line: gains count from it. */
  get base(): number | null {
    return this.#base;
  }

  /** The past, then live. Where the past ends in a gap before the first live point, the gap stays. */
  get points(): Point[] {
    const firstLive = this.#live[0]?.at ?? Number.POSITIVE_INFINITY;
    return [...this.#past.filter((point) => point.at < firstLive), ...this.#live];
  }

  take(history: History): void {
    const points = history.points.map(({ timestamp, equity, external_cash_flow, day_pnl, pnl }) => pointOf(timestamp, equity, external_cash_flow, pnl ?? day_pnl ?? null));
    const first = points.findIndex((point) => point.level !== null);
    this.#past = first < 0 ? [] : points.slice(first);
    this.#base = history.base === null ? null : Number(history.base);
    const last = this.#past.findLast((point) => point.level !== null);
    if (last) this.#live = this.#live.filter((point) => point.at > last.at);
  }

  /** The newest value, as the point that it will be. */
  add(value: Value): void {
    const point = pointOf(value.timestamp, value.equity, value.external_cash_flow, value.day_pnl);
    const last = this.#live.at(-1)?.at ?? 0;
    if (point.at < last) return;
    if (point.at === last) this.#live.pop(); // of the same moment the newer one counts
    this.#live.push(point);
    if (this.#live.length > LIVE_POINTS_MAX) this.#live = this.#live.filter((_, index) => index % 2 || index > LIVE_POINTS_MAX - 20);
  }

  /** Nothing was seen from now on: the line is not drawn across. */
  interrupt(now: number): void {
    const last = this.#live.at(-1);
    if (last && last.level !== null) this.#live.push({ at: Math.max(now, last.at + 1), level: null, equity: null, gain: null });
  }

  clear(): void {
    this.#past = this.#live = [];
    this.#base = null;
  }
}

function pointOf(timestamp: string, equity: string | null, flow: string | null, gain: string | null): Point {
  return { at: Date.parse(timestamp), level: equity === null ? null : Number(equity) - Number(flow ?? 0), equity, gain };
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
