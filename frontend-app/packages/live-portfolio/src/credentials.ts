import { LivePortfolioError, finalError } from "./errors.js";
import type { Options, Why } from "./types.js";

const CALLBACK_MS_MAX = 10_000;

type Reason = Why["reason"];

export interface Credentials {
  /** The newest token, for requests beside the connection. */
  token: string | null;
  /** A token; questions that come together get one answer. Throws LivePortfolioError. */
  forToken(reason: Reason): Promise<string | null>;
  /** A ticket, each time another. Throws LivePortfolioError. */
  forTicket(reason: Reason): Promise<string>;
  /** No answer is waited for any more. */
  abort(): void;
}

/** Asks the app for tokens and tickets: one question at a time, with a limit, and its errors made ours. */
export function createCredentials({ getToken = () => null, getTicket = () => "" }: Options): Credentials {
  let asking: Promise<string | null> | null = null;
  let stop: AbortController | undefined;

  const ask = async <T>(callback: (why: Why) => Promise<T> | T, reason: Reason): Promise<T> => {
    const mine = (stop = new AbortController());
    const timer = setTimeout(() => mine.abort(), CALLBACK_MS_MAX);
    try {
      return await new Promise<T>((resolve, reject) => {
        mine.signal.addEventListener("abort", reject);
        Promise.resolve(callback({ reason, signal: mine.signal })).then(resolve, reject);
      });
    } catch (why) {
      const isSignedOut = (why as Error | null)?.name === "NotSignedIn"; // by name: there may be two copies of us
      throw isSignedOut ? finalError("unauthorized") : new LivePortfolioError("token_unavailable");
    } finally {
      clearTimeout(timer);
    }
  };
  const made: Credentials = {
    token: null,
    async forToken(reason) {
      asking ??= ask(getToken, reason).finally(() => (asking = null));
      return (made.token = await asking);
    },
    forTicket: (reason) => ask(getTicket, reason),
    abort() {
      stop?.abort();
      asking = null;
    },
  };
  return made;
}
