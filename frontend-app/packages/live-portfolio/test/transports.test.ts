import { describe, expect, it, vi } from "vitest";
import type { Options } from "../src/index.js";
import { portfolioMessage } from "../src/testing/index.js";
import { Stage, ignore, pass, withFakeClock } from "./stage.js";

withFakeClock();

const encoder = new TextEncoder();

/** The HTTP side of a server: what was asked, and the streams that are open. */
class FakeHttp {
  readonly asked: string[] = [];
  readonly tokens: (string | null)[] = [];
  readonly seen: (string | null)[] = [];
  readonly streams: { write(text: string): void; end(): void; isCancelled: boolean }[] = [];
  status = 200;
  headers: Record<string, string> = {};
  hasStreams = true;

  fetch: typeof fetch = async (input, init) => {
    const path = String(input).replace("http://localhost:8001", "");
    this.asked.push(path);
    this.tokens.push(new Headers(init?.headers).get("Authorization"));
    this.seen.push(new Headers(init?.headers).get("Last-Event-ID"));
    if (this.status !== 200) return new Response(null, { status: this.status, headers: this.headers });
    if (!path.includes("/stream")) return Response.json(portfolioMessage(path.split(/[/?]/)[3] ?? ""));
    if (!this.hasStreams) return new Response(null, { status: 503 });
    const stream = { isCancelled: false, write: (_: string) => {}, end: () => {} };
    const body = new ReadableStream({
      start(controller) {
        stream.write = (text) => controller.enqueue(encoder.encode(text));
        stream.end = () => controller.close();
        init?.signal?.addEventListener("abort", () => {
          stream.isCancelled = true;
          try { controller.error(init.signal?.reason); } catch { /* it has ended */ }
        });
      },
    });
    this.streams.push(stream);
    return new Response(body);
  };
}

function staged(options: Options = {}): { stage: Stage; http: FakeHttp } {
  const http = new FakeHttp();
  const stage = new Stage({ transports: ["websocket", "sse", "polling"], fetch: http.fetch, ...options });
  return { stage, http };
}

const event = (equity: string) => `event: portfolio\ndata: ${JSON.stringify(portfolioMessage("alice", { equity }))}\n\n`;

describe("behaviour 7: what refuses, what hangs, and the way back", () => {
  it("behaviour 7: refused handshakes lead to server-sent events within 3 s; a WebSocket that works takes over", async () => {
    const { stage, http } = staged({ getToken: () => "t" });
    stage.server.mode = "refuse";
    stage.client.subscribe("alice", ignore);
    await pass(3_000);
    expect(stage.server.sockets).toHaveLength(2);
    expect(http.asked).toEqual(["/v1/portfolio/alice/stream?detail=value"]);
    expect(http.tokens).toEqual(["Bearer t"]);
    http.streams[0]?.write(`: still here\n\n${event("1.00").slice(0, 30)}`);
    http.streams[0]?.write(event("1.00").slice(30));
    await pass(150);
    expect(stage.client.getSnapshot("alice")).toMatchObject({ status: "live", transport: "sse", value: { equity: "1.00" } });
    await pass(15_000);
    http.streams[0]?.write(": still here\n\n");
    await pass(16_000); // tried again beside it, refused again
    expect(stage.server.sockets.length).toBe(3);
    http.streams[0]?.write(event("2.00"));
    await pass(150);
    expect([stage.status("alice"), stage.equity("alice")]).toEqual(["live", "2.00"]);
    stage.server.mode = "accept";
    stage.serve(() => "3.00");
    for (let beat = 0; beat < 7; beat++) {
      await pass(10_000);
      if (!http.streams[0]?.isCancelled) http.streams[0]?.write(": still here\n\n");
    }
    expect(stage.client.getSnapshot("alice")).toMatchObject({ status: "live", transport: "websocket", value: { equity: "3.00" } });
    expect(http.streams[0]?.isCancelled).toBe(true);
    expect(stage.server.open).toHaveLength(1);
  });

  it("behaviour 7: a handshake that hangs is given up after 9 s", async () => {
    const { stage, http } = staged();
    stage.server.mode = "hang";
    stage.client.subscribe("alice", ignore);
    await pass(10_000);
    expect(stage.server.open.length).toBeLessThanOrEqual(1);
    await pass(12_000);
    expect(http.asked.length).toBeGreaterThan(0);
  });

  it("behaviour 7: a socket that opens and says nothing is given up within silenceMs", async () => {
    const { stage, http } = staged();
    stage.server.isAnswering = false;
    stage.client.subscribe("alice", ignore);
    await pass(10_600);
    expect(stage.server.sockets.length).toBe(2);
    await pass(12_000);
    expect(http.asked.length).toBeGreaterThan(0);
  });

  it("behaviour 7: where no stream gets through either, the value is asked for again and again", async () => {
    const { stage, http } = staged();
    stage.server.mode = "refuse";
    http.hasStreams = false;
    stage.client.subscribe("alice", ignore);
    await pass(12_000);
    expect(stage.client.getSnapshot("alice")).toMatchObject({ status: "live", transport: "polling" });
    const before = http.asked.length;
    await pass(20_000);
    expect(http.asked.length - before).toBeGreaterThanOrEqual(3);
    expect(http.asked.length - before).toBeLessThanOrEqual(5);
  });

  it("behaviour 7: a stream that falls silent is old, and replaced", async () => {
    const { stage, http } = staged({ transports: ["sse"] });
    stage.client.subscribe("alice", ignore);
    await pass(150);
    http.streams[0]?.write(event("1.00"));
    await pass(150);
    expect(stage.status("alice")).toBe("live");
    await pass(25_100);
    expect(stage.status("alice")).toBe("old");
    await pass(1_000);
    expect(http.streams).toHaveLength(2);
    expect(http.streams[0]?.isCancelled).toBe(true);
  });

  it("behaviour 14: a new stream says the newest value that was seen", async () => {
    const { stage, http } = staged({ transports: ["sse"] });
    stage.client.subscribe("alice", ignore);
    await pass(150);
    http.streams[0]?.write(`data: ${JSON.stringify(portfolioMessage("alice", { epoch: 7, sequence: 41 }))}\n\n`);
    await pass(150);
    http.streams[0]?.end();
    await pass(2_000);
    expect(http.seen).toEqual([null, "7-41"]);
  });
});

describe("behaviour 5 over HTTP: statuses", () => {
  it.each([
    [401, {}, "denied", "unauthorized", 2],
    [404, {}, "denied", "forbidden", 1],
    [429, { "Retry-After": "20" }, "unknown", "connection_limit", 4],
    [503, { "Retry-After": "30" }, "unknown", "unreachable", 3],
  ] as const)("behaviour 5: %i", async (status, headers, shown, code, requests) => {
    let count = 0;
    const { stage, http } = staged({ transports: ["sse"], getToken: () => `${++count}` });
    http.status = status;
    http.headers = headers;
    stage.client.subscribe("alice", ignore);
    await pass(61_000);
    expect(stage.client.getSnapshot("alice")).toMatchObject({ status: shown, error: { code } });
    expect(http.asked.length).toBeLessThanOrEqual(requests);
  });

  it.each([[4001, 2], [4503, 1]])("behaviour 5: a stream that is closed with %i", async (code, streams) => {
    const { stage, http } = staged({ transports: ["sse"] });
    stage.client.subscribe("alice", ignore);
    await pass(150);
    http.streams[0]?.write(`${event("1.00")}event: close\ndata: {"code":${code},"reason":"x"}\n\n`);
    await pass(2_000);
    expect(http.streams).toHaveLength(streams);
    expect(stage.status("alice")).toBe(code === 4503 ? "denied" : "old");
  });
});

it("behaviour 17: a tab that is hidden has no HTTP connection, and comes back when it is seen", async () => {
  const { stage, http } = staged({ transports: ["sse"] });
  stage.client.subscribe("alice", ignore);
  await pass(150);
  http.streams[0]?.write(event("1.00"));
  await pass(150);
  const visibility = vi.spyOn(document, "visibilityState", "get").mockReturnValue("hidden");
  document.dispatchEvent(new Event("visibilitychange"));
  await pass(500);
  expect([http.streams[0]?.isCancelled, stage.status("alice")]).toEqual([true, "old"]);
  await pass(120_000);
  expect(http.streams).toHaveLength(1);
  visibility.mockReturnValue("visible");
  document.dispatchEvent(new Event("visibilitychange"));
  await pass(150);
  http.streams[1]?.write(event("1.00"));
  await pass(150);
  expect(stage.status("alice")).toBe("live");
});

it("request() carries the token, and renews a refused one once", async () => {
  const reasons: string[] = [];
  const { stage, http } = staged({ getToken: ({ reason }) => `${reasons.push(reason)}` });
  http.status = 401;
  expect((await stage.client.request("/v1/portfolio/alice/history?range=1d")).status).toBe(401);
  expect(http.tokens).toEqual(["Bearer 1", "Bearer 2"]);
  expect(reasons).toEqual(["connect", "rejected"]);
});
