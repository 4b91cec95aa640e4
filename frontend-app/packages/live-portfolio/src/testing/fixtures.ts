import { UNKNOWN } from "../account.js";
import { LivePortfolioError } from "../errors.js";
import type { PositionRow } from "../messages.js";
import type { LivePortfolio, Snapshot, Value } from "../types.js";
import { portfolioMessage } from "./server.js";

const ACCOUNT_ID = "0d18ae51-6a5c-4a5e-9b1c-0a8f6d3c2b1a";
const AT = Date.parse("2026-11-20T15:04:05.123Z");

function row(symbol: string, quantity: string, mark: string | null, previousClose: string, unrealized: string, quality = "iex"): PositionRow {
  const cents = mark === null ? null : Math.round(Number(quantity) * Number(mark) * 100);
  const before = Math.round(Number(quantity) * Number(previousClose) * 100);
  const text = (amount: number | null) => (amount === null ? null : (amount / 100).toFixed(2));
  return {
    symbol,
    quantity,
    mark,
    mark_source: mark === null ? null : "iex",
    mark_as_of: mark === null ? null : "2026-11-20T15:04:04.000000Z",
    mark_quality: mark === null ? null : quality,
    previous_close: previousClose,
    market_value: text(cents),
    day_pnl: cents === null ? null : text(cents - before),
    unrealized_pnl: cents === null ? null : unrealized,
  };
}

const ROWS: readonly PositionRow[] = [
  row("AAPL", "120", "270.155", "266.25", "8423.10"),
  row("BRK.B", "14", "503.2", "505.9", "612.40"),
  row("BTC/USD", "0.123456789", "91234.5", "90011.2", "-311.07", "real_time_crypto"),
];

const VALUE: Value = (() => {
  const { type: _, positions: __, ...value } = portfolioMessage(ACCOUNT_ID, {
    sequence: 17,
    equity: "104211.37",
    cash: "53484.23",
    last_equity: "103002.10",
    day_pnl: "1209.27",
    day_pnl_ratio: 0.0117402,
    total_value: "$104,211.37",
    today_return: "+$1,209.27 (+1.17%)",
  });
  return value;
})();

function state(changes: Partial<Snapshot> = {}, value: Partial<Value> | null = {}, rows: readonly PositionRow[] = ROWS): Snapshot {
  return {
    ...UNKNOWN,
    accountId: ACCOUNT_ID,
    status: "live",
    link: "open",
    transport: "websocket",
    value: value && { ...VALUE, ...value },
    positions: new Map(value ? rows.map((one) => [one.symbol, one]) : []),
    confirmedAt: AT,
    ...changes,
  };
}

function unknownDay(): Partial<Value> {
  return { day_pnl: null, day_pnl_ratio: null, today_return: "—" };
}

function unknownTotal(symbols: string[], known: string): Partial<Value> {
  return { equity: null, total_value: "—", unpriced: symbols, known_equity: known, ...unknownDay() };
}

const unreachable = new LivePortfolioError("unreachable", { closeCode: 1006 });

/** Every state that an account on a screen can be in, by name. */
export const states = {
  unknown: { ...UNKNOWN, accountId: ACCOUNT_ID, link: "connecting", transport: "websocket" },
  live: state(),
  loss: state({}, { day_pnl: "-1209.27", day_pnl_ratio: -0.0117402, today_return: "-$1,209.27 (-1.17%)" }),
  unchanged: state({}, { day_pnl: "0.00", day_pnl_ratio: 0, today_return: "$0.00 (0.00%)" }),
  empty: state({}, { equity: "53484.23", total_value: "$53,484.23" }, []),
  zero: state({}, { equity: "0.00", cash: "0.00", last_equity: "0.00", total_value: "$0.00", day_pnl: "0.00", day_pnl_ratio: null, today_return: "$0.00" }, []),
  stale: state({ status: "stale" }, { stale: ["BRK.B", "AAPL"], stale_ages_s: { "BRK.B": 7300, AAPL: 59 } }),
  staleRecord: state({ status: "stale" }, { stale: ["account_record"], stale_ages_s: { account_record: 65 } }),
  partial: state({ status: "partial" }, unknownTotal(["NEWCO"], "104211.37"), [...ROWS, row("NEWCO", "3", null, "0", "0.00")]),
  unvalued: state({}, { ...unknownDay(), unvalued: ["AAPL"] }),
  unconfirmed: state({ status: "unconfirmed" }, { unconfirmed: { since: "2026-11-20T15:03:00.000000Z", reason: "the broker states another quantity of AAPL", by: { AAPL: "1" } } }),
  unexplained: state({}, { ...unknownDay(), unexplained: { cash: "500.00" } }),
  everything: state(
    { status: "partial" },
    { ...unknownTotal(["NEWCO"], "104211.37"), unvalued: ["AAPL"], stale: ["BRK.B"], stale_ages_s: { "BRK.B": 90_000 } },
    [...ROWS, row("NEWCO", "3", null, "0", "0.00")],
  ),
  old: state({ status: "old", link: "waiting", transport: null, oldSince: AT, error: unreachable }),
  offline: state({ status: "old", link: "offline", transport: null, oldSince: AT, error: unreachable }),
  paused: state({ status: "old", link: "paused", transport: null, oldSince: AT }),
  unreachable: state({ status: "unknown", link: "waiting", transport: null, error: unreachable, confirmedAt: null }, null),
  denied: state({
    status: "denied", link: "closed", transport: null, confirmedAt: null,
    error: new LivePortfolioError("forbidden", { isFinal: true, closeCode: 4503 }),
  }, null),
  signedOut: state({
    status: "denied", link: "closed", transport: null, confirmedAt: null,
    error: new LivePortfolioError("unauthorized", { isFinal: true, closeCode: 4500 }),
  }, null),
  failed: state({
    status: "failed", link: "closed", transport: null,
    error: new LivePortfolioError("connection_limit", { isFinal: true, closeCode: 4501 }),
  }),
} satisfies Record<string, Snapshot>;

export type StateName = keyof typeof states;

/** A day in minutes, with a gap, as `GET /v1/portfolio/{id}/history` tells it. */
export const history = {
  base: "103002.10",
  points: Array.from({ length: 90 }, (_, minute) => {
    const gained = minute === 40 ? null : 400 * Math.sin(minute / 14) + 9 * minute;
    return {
      timestamp: new Date(AT - (90 - minute) * 60_000).toISOString(),
      equity: gained === null ? null : (103002.1 + gained).toFixed(2),
      external_cash_flow: "0.00",
      day_pnl: gained === null ? null : gained.toFixed(2),
    };
  }),
};

/** A client whose accounts are what they are, for stories, states pages and tests of layout. */
export function createFixedPortfolio(snapshots: Readonly<Record<string, Snapshot>>, answers: Readonly<Record<string, unknown>> = {}): LivePortfolio {
  return {
    subscribe: () => () => {},
    getSnapshot: (accountId) => snapshots[accountId] ?? UNKNOWN,
    getServerSnapshot: () => UNKNOWN,
    request: async (path) => {
      const answer = answers[path];
      return answer === undefined ? new Response(null, { status: 404 }) : Response.json(answer);
    },
    probe() {},
    pause() {},
    resume() {},
    close() {},
  };
}
