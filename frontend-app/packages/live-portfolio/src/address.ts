import { finalError } from "./errors.js";

const PLACE = "{accountId}";
const PLACE_IN_PATH = "%7BaccountId%7D"; // as URL writes it
const OWN_PATH = /\/ws(\/portfolio\/\{accountId\})?\/?$/;
const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/;
const GUESSED_PORTS = ["8001", "8000"];

/** Where one server is: its WebSockets and its HTTP side. */
export interface Address {
  /** For one account. */
  readonly one: (accountId: string) => string;
  /** For several, or null where the address is a template that knows only one. */
  readonly several: string | null;
  /** Base of `/v1/…`, without a slash at the end. */
  readonly http: string;
}

export function isAccountId(text: string): boolean {
  return /^[A-Za-z0-9_-]{1,64}$/.test(text);
}

/** The addresses to try in turn. Throws LivePortfolioError: invalid_url, insecure_url. */
export function addressesOf(url: string | readonly string[] | undefined): Address[] {
  const given = typeof url === "string" ? [url] : (url ?? []);
  const texts = given.filter((text) => text.trim() !== "");
  return (texts.length ? texts : guessed()).map(addressOf);
}

/** Without an address: the page's own host; ports are only guessed where the page itself is on loopback. */
function guessed(): string[] {
  const { protocol, host, hostname, port } = globalThis.location ?? { host: "" };
  if (!host) return [""];
  const ports = LOOPBACK.test(hostname) ? GUESSED_PORTS.filter((other) => other !== port) : [];
  return [`${protocol}//${host}`, ...ports.map((other) => `http://${hostname}:${other}`)];
}

function addressOf(text: string): Address {
  let parsed: URL | undefined;
  try {
    parsed = new URL(text.trim().replace(/^http/, "ws"));
  } catch {} // said below
  if (!parsed || !/^wss?:$/.test(parsed.protocol) || parsed.username || parsed.password) {
    throw finalError("invalid_url");
  }
  const { origin, search: query } = parsed;
  if (parsed.protocol === "ws:" && globalThis.location?.protocol === "https:" && !LOOPBACK.test(parsed.hostname)) {
    throw finalError("insecure_url");
  }
  const template = origin + parsed.pathname.replace(PLACE_IN_PATH, PLACE);
  const isOwn = OWN_PATH.test(template) || !template.includes(PLACE);
  const base = template.replace(OWN_PATH, "").replace(/\/$/, "");
  return {
    one: (accountId) => (isOwn ? `${base}/ws/portfolio/${accountId}` : template.replace(PLACE, accountId)) + query,
    several: isOwn ? `${base}/ws${query}` : null,
    http: (isOwn ? base : origin).replace(/^ws/, "http"),
  };
}

/** The address with these parameters, as far as they have a value. */
export function withQuery(url: string, query: Readonly<Record<string, string | number | undefined>>): string {
  const made = new URL(url);
  for (const [name, value] of Object.entries(query)) if (value) made.searchParams.set(name, String(value));
  return made.href;
}
