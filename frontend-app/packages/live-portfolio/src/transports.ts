/** Where no WebSocket gets through: server-sent events for one account, polling for several. */
import type { Account } from "./account.js";
import { LivePortfolioError, errorOfClose, finalError } from "./errors.js";
import type { Subscribe } from "./messages.js";
import type { Detail, Options, Transport } from "./types.js";
import { type Wire, type WireEvents, parsed } from "./wire.js";

export { request } from "./request.js";

const POLL_MS = 5_000;
const ANSWER_MS_MAX = 8_000;
const KEEP_ALIVE_MS = 15_000; // the server writes a comment so often
const EVENT_CHARS_MAX = 4_000_000;
const CLOSE_CODES: Record<number, number> = { 401: 4500, 403: 4503, 404: 4503, 409: 4504, 429: 4501 }; // by HTTP status

const CLIMB_MS_MIN = 30_000; // on a fallback, until the WebSocket is tried again
const CLIMB_MS_MAX = 300_000;

export interface HttpOptions {
  readonly fetch: typeof globalThis.fetch;
  readonly base: string;
  readonly token: string | null;
  readonly silenceMs: number;
}

export function openHttp(kind: Transport, base: string, token: string | null, accounts: readonly Account[], options: Options, events: WireEvents): Wire {
  const one = { fetch: options.fetch ?? fetch.bind(globalThis), base, token, silenceMs: options.silenceMs ?? 10_000 };
  const { follow, leave, ...wire } = kind === "sse" && accounts.length === 1 ? openEvents(one, events) : openPolling(one, events);
  for (const account of accounts) follow(account.id, account.detail, account.value);
  return {
    ...wire,
    send(message) { // a fresh token is of no use here: the server ends a stream when its token does
      if (message.type === "subscribe") follow(message.account_id, message.detail ?? "value", message);
      if (message.type === "unsubscribe") leave(message.account_id);
    },
  };
}

type Seen = Pick<Subscribe, "epoch" | "sequence">;

/** A connection by HTTP; each account is a request of its own. */
interface HttpWire extends Omit<Wire, "send"> {
  /** `seen`: the newest value that is known, from whichever server. */
  follow(accountId: string, detail: Detail, seen?: Seen | null): void;
  leave(accountId: string): void;
}

export interface Climber {
  /** What is followed has changed: begin again. */
  again(): void;
  close(): void;
}

/** Try the WebSocket now and then while a fallback serves: until its first value nothing of it counts. */
export function climb(
  serving: WireEvents, connect: (events: WireEvents) => Promise<Wire | null>, takeOver: (wire: Wire) => void,
): Climber {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let waitMs = CLIMB_MS_MIN;
  let tried: Wire | null = null;
  let attempt = 0;
  const again = () => {
    attempt++;
    clearTimeout(timer);
    tried?.close();
    tried = null;
    timer = setTimeout(dial, waitMs);
    waitMs = Math.min(waitMs * 2, CLIMB_MS_MAX);
  };
  const dial = () => {
    const mine = attempt;
    let isServing = false;
    connect({
      onOpen: () => {},
      onMessage(message) {
        if (message.type === "portfolio" && !isServing && tried && mine === attempt) {
          isServing = true;
          const wire = tried;
          tried = null;
          takeOver(wire);
        }
        if (isServing || message.type === "freshness") serving.onMessage(message); // which comes before the first value
      },
      onConfirmed(is) {
        if (isServing) serving.onConfirmed(is);
      },
      onDown(why) {
        if (isServing) serving.onDown(why);
        else if (mine === attempt) again();
      },
    }).then(
      (wire) => (mine === attempt ? (tried = wire) : wire?.close()),
      () => mine === attempt && again(),
    );
  };
  again();
  return {
    again,
    close() {
      attempt++;
      clearTimeout(timer);
      tried?.close();
    },
  };
}

/** Ask once. Throws the LivePortfolioError that a close code would be. */
async function ask(options: HttpOptions, path: string, signal: AbortSignal, seen?: Seen | null): Promise<Response> {
  const headers = {
    ...(options.token && { Authorization: `Bearer ${options.token}` }),
    ...(seen?.epoch && { "Last-Event-ID": `${seen.epoch}-${seen.sequence}` }),
  };
  const answer = await options.fetch(options.base + path, { headers, signal, cache: "no-store" });
  if (answer.ok) return answer;
  const closeCode = CLOSE_CODES[answer.status];
  throw errorOfClose(closeCode, 1000 * Number(answer.headers.get("Retry-After")) || (closeCode === 4501 ? POLL_MS : undefined));
}

/** `GET /v1/portfolio/{id}/stream`, by fetch, as an EventSource sends no Authorization. */
export function openEvents(options: HttpOptions, events: WireEvents): HttpWire {
  const streams = new Map<string, AbortController>();
  const close = () => {
    for (const stop of streams.values()) stop.abort();
    streams.clear();
  };
  const down = (error: LivePortfolioError) => {
    close();
    events.onDown(error);
  };
  const take = (text: string) => {
    const data = text.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
    if (!data) return;
    if (/^event: ?close$/m.test(text)) throw errorOfClose(Number(JSON.parse(data).code));
    const message = parsed(data);
    if (!message) throw finalError("protocol");
    events.onMessage(message);
  };
  const run = async (accountId: string, detail: Detail, stop: AbortController, seen?: Seen | null) => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const patient = (limitMs: number) => {
      clearTimeout(timer);
      timer = setTimeout(() => stop.abort("silence"), limitMs);
    };
    try {
      patient(ANSWER_MS_MAX);
      const answer = await ask(options, `/v1/portfolio/${accountId}/stream?detail=${detail}`, stop.signal, seen);
      events.onOpen();
      for await (const block of blocks(answer, () => patient(KEEP_ALIVE_MS + options.silenceMs))) {
        if (stop.signal.aborted) break;
        take(block);
      }
      throw errorOfClose();
    } catch (why) {
      const isOurs = stop.signal.aborted && stop.signal.reason !== "silence";
      if (!isOurs) down(why instanceof LivePortfolioError ? why : errorOfClose());
    } finally {
      clearTimeout(timer);
    }
  };
  const leave = (accountId: string) => {
    streams.get(accountId)?.abort();
    streams.delete(accountId);
  };
  return {
    follow(accountId, detail, seen) {
      leave(accountId);
      const stop = new AbortController();
      streams.set(accountId, stop);
      void run(accountId, detail, stop, seen);
    },
    leave,
    probe: () => {},
    close,
  };
}

/** The blocks of an event stream; `onHeard` at each piece, comments too. */
async function* blocks(answer: Response, onHeard: () => void): AsyncGenerator<string> {
  const reader = (answer.body as ReadableStream<Uint8Array<ArrayBuffer>>).pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    onHeard();
    const { done, value } = await reader.read();
    if (done) return;
    const found = (text + value).replaceAll("\r\n", "\n").split("\n\n");
    text = found.pop() ?? "";
    if (text.length > EVENT_CHARS_MAX) throw finalError("protocol");
    yield* found;
  }
}

/** `GET /v1/portfolio/{id}` of each account in turn, every POLL_MS. */
export function openPolling(options: HttpOptions, events: WireEvents): HttpWire {
  const wanted = new Map<string, Detail>();
  const stop = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isOpen = false;
  let isAsking = false;
  const close = () => {
    clearTimeout(timer);
    stop.abort();
  };
  const down = (error: LivePortfolioError) => {
    if (stop.signal.aborted) return;
    close();
    events.onDown(error);
  };
  const one = async (accountId: string, detail: Detail) => {
    const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(ANSWER_MS_MAX)]);
    const answer = await ask(options, `/v1/portfolio/${accountId}?detail=${detail}`, signal);
    const message = parsed(await answer.text());
    if (stop.signal.aborted) return;
    if (!message) throw finalError("protocol");
    if (!isOpen) events.onOpen();
    isOpen = true;
    events.onMessage(message);
  };
  const round = async () => {
    if (isAsking || stop.signal.aborted) return;
    isAsking = true;
    clearTimeout(timer);
    try {
      for (const [accountId, detail] of wanted) {
        await one(accountId, detail).catch((why) => {
          if (why.code !== "forbidden") throw why;
          wanted.delete(accountId);
          events.onMessage({ type: "error", code: "forbidden", message: "", account_id: accountId });
        });
      }
      timer = setTimeout(round, POLL_MS);
    } catch (why) {
      down(why instanceof LivePortfolioError ? why : errorOfClose());
    } finally {
      isAsking = false;
    }
  };
  return {
    follow(accountId, detail) {
      wanted.set(accountId, detail);
      queueMicrotask(round);
    },
    leave: (accountId) => void wanted.delete(accountId),
    probe: () => void round(),
    close,
  };
}
