import type { LivePortfolioError } from "./errors.js";
import type { Freshness, PortfolioMessage, PositionRow } from "./messages.js";
import type { Detail, Snapshot, Status, Value } from "./types.js";

type Rows = ReadonlyMap<string, Readonly<PositionRow>>;
/** What is the same for all accounts of a connection. */
export type Around = Pick<Snapshot, "link" | "transport" | "retryAt" | "error">;

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
export interface Account {
  readonly id: string;
  /** What deltas call it, where they are asked for. */
  number?: number;
  readonly listeners: Set<() => void>;
  detail: Detail;
  /** What an app sees; `value`, `positions` and `confirmedAt` of it are written here, before `refresh`. */
  snapshot: Snapshot;
  value: Value | null;
  rows: Rows;
  confirmedAt: number | null;
  /** Refused, or its id is none; only this account is concerned. */
  error: LivePortfolioError | null;
  /** Has the connection that is open now brought a value? */
  isFresh: boolean;
  /** Are the rows those of the connection that is open now? Where not, the next message has all of them. */
  isComplete: boolean;
  /** From where nothing new comes, as the server has said on the connection that is open now. */
  hops?: Value["stale_hops"];
  lingering?: ReturnType<typeof setTimeout>;
}

export function createAccount(id: string): Account {
  return {
    id, listeners: new Set(), detail: "value", snapshot: { ...UNKNOWN, accountId: id }, value: null, rows: NO_ROWS, confirmedAt: null,
    error: null, isFresh: false, isComplete: false,
  };
}

/** A new connection: nothing has come on it yet, and its first message is complete. */
export function restart(account: Account): void {
  account.isFresh = account.isComplete = false;
}

/** Its figures are not for this caller. */
export function forget(account: Account): void {
  restart(account);
  account.value = account.confirmedAt = null;
  account.rows = NO_ROWS;
}

/** Take a message, but for one that is older than what is there: false. The same one only tells that the account is followed. */
export function take(account: Account, message: PortfolioMessage): boolean {
  // what is first here takes the place of the type, which deltas count as 0
  const { type: _, positions, ...value } = { stale_hops: account.hops, ...message } as PortfolioMessage;
  const old = account.value;
  const order = old ? value.epoch - old.epoch || value.sequence - old.sequence : 1;
  if (order < 0) return false;
  if (positions) {
    account.rows = merged(account.isComplete ? account.rows : NO_ROWS, positions, account.rows);
    account.isComplete = true;
  }
  if (order || old?.stale_hops !== value.stale_hops) account.value = value;
  account.isFresh = true;
  account.confirmedAt = Date.now();
  return true;
}

/** Take what comes before a value that may be old, and when that ends. */
export function takeFreshness(account: Account, { stale_hops }: Freshness): void {
  account.hops = stale_hops;
  if (account.value) account.value = { ...account.value, stale_hops };
}

/** Make a new snapshot. Returns whether anything is different. */
export function refresh(account: Account, around: Around, isConfirmed: boolean): boolean {
  const { id: accountId, value, rows: positions, confirmedAt, snapshot } = account;
  const error = account.error ?? around.error;
  const status = statusOf(value, error, isConfirmed && account.isFresh);
  const oldSince = status === "old" ? (snapshot.oldSince ?? Date.now()) : null;
  const next: Snapshot = { ...around, accountId, status, value, positions, confirmedAt, oldSince, error };
  if ((Object.keys(next) as (keyof Snapshot)[]).every((name) => next[name] === snapshot[name])) return false;
  account.snapshot = next;
  return true;
}

function statusOf(value: Value | null, error: LivePortfolioError | null, isConfirmed: boolean): Status {
  if (error?.isFinal) return /^(forbidden|unauthorized)$/.test(error.code) ? "denied" : "failed";
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
    else rows.set(row.symbol, before && JSON.stringify(before) === JSON.stringify(row) ? before : row);
  }
  return rows;
}
