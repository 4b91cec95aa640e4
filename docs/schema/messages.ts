// Made from the Python types. Do not edit; make it anew with:
// python -m portfolio_realtime.cli.write_api_documents

/** The value of one account. While a position is unpriced `equity` is null and `known_equity` is there. `awaited`, which is there only then, names symbols whose price has not been read yet: nobody knows whether there is one, and they are not in `unpriced`; `equity` is null for them, too. While a mark is stale its symbol is in `stale`, and its age at publication, in whole seconds, in `stale_ages_s`; `account_record` there says that the broker has not been heard of about this account since `record_as_of`. `unvalued` names what was transferred at a value that nobody tells, `unexplained` what has changed without any booking, and by how much: `day_pnl` is then null. The texts for people, `total_value` and `today_return`, are then "—". `unconfirmed` is there from the broker's first contradiction to its next agreement. `without_feed` names the asset classes of symbols that are held and never priced. `stale_hops` is there in an answer to one HTTP request only, see `freshness`. */
export interface PortfolioMessage {
  type: "portfolio";
  account_id: string;
  epoch: number;
  sequence: number;
  equity: string | null;
  cash: string;
  last_equity: string;
  external_cash_flow: string;
  day_pnl: string | null;
  day_pnl_ratio: number | null;
  as_of: string;
  stale: string[];
  unpriced: string[];
  total_value: string;
  today_return: string;
  timestamp: string;
  record_as_of: string;
  known_equity?: string;
  awaited?: string[];
  stale_ages_s?: Record<string, number>;
  unvalued?: string[];
  without_feed?: Record<string, string>;
  unexplained?: Record<string, string>;
  unconfirmed?: Doubt;
  stale_hops?: ("calculator" | "collector" | "server" | "valkey")[];
  positions?: PositionRow[];
}

/** Since when the broker has not confirmed the account, and by how much its figures are other than ours. `by`: symbol, `cash` or `equity` -> the broker's less ours; empty where nobody can tell. */
export interface Doubt {
  since: string;
  reason: string;
  by: Record<string, string>;
}

/** One position of a portfolio message. A position that is gone is one last row with quantity "0". */
export interface PositionRow {
  symbol: string;
  quantity: string;
  mark?: string | null;
  mark_source?: string | null;
  mark_as_of?: string | null;
  mark_quality?: string | null;
  previous_close?: string | null;
  market_value?: string | null;
  day_pnl?: string | null;
  unrealized_pnl?: string | null;
}

/** What changed since the message before, for a client that asked for it with `delta` in `subscribe`. `delta` is the number that the client gave the account. `base` is the sequence of the message before, in the epoch of `at`, or else its epoch and sequence: whoever has another one has lost something and subscribes again. `value` goes by threes: the place of a field in the message before, counted from 0; how many characters of its text stay; what follows them. What is no text stands there whole. `epoch` and `sequence` are told by `at` alone. Where fields come or go, or the epoch is new, `value` is the message without `positions`. `positions` has whole rows of what is new or gone; of others the symbol, then threes of its row. */
export interface Delta {
  type: "delta";
  delta: number;
  at: number[];
  base: number | number[];
  value: (number | string | string[] | Record<string, unknown> | null)[] | Record<string, unknown>;
  positions?: ((number | string | string[] | Record<string, unknown> | null)[] | PositionRow)[];
}

/** Is what is shown of an account of now? Sent when that changes, and before a value that is not. `stale_hops` names from where nothing fresh has come since `since`: `collector` (account records: nobody follows them, or the broker is silent), `calculator` (values), `valkey` (anything), `server` (this server is behind what the client has seen, and sends no value until it is not). While any is there, figures may be old. Prices have marks of their own: `stale` of the portfolio message. */
export interface Freshness {
  type: "freshness";
  account_id: string;
  stale_hops: ("calculator" | "collector" | "server" | "valkey")[];
  since: string;
}

/** Answers a heartbeat with the client's own timestamp, so that it can tell the round trip. */
export interface HeartbeatAck {
  type: "heartbeat_ack";
  timestamp: string | number | null;
}

/** What was wrong with a message of the client; the connection lives on. */
export interface ErrorMessage {
  type: "error";
  code: "account_not_in_dollars" | "bad_message" | "forbidden" | "too_many_messages" | "too_many_subscriptions";
  message: string;
  account_id?: string | null;
}

/** Send a fresh token within `in_s` seconds, or the connection is closed with 4004. */
export interface TokenExpiring {
  type: "token_expiring";
  in_s: number;
}

/** How far `subscribe_many` is: sent at once, each second while first values are to come, and at the end. `waiting` accounts have no first value yet; 0: all have. `refused` are those since the last such message. */
export interface Progress {
  type: "progress";
  subscribed: number;
  waiting: number;
  refused: RefusedAccount[];
}

/** One account of a `subscribe_many` that will not be sent, and why. */
export interface RefusedAccount {
  account_id: string;
  code: "account_not_in_dollars" | "bad_message" | "forbidden" | "too_many_messages" | "too_many_subscriptions";
}

/** Who the client is; sent again it refreshes the token. */
export interface Auth {
  type: "auth";
  token: string;
}

/** Send this account's publications, at most `max_frequency_hz` a second. `epoch` and `sequence`, both or none: of the newest value that the client has seen, on whichever server. Nothing older is sent. `delta`: after the first message send only what changed, as `delta` messages that call the account by this number, another one for each account of the connection. */
export interface Subscribe {
  type: "subscribe";
  account_id: string;
  detail?: "positions" | "value";
  max_frequency_hz?: number | null;
  epoch?: number | null;
  sequence?: number | null;
  delta?: number | null;
}

/** The same for many accounts of a back end, answered by `progress`. `have`, of the same length, says for each account what the client has got before, as (epoch, sequence), or null: what is not newer is not sent again. With `detail` "positions" it is not looked at. */
export interface SubscribeMany {
  type: "subscribe_many";
  account_ids: string[];
  detail?: "positions" | "value";
  have?: (number[] | null)[];
}

/** Send no more of this account. */
export interface Unsubscribe {
  type: "unsubscribe";
  account_id: string;
}

/** Is anybody there? */
export interface Heartbeat {
  type: "heartbeat";
  timestamp?: string | number | null;
}

export type ServerMessage = PortfolioMessage | Delta | Freshness | HeartbeatAck | ErrorMessage | TokenExpiring | Progress;

export type ClientMessage = Auth | Subscribe | SubscribeMany | Unsubscribe | Heartbeat;

/** Close codes of this server; 4000-4499: reconnect, 4500-4999: do not. */
export const closeCodes = {
  4001: "shutdown",
  4002: "slow consumer",
  4004: "token expired",
  4005: "lifetime reached",
  4006: "no pong",
  4007: "try later",
  4500: "unauthorized",
  4501: "connection limit",
  4503: "forbidden",
  4504: "account not in dollars",
  4505: "bad message",
} as const;
