import type { LivePortfolioError } from "./errors.js";
import type { Freshness, PortfolioMessage, PositionRow } from "./messages.js";
import type { Detail, Snapshot, Status, Value } from "./types.js";

type Rows = ReadonlyMap<string, Readonly<PositionRow>>;
/** What is the same for all accounts of a connection. */
export type Around = Pick<Snapshot, "link" | "transport" | "retryAt" | "error">;
export type Taken = "newer" | "same" | "older";

const NO_ROWS: Rows = new Map();

/** Before anything is known, and for ever on a server that renders. */
export const UNKNOWN: Snapshot = {
  accountId: "",
  status: "unknown",
  link: "idle",
  transport: null,
  value: null,
  positions: NO_ROWS,
  confirmedAt: null,
  oldSince: null,
  retryAt: null,
  error: null,
};

/** One account: its newest value and rows, whom to tell, and what it looks like. Knows no socket and no clock. */
export class Account {
  readonly id: string;
  readonly listeners = new Set<() => void>();
  detail: Detail = "value";
  snapshot: Snapshot;
  /** Refused, or its id is none; only this account is concerned. */
  error: LivePortfolioError | null = null;
  /** Has the connection that is open now brought a value? */
  isFresh = false;
  /** Are the rows those of the connection that is open now? Where not, the next message has all of them. */
  isComplete = false;
  /** From where nothing new comes, as the server has said on the connection that is open now. */
  staleHops: Value["stale_hops"] = undefined;
  confirmedAt: number | null = null;
  oldSince: number | null = null;
  lingerTimer: ReturnType<typeof setTimeout> | undefined;
  #value: Value | null = null;
  #rows: Rows = NO_ROWS;

  constructor(id: string) {
    this.id = id;
    this.snapshot = { ...UNKNOWN, accountId: id };
  }

  /** A new connection: nothing has come on it yet, and its first message is complete. */
  restart(): void {
    this.isFresh = this.isComplete = false;
  }

  /** Its figures are not for this caller. */
  forget(): void {
    this.restart();
    this.#value = null;
    this.#rows = NO_ROWS;
    this.confirmedAt = null;
  }

  /** Take a message; an older one only tells that the account is followed. */
  take(message: PortfolioMessage, nowMs: number): Taken {
    const { type: _, positions, ...value } = { stale_hops: this.staleHops, ...message } as PortfolioMessage;
    const old = this.#value;
    const order = old ? value.epoch - old.epoch || value.sequence - old.sequence : 1;
    if (order < 0) return "older";
    if (positions) {
      this.#rows = merged(this.isComplete ? this.#rows : NO_ROWS, positions, this.#rows);
      this.isComplete = true;
    }
    if (order > 0 || old?.stale_hops !== value.stale_hops) this.#value = value;
    this.isFresh = true;
    this.confirmedAt = nowMs;
    return order ? "newer" : "same";
  }

  /** Take what comes before a value that may be old, and when that ends. */
  takeFreshness({ stale_hops: hops }: Freshness): void {
    this.staleHops = hops;
    if (this.#value) this.#value = { ...this.#value, stale_hops: hops };
  }

  /** Make the snapshot anew; was anything different? */
  refresh(around: Around, isConfirmed: boolean, nowMs: number): boolean {
    const error = this.error ?? around.error;
    const status = statusOf(this.#value, error, isConfirmed && this.isFresh);
    this.oldSince = status === "old" ? (this.oldSince ?? nowMs) : null;
    const { id: accountId, confirmedAt, oldSince } = this;
    const next: Snapshot = { ...around, accountId, status, value: this.#value, positions: this.#rows, confirmedAt, oldSince, error };
    if (isShallowEqual(next, this.snapshot)) return false;
    this.snapshot = next;
    return true;
  }
}

function statusOf(value: Value | null, error: LivePortfolioError | null, isConfirmed: boolean): Status {
  if (error?.code === "forbidden" || (error?.code === "unauthorized" && error.isFinal)) return "denied";
  if (error?.isFinal) return "failed";
  if (!value) return "unknown";
  if (!isConfirmed) return "old";
  if (value.equity === null) return "partial";
  if (value.stale.length || value.stale_hops?.length) return "stale";
  return value.unconfirmed ? "unconfirmed" : "live";
}

/** Rows that changed on top of those there are; `known` lends its objects to rows that say the same. */
function merged(base: Rows, changed: readonly PositionRow[], known: Rows): Rows {
  const rows = new Map(base);
  for (const row of changed) {
    const before = known.get(row.symbol);
    if (row.market_value === undefined) rows.delete(row.symbol); // gone; one that was closed in the day has figures
    else rows.set(row.symbol, before && isShallowEqual(before, row) ? before : row);
  }
  return rows;
}

/** Have two objects the same fields? */
export function isShallowEqual(one: unknown, other: unknown): boolean {
  if (one === other) return true;
  if (typeof one !== "object" || typeof other !== "object" || !one || !other) return false;
  const names = Object.keys(one);
  const [left, right] = [one as Record<string, unknown>, other as Record<string, unknown>];
  return names.length === Object.keys(right).length && names.every((name) => name in right && left[name] === right[name]);
}
