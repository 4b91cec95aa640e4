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

export interface KnownPoint extends Point {
  readonly level: number;
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

export interface Series {
  /** The last close before the line: gains count from it. */
  readonly base: number | null;
  /** The past, then live. Where the past ends in a gap before the first live point, the gap stays. */
  readonly points: readonly Point[];
  /** What to add to the question, so that only what is new is answered. */
  readonly since: string;
  take(history: History, range: Range, today: Value | null): void;
  /** The newest value, as the point that it will be. */
  add(value: Value): void;
  /** Nothing was seen from now on: the line is not drawn across. */
  interrupt(now: number): void;
  clear(): void;
}

export function createSeries(): Series {
  let past: readonly Point[] = [];
  let live: Point[] = [];
  let base: number | null = null;
  let revision = "";
  let flowBefore: number | null = 0; // what the client had brought in before today

  const add = ({ timestamp, equity, external_cash_flow }: Value) => {
    const point = pointOf(timestamp, equity, flowBefore === null ? null : flowBefore + Number(external_cash_flow));
    const last = live.at(-1)?.at ?? 0;
    if (point.at < last) return;
    if (point.at === last) live.pop(); // of the same moment the newer one counts
    live.push(point);
    if (live.length > LIVE_POINTS_MAX) live = live.filter((_, index) => index % 2 === 0); // the newest stays
  };
  return {
    get base() {
      return base;
    },
    get points() {
      const firstLive = live[0]?.at ?? Infinity;
      return [...past.filter((point) => point.at < firstLive), ...live];
    },
    get since() {
      const last = past.at(-1);
      return revision && last ? `&since=${encodeURIComponent(last.timestamp)}&revision=${revision}` : "";
    },
    take(history, range, today) {
      const points = history.points.map(({ timestamp, equity, external_cash_flow }) => pointOf(timestamp, equity, external_cash_flow));
      const all = history.is_whole === false ? [...past, ...points] : points;
      const first = all.findIndex(isKnown);
      past = first < 0 ? [] : all.slice(first);
      base = history.base === null ? null : Number(history.base);
      revision = history.revision ?? "";
      if (range !== "1d") live = []; // they were added before it was known from where they count
      flowBefore = range === "1d" ? 0 : flowOfClose(all, today);
      const last = past.findLast(isKnown)?.at ?? 0;
      live = live.filter((point) => point.at > last);
      if (today && Date.parse(today.timestamp) > last) add(today);
    },
    add,
    interrupt(now) {
      const last = live.at(-1);
      if (last && isKnown(last)) live.push({ ...last, at: Math.max(now, last.at + 1), level: null });
    },
    clear() {
      past = live = [];
      base = null;
      revision = "";
      flowBefore = 0;
    },
  };
}

/** What had been brought in by the last close: that point has the account's last equity. Null where none has. */
function flowOfClose(points: readonly Point[], today: Value | null): number | null {
  const close = points.findLast(({ equity }) => equity !== null && equity === today?.last_equity);
  return close?.level == null ? null : Number(close.equity) - close.level;
}

/** Without its flow an equity says nothing about gains: a gap. */
function pointOf(timestamp: string, equity: string | null, flow: string | number | null): Point {
  return { timestamp, at: Date.parse(timestamp), level: equity === null || flow === null ? null : Number(equity) - Number(flow), equity };
}

export function isKnown(point: Point): point is KnownPoint {
  return point.level !== null;
}

/** The parts between gaps. */
export function pieces(points: readonly Point[]): KnownPoint[][] {
  let piece: KnownPoint[] = [];
  const found = [piece];
  for (const point of points) {
    if (isKnown(point)) piece.push(point);
    else found.push((piece = []));
  }
  return found.filter(({ length }) => length);
}

/** Round levels between two, about `count` of them. */
export function ticks(low: number, high: number, count: number): number[] {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 2.5, 5].find((factor) => factor * power >= rough) ?? 10);
  const found: number[] = [];
  for (let level = Math.ceil(low / step) * step; level <= high + step / 1e6; level += step) found.push(level);
  return found;
}

/** The known point that is nearest to a moment. */
export function nearest(points: readonly KnownPoint[], at: number): KnownPoint | undefined {
  const away = (point: KnownPoint) => Math.abs(point.at - at);
  return points[0] && points.reduce((best, point) => (away(point) < away(best) ? point : best));
}
