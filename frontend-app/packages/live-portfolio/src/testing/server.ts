import type { ClientMessage, PortfolioMessage, ServerMessage } from "../messages.js";

const OPEN_MS = 5;
const CLOSED = 3;

/** A server without a network: `new FakeServer().WebSocket` goes where a client takes its WebSocket from. */
export class FakeServer {
  /** Every socket that was ever dialled, in order. */
  readonly sockets: FakeSocket[] = [];
  /** What happens to a socket that is dialled. `hang`: neither opened nor refused. */
  mode: "accept" | "refuse" | "hang" = "accept";
  /** Answers heartbeats; false is a half open connection. */
  isAnswering = true;
  /** Called for each socket that has opened, and again for each message of it. */
  onOpen: (socket: FakeSocket) => void = () => {};
  onMessage: (socket: FakeSocket, message: ClientMessage) => void = () => {};
  readonly WebSocket: typeof globalThis.WebSocket;

  constructor() {
    const server = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url: string) {
        super(url, server);
      }
    } as unknown as typeof globalThis.WebSocket;
  }

  /** Those that are open or on the way. */
  get open(): FakeSocket[] {
    return this.sockets.filter((socket) => socket.readyState < 2);
  }

  get newest(): FakeSocket {
    const socket = this.sockets.at(-1);
    if (!socket) throw new Error("nobody has dialled yet");
    return socket;
  }

  /** To every open socket, as a server that does not look who subscribed. */
  send(message: Partial<ServerMessage> | object): void {
    for (const socket of this.open) socket.deliver(message);
  }
}

/** One socket: the half that a client sees, and what the server does with it. */
export class FakeSocket {
  readonly url: string;
  readonly sent: ClientMessage[] = [];
  readyState = 0;
  closedByClient: number | null = null;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: (() => void) | null = null;
  readonly #server: FakeServer;

  constructor(url: string, server: FakeServer) {
    new URL(url); // as a browser: throws for what is no address
    this.url = url;
    this.#server = server;
    server.sockets.push(this);
    setTimeout(() => {
      if (this.readyState === 0 && server.mode === "refuse") this.end(1006);
      else if (this.readyState === 0 && server.mode === "accept") this.accept();
    }, OPEN_MS);
  }

  /** The account that the address names, and those subscribed to. */
  get accounts(): string[] {
    const named = /\/ws\/portfolio\/([^/?]+)/.exec(this.url)?.[1];
    const asked = this.sent.flatMap((message) => (message.type === "subscribe" ? [message.account_id] : []));
    return named ? [named, ...asked] : asked;
  }

  accept(): void {
    this.readyState = 1;
    this.onopen?.();
    this.#server.onOpen(this);
  }

  /** Text goes as it is, anything else as JSON. */
  deliver(message: unknown): void {
    if (this.readyState === 1) this.onmessage?.({ data: typeof message === "string" ? message : JSON.stringify(message) });
  }

  /** The server closes it. */
  end(code: number, reason = ""): void {
    if (this.readyState === CLOSED) return;
    this.readyState = CLOSED;
    this.onclose?.({ code, reason });
  }

  // What a client calls

  send(text: string): void {
    if (this.readyState !== 1) throw new Error("send on a socket that is not open");
    const message = JSON.parse(text) as ClientMessage;
    this.sent.push(message);
    if (message.type === "heartbeat" && this.#server.isAnswering) {
      setTimeout(() => this.deliver({ type: "heartbeat_ack", timestamp: message.timestamp ?? null }), OPEN_MS);
    }
    this.#server.onMessage(this, message);
  }

  close(code = 1005): void {
    if (this.readyState === CLOSED) return;
    this.closedByClient = code;
    this.readyState = CLOSED;
    setTimeout(() => this.onclose?.({ code, reason: "" }), OPEN_MS);
  }
}

let sequence = 0;

/** A portfolio message of one account: 100 in cash and what `changes` say. */
export function portfolioMessage(accountId: string, changes: Partial<PortfolioMessage> = {}): PortfolioMessage {
  return {
    type: "portfolio",
    account_id: accountId,
    epoch: 1,
    sequence: ++sequence,
    equity: "100.00",
    cash: "100.00",
    last_equity: "90.00",
    external_cash_flow: "0.00",
    day_pnl: "10.00",
    day_pnl_ratio: 0.1111111,
    as_of: "2026-11-20T15:04:05.123456Z",
    stale: [],
    unpriced: [],
    total_value: "$100.00",
    today_return: "+$10.00 (+11.11%)",
    timestamp: "2026-11-20T15:04:05.123456Z",
    record_as_of: "2026-11-20T15:01:12.500000Z",
    ...changes,
  };
}
