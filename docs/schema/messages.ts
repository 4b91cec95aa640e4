// Made from the Python types. Do not edit; write it again with:
// python -m portfolio_realtime.cli.write_api_documents

/** The value of one account. `equity` is null while a position has no price. `known_equity` is then present, with the sum of the rest. `unpriced` names the symbols without a price. `awaited` names symbols whose price has not been read yet; they are not in `unpriced`, and `equity` is null for them too. `without_feed` names the asset classes of held symbols that no feed prices. While a mark is stale, its symbol is in `stale`, and `stale_ages_s` has its age at publication in whole seconds. `account_record` in `stale` means that the broker has stated nothing readable about this account since `record_as_of`. `unvalued` names what was transferred at an unknown value. `unexplained` names what has changed without a booking, and by how much. With either, `day_pnl` is null. The text of a figure that is null (`total_value`, `today_return`) is "—". `unconfirmed` is present from the broker's first contradiction to its next agreement. `stale_hops` is present only in HTTP answers; see `freshness`. */
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

/** Since when the broker has not confirmed the account, why, and by how much its figures differ from ours. `by`: symbol, `cash` or `equity` -> the broker's figure minus ours; empty when this is not known. */
export interface Doubt {
  since: string;
  reason: string;
  by: Record<string, string>;
}

/** One position of a portfolio message. When it is gone, its last row has quantity "0". */
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

/** What changed since the previous message, for a client that sent `delta` in `subscribe`. `delta` is the number that the client gave the account. `base` is the sequence of the previous message if it has the epoch of `at`, else its epoch and sequence. A client with another base has lost a message and subscribes again. `value` is a list of threes: the place of a field in the previous message, counted from 0; how many characters of its text stay; and the text after them. A value that is not text is whole. `epoch` and `sequence` are only in `at`. If fields are added or removed, or the epoch is new, `value` is the message without `positions`. `positions` has the whole rows of new and removed positions; for others the symbol, then threes of its row. */
export interface Delta {
  type: "delta";
  delta: number;
  at: number[];
  base: number | number[];
  value: (number | string | string[] | Record<string, unknown> | null)[] | Record<string, unknown>;
  positions?: ((number | string | string[] | Record<string, unknown> | null)[] | PositionRow)[];
}

/** Whether an account's figures are current. Sent when this changes, and before an old value. `stale_hops` names the components that have delivered nothing new since `since`: `collector` (account records: nobody follows them, or the broker is silent), `calculator` (values), `valkey` (everything), `server` (this server is behind what the client has seen, and sends no value until it has caught up). While the list is not empty, figures may be old. Stale prices are in `stale` of the portfolio message. */
export interface Freshness {
  type: "freshness";
  account_id: string;
  stale_hops: ("calculator" | "collector" | "server" | "valkey")[];
  since: string;
}

/** Answers a heartbeat with the client's own timestamp, so that it can measure the round trip. */
export interface HeartbeatAck {
  type: "heartbeat_ack";
  timestamp: string | number | null;
}

/** What was wrong with a client message. The connection stays open. */
export interface ErrorMessage {
  type: "error";
  code: "account_not_in_dollars" | "bad_message" | "forbidden" | "too_many_messages" | "too_many_subscriptions";
  message: string;
  account_id?: string | null;
}

/** The client must send a new token within `in_s` seconds, or the connection is closed with 4004. */
export interface TokenExpiring {
  type: "token_expiring";
  in_s: number;
}

/** Progress of `subscribe_many`: sent at once, each second while first values are missing, and last. `waiting`: how many accounts have no first value yet. `refused`: the accounts refused since the last progress message. */
export interface Progress {
  type: "progress";
  subscribed: number;
  waiting: number;
  refused: RefusedAccount[];
}

/** An account of a `subscribe_many` that was refused, and why. */
export interface RefusedAccount {
  account_id: string;
  code: "account_not_in_dollars" | "bad_message" | "forbidden" | "too_many_messages" | "too_many_subscriptions";
}

/** The client's token; sent again, it replaces an expiring one. */
export interface Auth {
  type: "auth";
  token: string;
}

/** Send this account's publications, at most `max_frequency_hz` a second. `epoch` and `sequence` (both or neither) are those of the newest value that the client has received, from any server. Nothing older is sent. `delta`: after the first message, send only what changed, in `delta` messages with this number. Each account of a connection has a different number. */
export interface Subscribe {
  type: "subscribe";
  account_id: string;
  detail?: "positions" | "value";
  max_frequency_hz?: number | null;
  epoch?: number | null;
  sequence?: number | null;
  delta?: number | null;
}

/** Send the publications of many accounts, for a back end; answered by `progress`. `have`, of the same length, has for each account the newest (epoch, sequence) that the client has received, or null. Only newer values are sent. With `detail` "positions" it is ignored. */
export interface SubscribeMany {
  type: "subscribe_many";
  account_ids: string[];
  detail?: "positions" | "value";
  have?: (number[] | null)[];
}

/** Stop sending this account's publications. */
export interface Unsubscribe {
  type: "unsubscribe";
  account_id: string;
}

/** Asks for a `heartbeat_ack`. */
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
