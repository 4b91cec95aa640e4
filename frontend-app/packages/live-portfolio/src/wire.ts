import { type LivePortfolioError, errorOfClose, finalError, otherLanguage } from "./errors.js";
import type { Freshness, PortfolioMessage, ServerMessage } from "./messages.js";
import type { Detail, Options } from "./types.js";

/** What a connection tells, whatever carries it. After `onDown` it tells nothing more. */
export interface WireEvents {
  onOpen(): void;
  onMessage(message: PortfolioMessage): void;
  onFreshness(message: Freshness): void;
  onTokenExpiring(): void;
  /** The server refuses one account. */
  onForbidden(accountId: string): void;
  onIgnored(code: "unknown_type" | "server_error"): void;
  /** Whether what came is from now: not after a sleep, until the server has answered. */
  onConfirmed(isConfirmed: boolean): void;
  onDown(error: LivePortfolioError): void;
}

export interface Wire {
  follow(accountId: string, detail: Detail): void;
  leave(accountId: string): void;
  renew(token: string): void;
  probe(): void;
  close(): void;
}

const OPEN_MS_MAX = 8_000;
const TICK_MS = 1_000;
const SLEEP_MS = 5_000; // a timer that is so late has slept
const PROBE_MS_MAX = 2_000;
const NORMAL = 1000;

/** One WebSocket, alive as long as the server answers. Throws LivePortfolioError: invalid_url. */
export function openSocket(url: string, token: string | null, options: Options, events: WireEvents): Wire {
  const { heartbeatMs = 5_000, silenceMs = 10_000, maxFrequencyHz } = options;
  let socket: WebSocket;
  try {
    socket = new (options.WebSocket ?? WebSocket)(url);
  } catch {
    throw finalError("invalid_url", "The browser refuses the address");
  }
  const startedAt = Date.now();
  let heardAt = startedAt;
  let tickedAt = startedAt;
  let askedAt: number | null = null; // a heartbeat is not answered yet
  let patienceMs = 0;
  let isConfirmed = true;
  let isOpen = false;
  let isDone = false;
  let isLate = false; // this turn of the timer
  const unsent: object[] = [];

  const send = (message: object) => {
    if (isOpen) socket.send(JSON.stringify(message));
    else unsent.push(message);
  };
  const confirm = (is: boolean) => {
    if (isConfirmed !== is) events.onConfirmed((isConfirmed = is));
  };
  const finish = () => {
    isDone = true;
    clearInterval(ticking);
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(NORMAL);
  };
  const down = (error: LivePortfolioError) => {
    if (isDone) return;
    finish();
    events.onDown(error);
  };
  const ask = (limitMs: number) => {
    askedAt = Date.now();
    patienceMs = limitMs;
    socket.send(JSON.stringify({ type: "heartbeat", timestamp: askedAt }));
  };
  /** After a sleep what arrives may be from before it: nothing counts until the server has answered. */
  const notice = () => {
    const now = Date.now();
    const isHidden = globalThis.document?.visibilityState === "hidden"; // then timers are late without a sleep
    isLate = now - tickedAt > SLEEP_MS;
    const hasSlept = isLate && isOpen && !isHidden;
    tickedAt = now;
    if (hasSlept) {
      confirm(false);
      ask(PROBE_MS_MAX);
    }
    return hasSlept;
  };
  const tick = () => {
    if (notice()) return;
    const now = Date.now();
    if (!isOpen) {
      if (now - startedAt > OPEN_MS_MAX) down(errorOfClose());
    } else if (askedAt !== null) {
      if (isLate) ask(patienceMs); // a timer that ran late says nothing about the server
      else if (now - askedAt >= patienceMs) down(errorOfClose());
    } else if (now - heardAt >= heartbeatMs) ask(Math.max(TICK_MS, silenceMs - heartbeatMs - 2 * TICK_MS)); // two ticks late at most
  };
  const ticking = setInterval(tick, TICK_MS);

  socket.onopen = () => {
    isOpen = true;
    tickedAt = heardAt = Date.now();
    if (token) send({ type: "auth", token });
    for (const message of unsent) send(message);
    events.onOpen();
  };
  socket.onmessage = ({ data }) => {
    notice();
    heardAt = Date.now();
    const message = parsed(data);
    if (!message) return down(otherLanguage());
    if (message.type === "heartbeat_ack") {
      if (askedAt !== null && Number(message.timestamp) >= askedAt) {
        askedAt = null;
        confirm(true);
      }
      return;
    }
    if (isConfirmed && patienceMs > PROBE_MS_MAX) askedAt = null; // any message is life; a probe wants its own answer
    deliver(message, events);
  };
  socket.onclose = (event) => down(errorOfClose(event.code));
  socket.onerror = () => {}; // a close follows, which says as much

  return {
    follow(accountId, detail) {
      send({ type: "subscribe", account_id: accountId, detail, ...(maxFrequencyHz ? { max_frequency_hz: maxFrequencyHz } : {}) });
    },
    leave: (accountId) => send({ type: "unsubscribe", account_id: accountId }),
    renew: (fresh) => send({ type: "auth", token: fresh }),
    probe() {
      if (isOpen && (askedAt === null || patienceMs > PROBE_MS_MAX)) ask(PROBE_MS_MAX);
    },
    close: () => {
      if (!isDone) finish();
    },
  };
}

/** Hand a message to whom it concerns; what nobody knows is passed over. */
export function deliver(message: ServerMessage, events: WireEvents): void {
  if (message.type === "portfolio") events.onMessage(message);
  else if (message.type === "freshness") events.onFreshness(message);
  else if (message.type === "token_expiring") events.onTokenExpiring();
  else if (message.type === "error" && message.code === "forbidden" && message.account_id) events.onForbidden(message.account_id);
  else events.onIgnored(message.type === "error" ? "server_error" : "unknown_type");
}

/** A message as it came, or null for what no server of ours can have sent. */
export function parsed(text: unknown): ServerMessage | null {
  try {
    const message = JSON.parse(text as string);
    if (typeof message.type !== "string") return null;
    return message.type === "portfolio" && !isPortfolio(message) ? null : message;
  } catch {
    return null;
  }
}

/** Are the fields there without which a value cannot be shown? Others may come and go with versions. */
function isPortfolio(message: Record<string, unknown>): boolean {
  const texts = [message.account_id, message.timestamp, message.cash, message.last_equity, message.external_cash_flow];
  const orNull = [message.equity, message.day_pnl];
  return texts.every((field) => typeof field === "string") && orNull.every((field) => field === null || typeof field === "string") &&
    [message.epoch, message.sequence].every(Number.isFinite) &&
    [message.stale, message.unpriced].every(Array.isArray) && Array.isArray(message.positions ?? []);
}
