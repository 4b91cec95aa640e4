import type { LivePortfolioError } from "./errors.js";
import type { PortfolioMessage, PositionRow } from "./messages.js";

/** What the connection is doing. One connection carries all accounts of a client. */
export type Link = "idle" | "connecting" | "open" | "waiting" | "offline" | "paused" | "closed";

/**
 * What the figures of an account are worth.
 *
 * - `unknown`: there never was a value: show a dash or a skeleton
 * - `live`: confirmed on the connection that is open now
 * - `stale`: live, but `value.stale` names prices that are old, or `value.stale_hops` from where nothing new comes
 * - `unconfirmed`: live, but the broker contradicts the account's record, or has not confirmed it yet
 * - `partial`: live, but a position has no price: `equity` is null, `known_equity` is the rest
 * - `old`: a value from a connection that is gone or silent: show it dimmed, with its time
 * - `denied`: not signed in, or not this caller's account; there are no figures
 * - `failed`: something that only `resume()` starts again
 */
export type Status = "unknown" | "live" | "stale" | "unconfirmed" | "partial" | "old" | "denied" | "failed";

export type Transport = "websocket" | "sse" | "polling";
export type Detail = "value" | "positions";

/** The newest message of an account. Money is a decimal text in dollars, a ratio a number, a time RFC 3339. */
export type Value = Readonly<Omit<PortfolioMessage, "type" | "positions">>;

/** An account at one moment. The same object until something of it changes. */
export interface Snapshot {
  readonly accountId: string;
  readonly status: Status;
  readonly link: Link;
  readonly transport: Transport | null;
  readonly value: Value | null;
  /** By symbol. A row is the same object until one of its fields changes. Empty without detail "positions". */
  readonly positions: ReadonlyMap<string, Readonly<PositionRow>>;
  /** When the newest message of this account came, by this device's clock in milliseconds. */
  readonly confirmedAt: number | null;
  /** Since when the value is `old`, likewise. */
  readonly oldSince: number | null;
  /** When the next attempt to connect is due, likewise. */
  readonly retryAt: number | null;
  readonly error: LivePortfolioError | null;
}

/** What a log wants to know. Never a token, a ticket or an address. */
export type LiveEvent =
  | { readonly type: "link"; readonly link: Link; readonly transport: Transport | null }
  | { readonly type: "retry"; readonly inMs: number; readonly attempt: number }
  | { readonly type: "error"; readonly error: LivePortfolioError }
  | { readonly type: "ignored"; readonly code: "unknown_type" | "unknown_account" | "older" | "server_error" };

export interface Why {
  /** `connect`: for a new connection; `expiring`: the one in use runs out; `rejected`: the last one was refused. */
  readonly reason: "connect" | "expiring" | "rejected";
  /** Aborted when the answer is not needed any more, or takes too long. */
  readonly signal: AbortSignal;
}

export interface Options {
  /**
   * Where the server is: `wss://realtime.example.com`, or a template with `{accountId}`, or several to try in
   * turn. Without it this page's own host, and on a loopback page ports 8001 and 8000 of it, too.
   */
  readonly url?: string | readonly string[] | undefined;
  /** A token for the next connection; null where the server asks for none. Throw `NotSignedIn` to stop. */
  readonly getToken?: ((why: Why) => Promise<string | null> | string | null) | undefined;
  /** Instead of a token: a ticket for one connection, as `POST /v1/tickets` of your back end gives it. */
  readonly getTicket?: ((why: Why) => Promise<string> | string) | undefined;
  /** In the order in which they are tried. */
  readonly transports?: readonly Transport[] | undefined;
  /** At most so many messages a second for each account. */
  readonly maxFrequencyHz?: number | undefined;
  /** After so long without any message the server is asked whether it is there. Default 5,000. */
  readonly heartbeatMs?: number | undefined;
  /** After so long without any message the value is old and the connection replaced. Default 10,000. */
  readonly silenceMs?: number | undefined;
  /** For so long after its last subscriber an account stays subscribed. Default 1,000. */
  readonly lingerMs?: number | undefined;
  readonly onEvent?: ((event: LiveEvent) => void) | undefined;
  /** Other implementations, for tests and for runtimes that have none. */
  readonly WebSocket?: typeof globalThis.WebSocket | undefined;
  readonly fetch?: typeof globalThis.fetch | undefined;
}

export interface RequestOptions {
  readonly signal?: AbortSignal;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface LivePortfolio {
  /** Follow an account: `listener` is called at most once a frame. The answer ends it. */
  subscribe(accountId: string, listener: () => void, options?: { readonly detail?: Detail }): () => void;
  getSnapshot(accountId: string): Snapshot;
  /** One constant: what a server renders, and what a browser renders first. */
  getServerSnapshot(): Snapshot;
  /** An authorised GET of the server's HTTP side, `/v1/…`; a refused token is renewed once. */
  request(path: string, init?: RequestOptions): Promise<Response>;
  /** Is the server there? Answered within 2 s, or the connection is replaced. */
  probe(): void;
  /** Close the connection and keep what is shown, as old, until `resume()`. */
  pause(): void;
  /** Connect again; also after what was final, such as a refused token. */
  resume(): void;
  /** End everything; subscribers stay with what they have. */
  close(): void;
}
