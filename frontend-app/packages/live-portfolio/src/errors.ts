/**
 * What can go wrong, by code. A code says what an app can do; the close code and the time to wait travel along.
 */
export type ErrorCode =
  | "invalid_account_id"
  | "invalid_url"
  | "insecure_url"
  | "token_unavailable"
  | "unauthorized"
  | "connection_limit"
  | "forbidden"
  | "bad_message"
  | "protocol"
  | "unreachable";

export interface ErrorDetails {
  /** No further attempt is made until `resume()`. */
  readonly isFinal?: boolean;
  readonly closeCode?: number;
  /** What the server asks to wait, in milliseconds. */
  readonly retryInMs?: number;
}

/** What went wrong. Neither its message nor its fields ever hold a token, a ticket or an address. */
export class LivePortfolioError extends Error {
  readonly code: ErrorCode;
  readonly isFinal: boolean = false;
  declare readonly closeCode?: number;
  declare readonly retryInMs?: number;

  constructor(code: ErrorCode, message: string, details?: ErrorDetails) {
    super(message);
    this.name = "LivePortfolioError";
    this.code = code;
    Object.assign(this, details);
  }
}

/** Thrown by `getToken` or `getTicket`: nobody is signed in, so it is no use to try again. */
export class NotSignedIn extends Error {
  constructor(message = "Nobody is signed in") {
    super(message);
    this.name = "NotSignedIn";
  }
}

export function finalError(code: ErrorCode, message: string, closeCode?: number): LivePortfolioError {
  return new LivePortfolioError(code, message, { isFinal: true, ...(closeCode && { closeCode }) });
}

const REFUSED = "The server does not accept these credentials";

/** Refused, and refused again with a fresh token. */
export function refused(): LivePortfolioError {
  return finalError("unauthorized", REFUSED, 4500);
}

export function otherLanguage(): LivePortfolioError {
  return finalError("protocol", "The server speaks another language than this client");
}

/** Why a connection ended: a close code (of a WebSocket, or what an HTTP status stands for). */
export function errorOfClose(closeCode = 1006, retryInMs?: number): LivePortfolioError {
  const details = { closeCode, ...(retryInMs && { retryInMs }) };
  if (closeCode === 4500) return new LivePortfolioError("unauthorized", REFUSED, details);
  // with a time to wait, it passes
  if (closeCode === 4501) return new LivePortfolioError("connection_limit", "Too many connections are open", { ...details, isFinal: !retryInMs });
  if (closeCode === 4503) return finalError("forbidden", "There is no such account, or it is not yours", closeCode);
  if (closeCode > 4503 && closeCode < 5000) return finalError("bad_message", "The server does not understand this client", closeCode);
  return new LivePortfolioError("unreachable", "The server cannot be reached", details);
}
