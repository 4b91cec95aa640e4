/**
 * What can go wrong, by code. A code says what an app can do; the close code and the time to wait travel along.
 * The sentence for people is `errorWords` of `./words`.
 */
export type ErrorCode =
  | "invalid_account_id"
  | "invalid_url"
  | "insecure_url"
  | "token_unavailable"
  | "unauthorized"
  | "connection_limit"
  | "forbidden"
  | "account_not_in_dollars"
  | "bad_message"
  | "protocol"
  | "unreachable";

export interface ErrorDetails {
  /** No further attempt is made until `resume()`. */
  readonly isFinal?: boolean | undefined;
  readonly closeCode?: number | undefined;
  /** What the server asks to wait, in milliseconds. */
  readonly retryInMs?: number | undefined;
}

/** What went wrong. Neither its message nor its fields ever hold a token, a ticket or an address. */
export class LivePortfolioError extends Error {
  declare readonly code: ErrorCode;
  declare readonly isFinal: boolean;
  declare readonly closeCode?: number;
  declare readonly retryInMs?: number;

  constructor(code: ErrorCode, details?: ErrorDetails) {
    super(code);
    Object.assign(this, { name: "LivePortfolioError", code, isFinal: false }, details);
  }
}

/** Thrown by `getToken` or `getTicket`: nobody is signed in, so it is no use to try again. */
export class NotSignedIn extends Error {
  override name = "NotSignedIn";
}

export function finalError(code: ErrorCode, closeCode?: number): LivePortfolioError {
  return new LivePortfolioError(code, { isFinal: true, closeCode });
}

/** Why a connection ended: a close code (of a WebSocket, or what an HTTP status stands for). */
export function errorOfClose(closeCode = 1006, retryInMs?: number): LivePortfolioError {
  const isOurs = closeCode >= 4500 && closeCode < 5000; // for good, but for a token that may only have expired
  const codes: Record<number, ErrorCode> = { 4500: "unauthorized", 4501: "connection_limit", 4503: "forbidden", 4504: "account_not_in_dollars" };
  return new LivePortfolioError(codes[closeCode] ?? (isOurs ? "bad_message" : "unreachable"), {
    isFinal: isOurs && closeCode > 4500 && !retryInMs, // with a time to wait, it passes
    closeCode,
    retryInMs,
  });
}
