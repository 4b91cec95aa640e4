/** The words for every state, the same in every component. */
import type { ErrorCode, LivePortfolioError } from "./errors.js";
import { age, clockTime, money } from "./format.js";
import { hasAddresses } from "./parts.js";
import type { Snapshot, Value } from "./types.js";

const SYMBOLS_LISTED_MAX = 6;
const RECORD = "account_record"; // among stale symbols: what the account holds is old
/** By status, or by link where the status is `unknown` or `old`; nothing is said of the others. */
const STATE_WORDS: Readonly<Record<string, readonly [string, Tone]>> = {
  live: ["Live", "good"],
  stale: ["Prices are old", "warn"],
  unconfirmed: ["Not confirmed", "warn"],
  partial: ["Not all is priced", "warn"],
  denied: ["No access", "bad"],
  failed: ["Not connected", "bad"],
  connecting: ["Connecting…", "warn"],
  open: ["Connecting…", "warn"],
  waiting: ["Reconnecting…", "warn"],
  offline: ["Offline", "bad"],
  paused: ["Paused", "none"],
};
const MISUNDERSTOOD = "The server and this page do not understand each other";
const ERROR_WORDS: Readonly<Record<ErrorCode, string>> = {
  invalid_account_id: "An account id has 1 to 64 letters, digits, - and _",
  invalid_url: hasAddresses ? "The address must be like wss://live.example.com, without credentials" : "",
  insecure_url: hasAddresses ? "A page of https needs an address of wss://" : "",
  token_unavailable: "No token now",
  unauthorized: "The server does not accept these credentials",
  connection_limit: "Too many connections or accounts",
  forbidden: "No such account, or it is not yours",
  account_not_in_dollars: "This account is not in dollars",
  bad_message: MISUNDERSTOOD,
  protocol: MISUNDERSTOOD,
  unreachable: "The server cannot be reached",
};

export type Tone = "good" | "warn" | "bad" | "none";

/** The state in a word or two, and how it should look. */
export function stateWords({ status, link, value }: Pick<Snapshot, "status" | "link" | "value">): { readonly text: string; readonly tone: Tone } {
  const [text, tone] = STATE_WORDS[status] ?? STATE_WORDS[link] ?? ["Not connected", "none"];
  if (status !== "stale" || !value) return { text, tone };
  const hops = value.stale_hops?.join() || (value.stale.includes(RECORD) ? "collector" : "");
  return { text: hops ? (hops === "collector" ? "Holdings are old" : "Values are old") : text, tone };
}

/** What is not sure about a value, part by part: no part, no sentence. */
export function caveats(value: Value | null): string[] {
  if (!value) return [];
  const parts: string[] = [];
  if (value.unpriced.length) parts.push(`No price for ${listed(value.unpriced)}; everything else is worth ${money(value.known_equity)}`);
  if (value.awaited) parts.push(`No price yet for ${listed(value.awaited)}`);
  if (value.without_feed) parts.push(`No feed for ${listed(Object.keys(value.without_feed))}`);
  if (value.unvalued?.length) parts.push(`Moved in or out at an unknown value: ${listed(value.unvalued)}; the day's gain is not known`);
  if (value.unexplained) parts.push(`Changed without a booking: ${listed(Object.keys(value.unexplained))}; the day's gain is not known yet`);
  if (value.unconfirmed) parts.push(`Not confirmed by the broker since ${clockTime(value.unconfirmed.since)}: ${value.unconfirmed.reason}`);
  if (value.stale_hops?.length) parts.push(`Old figures: nothing new comes from the ${listed(value.stale_hops)}`);
  const ages = value.stale_ages_s ?? {};
  if (value.stale.includes(RECORD)) parts.push(`Nothing heard from the broker since ${clockTime(value.record_as_of)}`);
  const symbols = value.stale.filter((name) => name !== RECORD);
  if (symbols.length) {
    const oldest = symbols.sort((one, other) => (ages[other] ?? 0) - (ages[one] ?? 0));
    parts.push(`Old prices: ${listed(oldest.map((symbol) => (symbol in ages ? `${symbol} (${age(ages[symbol] ?? 0)})` : symbol)))}`);
  }
  return parts;
}

/** What keeps an account from being live, in a sentence; "" where nothing does. */
export function trouble({ error, link, status }: Pick<Snapshot, "error" | "link" | "status">): string {
  if (link === "paused") return "Paused: the figures stay as they are.";
  if (!error) return "";
  return errorWords(error) + (error.isFinal || status === "denied" ? "." : "; trying again.");
}

/** What went wrong, as people say it; without a full stop. */
export function errorWords({ code, closeCode }: Pick<LivePortfolioError, "code" | "closeCode">): string {
  return code === "unauthorized" && !closeCode ? "Nobody is signed in" : ERROR_WORDS[code];
}

/** "AAPL, MSFT and 3 more". */
export function listed(names: readonly string[]): string {
  const rest = names.length - SYMBOLS_LISTED_MAX;
  return names.slice(0, SYMBOLS_LISTED_MAX).join(", ") + (rest > 0 ? ` and ${rest} more` : "");
}
