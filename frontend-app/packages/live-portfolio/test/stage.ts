import { afterEach, beforeEach, vi } from "vitest";
import { type LiveEvent, type LivePortfolio, type Options, createLivePortfolio } from "../src/index.js";
import "../src/deltas.js"; // loaded in real time, so before the clock is the test's
import { FakeServer, portfolioMessage } from "../src/testing/index.js";

export const URL_OF_SERVER = "ws://localhost:8001";

/** A client, its server, and what it said; the clock is the test's. */
export class Stage {
  readonly server = new FakeServer();
  readonly events: LiveEvent[] = [];
  client: LivePortfolio;

  constructor(options: Options = {}) {
    this.client = createLivePortfolio({
      url: URL_OF_SERVER,
      WebSocket: this.server.WebSocket,
      transports: ["websocket"],
      fetch: async () => new Response(null, { status: 404 }),
      onEvent: (event) => this.events.push(event),
      ...options,
    });
  }

  status(accountId: string): string {
    return this.client.getSnapshot(accountId).status;
  }

  equity(accountId: string): string | null | undefined {
    return this.client.getSnapshot(accountId).value?.equity;
  }

  /** Every account that is followed gets a value as soon as it is asked for. */
  serve(equityOf: (accountId: string) => string = () => "100.00"): this {
    const first = (socket: (typeof this.server.sockets)[number]) => {
      for (const accountId of new Set(socket.accounts)) socket.deliver(portfolioMessage(accountId, { equity: equityOf(accountId) }));
    };
    this.server.onOpen = (socket) => setTimeout(() => first(socket), 5);
    this.server.onMessage = (socket, message) => {
      if (message.type !== "subscribe") return;
      setTimeout(() => socket.deliver(portfolioMessage(message.account_id, { equity: equityOf(message.account_id) })), 5);
    };
    return this;
  }
}

/** Time passes, with everything that it brings. */
export async function pass(ms: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
  await vi.dynamicImportSettled(); // modules are loaded in real time
  await vi.advanceTimersByTimeAsync(0);
}

export function withFakeClock(): void {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "Date", "requestAnimationFrame", "cancelAnimationFrame", "performance"] }));
  afterEach(() => void vi.useRealTimers());
}

export const ignore = () => {};

/** Numbers that look random and are the same in each run. */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) % 4294967296;
    return state / 4294967296;
  };
}
