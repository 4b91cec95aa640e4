import { type LivePortfolioError, errorOfClose, finalError } from "./errors.js";
import type { ClientMessage, ServerMessage } from "./messages.js";
import type { Options } from "./types.js";

/** What a connection tells, whatever carries it. After `onDown` it tells nothing more. */
export interface WireEvents {
  onOpen(): void;
  onMessage(message: ServerMessage): void;
  /** Whether what came is from now: not after a sleep, until the server has answered. */
  onConfirmed(isConfirmed: boolean): void;
  onDown(error: LivePortfolioError): void;
}

export interface Wire {
  /** What cannot be sent yet is sent as soon as the connection is open. */
  send(message: ClientMessage): void;
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
  const { heartbeatMs = 5_000, silenceMs = 10_000 } = options;
  let socket: WebSocket;
  try {
    socket = new (options.WebSocket ?? WebSocket)(url);
  } catch {
    throw finalError("invalid_url");
  }
  const startedAt = Date.now();
  let heardAt = startedAt;
  let tickedAt = startedAt;
  let askedAt = 0; // a heartbeat is not answered yet; 0: none is
  let patienceMs = 0;
  let isConfirmed = true;
  let isOpen = false;
  let isDone = false;
  let isLate = false; // this turn of the timer
  let unsent: ClientMessage[] = token ? [{ type: "auth", token }] : [];

  const send = (message: ClientMessage) => {
    if (isOpen) socket.send(JSON.stringify(message));
    else unsent.push(message);
  };
  const confirm = (is: boolean) => {
    if (isConfirmed !== is) events.onConfirmed((isConfirmed = is));
  };
  const close = () => {
    if (isDone) return;
    isDone = true;
    clearInterval(ticking);
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(NORMAL);
  };
  const down = (error = errorOfClose()) => {
    if (isDone) return;
    close();
    events.onDown(error);
  };
  const ask = (limitMs: number) => {
    patienceMs = limitMs;
    send({ type: "heartbeat", timestamp: (askedAt = Date.now()) });
  };
  /** After a sleep what arrives may be from before it: nothing counts until the server has answered. */
  const notice = () => {
    const now = Date.now();
    isLate = now - tickedAt > SLEEP_MS;
    tickedAt = now;
    // timers of a page that is hidden are late without a sleep
    if (!isLate || !isOpen || globalThis.document?.visibilityState === "hidden") return false;
    confirm(false);
    ask(PROBE_MS_MAX);
    return true;
  };
  const ticking = setInterval(() => {
    if (notice()) return;
    const now = Date.now();
    if (!isOpen) {
      if (now - startedAt > OPEN_MS_MAX) down();
    } else if (askedAt) {
      if (isLate) ask(patienceMs); // a timer that ran late says nothing about the server
      else if (now - askedAt >= patienceMs) down();
    } else if (now - heardAt >= heartbeatMs) ask(Math.max(TICK_MS, silenceMs - heartbeatMs - 2 * TICK_MS)); // two ticks late at most
  }, TICK_MS);

  socket.onopen = () => {
    isOpen = true;
    tickedAt = heardAt = Date.now();
    unsent.map(send);
    unsent = [];
    events.onOpen();
  };
  socket.onmessage = ({ data }) => {
    notice();
    heardAt = Date.now();
    const message = parsed(data);
    if (!message) down(finalError("protocol"));
    else if (message.type !== "heartbeat_ack") {
      if (isConfirmed && patienceMs > PROBE_MS_MAX) askedAt = 0; // any message is life; a probe wants its own answer
      events.onMessage(message);
    } else if (askedAt && Number(message.timestamp) >= askedAt) {
      askedAt = 0;
      confirm(true);
    }
  };
  socket.onclose = ({ code }) => down(errorOfClose(code));

  return {
    send,
    close,
    probe() {
      if (isOpen && !(askedAt && patienceMs <= PROBE_MS_MAX)) ask(PROBE_MS_MAX);
    },
  };
}

/** A message as it came, or undefined for what no server of ours can have sent. */
export function parsed(text: unknown): ServerMessage | undefined {
  try {
    return checked(JSON.parse(text as string));
  } catch {} // said by the answer
  return undefined;
}

/** A message that can be shown, or undefined. */
export function checked(message: ServerMessage): ServerMessage | undefined {
  const isEach = (names: string, is: (field: unknown) => boolean) => names.split(" ").every((name) => is((message as never)[name]));
  const isText = (field: unknown) => typeof field === "string";
  // a value cannot be shown without these; others may come and go with versions
  const isRight = message.type === "portfolio"
    ? isEach("account_id timestamp cash last_equity external_cash_flow", isText) &&
      isEach("equity day_pnl", (field) => field === null || isText(field)) &&
      isEach("epoch sequence", Number.isFinite) && isEach("stale unpriced", Array.isArray) && Array.isArray(message.positions ?? [])
    : isText(message.type);
  return isRight ? message : undefined;
}
