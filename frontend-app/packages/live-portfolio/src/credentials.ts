import { LivePortfolioError } from "./errors.js";
import type { Options, Why } from "./types.js";

const CALLBACK_MS_MAX = 10_000;

type Reason = Why["reason"];

/** Asks the app for tokens and tickets: one question at a time, with a limit, and its errors made ours. */
export class Credentials {
  readonly #options: Options;
  #asking: Promise<string | null> | null = null;
  #stop = new AbortController();
  /** The newest token, for requests beside the connection. */
  token: string | null = null;

  constructor(options: Options) {
    this.#options = options;
  }

  get isAny(): boolean {
    return Boolean(this.#options.getToken ?? this.#options.getTicket);
  }

  get isTicket(): boolean {
    return Boolean(this.#options.getTicket);
  }

  /** A token; questions that come together get one answer. Throws LivePortfolioError. */
  async forToken(reason: Reason): Promise<string | null> {
    const { getToken } = this.#options;
    if (!getToken) return null;
    this.#asking ??= this.#ask(getToken, reason).finally(() => (this.#asking = null));
    this.token = await this.#asking;
    return this.token;
  }

  async forTicket(reason: Reason): Promise<string> {
    const { getTicket } = this.#options;
    return getTicket ? this.#ask(getTicket, reason) : "";
  }

  /** No answer is waited for any more. */
  abort(): void {
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#asking = null;
  }

  async #ask<T>(callback: (why: Why) => Promise<T> | T, reason: Reason): Promise<T> {
    const stop = this.#stop;
    const ended = new Promise<never>((_, reject) => stop.signal.addEventListener("abort", reject));
    const timer = setTimeout(() => stop.abort(), CALLBACK_MS_MAX);
    try {
      return await Promise.race([ended, (async () => callback({ reason, signal: stop.signal }))()]);
    } catch (why) {
      const isSignedOut = (why as Error | null)?.name === "NotSignedIn"; // by name: there may be two copies of us
      throw isSignedOut
        ? new LivePortfolioError("unauthorized", "Nobody is signed in", { isFinal: true })
        : new LivePortfolioError("token_unavailable", "No token can be had now");
    } finally {
      clearTimeout(timer);
      if (stop === this.#stop) this.#stop = new AbortController();
    }
  }
}
