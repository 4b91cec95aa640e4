import { describe, expect, it } from "vitest";
import { caveats, stateWords } from "../src/words.js";
import { portfolioMessage } from "../src/testing/index.js";
import { Stage, URL_OF_SERVER, ignore, pass, withFakeClock } from "./stage.js";

withFakeClock();

const row = (symbol: string, market_value = "10.00") => ({ symbol, quantity: "1", mark: "10", market_value, day_pnl: "0.00", unrealized_pnl: "0.00" });

/** A client that follows alice with positions, on a socket that is open. */
async function following(): Promise<Stage> {
  const stage = new Stage();
  stage.client.subscribe("alice", ignore, { detail: "positions" });
  await pass(150);
  return stage;
}

describe("behaviour 13: order and rows", () => {
  it("behaviour 13: what is older by epoch or sequence is dropped, a jump of the epoch is taken", async () => {
    const stage = await following();
    const say = async (epoch: number, sequence: number, equity: string) => {
      stage.server.send(portfolioMessage("alice", { epoch, sequence, equity }));
      await pass(150);
      return stage.equity("alice");
    };
    expect(await say(5, 10, "1.00")).toBe("1.00");
    expect(await say(5, 9, "2.00")).toBe("1.00");
    expect(await say(4, 99, "3.00")).toBe("1.00");
    expect(await say(5, 12, "4.00")).toBe("4.00");
    expect(await say(6, 1, "5.00")).toBe("5.00");
    expect(await say(5, 13, "6.00")).toBe("5.00");
    expect(stage.events.filter((event) => event.type === "ignored")).toHaveLength(3);
  });

  it("marks a value as stale while the server says from where nothing new comes", async () => {
    const stage = await following();
    const freshness = (...stale_hops: "calculator"[]) =>
      stage.server.send({ type: "freshness", account_id: "alice", stale_hops, since: "2026-11-20T15:04:05Z" });
    freshness("calculator");
    stage.server.send(portfolioMessage("alice", { sequence: 1 }));
    await pass(150);
    expect(stage.status("alice")).toBe("stale");
    expect(caveats(stage.client.getSnapshot("alice").value)).toEqual(["Old figures: nothing new comes from the calculator"]);
    freshness();
    await pass(150);
    expect(stage.status("alice")).toBe("live");
    freshness("calculator");
    await pass(150);
    expect(stage.status("alice")).toBe("stale");
    stage.server.newest.end(1012);
    await pass(2_000);
    stage.server.send(portfolioMessage("alice", { sequence: 1 }));
    await pass(150);
    expect(stage.status("alice")).toBe("live"); // a new connection would have said it again
  });

  it("behaviour 13: rows are merged, keep their identity, and one that is gone goes", async () => {
    const stage = await following();
    stage.server.send(portfolioMessage("alice", { positions: [row("AAPL"), row("MSFT"), row("TSLA")] }));
    await pass(150);
    const before = stage.client.getSnapshot("alice").positions;
    stage.server.send(portfolioMessage("alice", { positions: [row("MSFT", "11.00"), { symbol: "TSLA", quantity: "0" }] }));
    await pass(150);
    const after = stage.client.getSnapshot("alice").positions;
    expect([...after.keys()]).toEqual(["AAPL", "MSFT"]);
    expect(after.get("AAPL")).toBe(before.get("AAPL"));
    expect(after.get("MSFT")?.market_value).toBe("11.00");
  });

  it("behaviour 13: a position that was closed in the day stays while it has figures", async () => {
    const stage = await following();
    stage.server.send(portfolioMessage("alice", { positions: [{ ...row("AAPL", "0.00"), quantity: "0", day_pnl: "7.00" }] }));
    await pass(150);
    expect(stage.client.getSnapshot("alice").positions.get("AAPL")?.day_pnl).toBe("7.00");
  });

  it("behaviour 13: the first message of a new connection replaces all rows, and lends its identity to those that are the same", async () => {
    const stage = await following();
    stage.server.send(portfolioMessage("alice", { positions: [row("AAPL"), row("MSFT")] }));
    await pass(150);
    const before = stage.client.getSnapshot("alice").positions;
    stage.server.newest.end(1012);
    await pass(2_000);
    expect(stage.status("alice")).toBe("old");
    stage.server.send(portfolioMessage("alice", { positions: [row("AAPL")] }));
    await pass(150);
    const after = stage.client.getSnapshot("alice").positions;
    expect([...after.keys()]).toEqual(["AAPL"]);
    expect(after.get("AAPL")).toBe(before.get("AAPL"));
  });

  it("behaviour 13: the same sequence on a new connection confirms the value", async () => {
    const stage = await following();
    const message = portfolioMessage("alice");
    stage.server.send(message);
    await pass(150);
    stage.server.newest.end(1012);
    await pass(2_000);
    expect(stage.status("alice")).toBe("old");
    stage.server.send(message);
    await pass(150);
    expect(stage.status("alice")).toBe("live");
  });
});

it("behaviour 4: unpriced, unvalued and stale, alone and together", async () => {
  const stage = await following();
  const statusOf = async (changes: object) => {
    stage.server.send(portfolioMessage("alice", changes));
    await pass(150);
    return stage.status("alice");
  };
  const unpriced = { equity: null, day_pnl: null, day_pnl_ratio: null, unpriced: ["X"], known_equity: "90.00" };
  expect(await statusOf({ stale: ["AAPL"], stale_ages_s: { AAPL: 60 } })).toBe("stale");
  expect(await statusOf({ day_pnl: null, day_pnl_ratio: null, unvalued: ["AAPL"] })).toBe("live");
  expect(await statusOf(unpriced)).toBe("partial");
  expect(await statusOf({ ...unpriced, stale: ["AAPL"], unvalued: ["MSFT"] })).toBe("partial");
  expect(await statusOf({ ...unpriced, total_value: null, today_return: null })).toBe("partial"); // as servers did before
  expect(await statusOf({})).toBe("live");
});

describe("bad input", () => {
  it.each([
    ["no URL at all", "not a url", "invalid_url"],
    ["another scheme", "ftp://example.com", "invalid_url"],
    ["credentials in it", "wss://user:password@example.com", "invalid_url"],
  ])("a wrong address is a state and an event: %s", async (_, url, code) => {
    const stage = new Stage({ url });
    stage.client.subscribe("alice", ignore);
    await pass(60_000);
    expect(stage.client.getSnapshot("alice")).toMatchObject({ status: "failed", link: "closed", error: { code, isFinal: true } });
    expect(stage.server.sockets).toHaveLength(0);
    expect(stage.events.filter((event) => event.type === "error")).toHaveLength(1);
  });

  it("ws:// on a page of https is said before anything is dialled, except on this machine", async () => {
    const { happyDOM } = window as unknown as { happyDOM: { setURL(url: string): void } };
    happyDOM.setURL("https://app.example.com/");
    const far = new Stage({ url: "ws://realtime.example.com" });
    far.client.subscribe("alice", ignore);
    const near = new Stage({ url: "ws://localhost:8001" }).serve();
    near.client.subscribe("alice", ignore);
    await pass(150);
    happyDOM.setURL("about:blank");
    expect(far.client.getSnapshot("alice").error?.code).toBe("insecure_url");
    expect(near.status("alice")).toBe("live");
  });

  it.each(["", "a b/../c", "a".repeat(65), "ü"])("an invalid account id is never dialled: %j", async (accountId) => {
    const stage = new Stage().serve();
    stage.client.subscribe(accountId, ignore);
    await pass(5_000);
    expect(stage.client.getSnapshot(accountId)).toMatchObject({ status: "failed", error: { code: "invalid_account_id" } });
    expect(stage.server.sockets).toHaveLength(0);
  });

  it("unknown types and fields are passed over", async () => {
    const stage = await following();
    stage.server.send({ type: "weather", is: "fine" });
    stage.server.send({ ...portfolioMessage("alice"), moon: "full" });
    stage.server.send({ type: "error", code: "too_many_messages", message: "at most 100 a minute" });
    stage.server.send(portfolioMessage("mallory"));
    await pass(150);
    expect(stage.status("alice")).toBe("live");
    expect(stage.events.flatMap((event) => (event.type === "ignored" ? [event.code] : []))).toEqual(["unknown_type", "server_error", "unknown_account"]);
  });

  it("a server of an older version, without what came later, is shown", async () => {
    const stage = await following();
    const needed = "type account_id epoch sequence timestamp equity cash last_equity day_pnl external_cash_flow stale unpriced positions".split(" ");
    const whole: Record<string, unknown> = { ...portfolioMessage("alice", { positions: [row("A")] as never }) };
    stage.server.send(Object.fromEntries(needed.map((name) => [name, whole[name]])));
    await pass(150);
    const snapshot = stage.client.getSnapshot("alice");
    expect(snapshot.status).toBe("live");
    expect([...snapshot.positions.keys()]).toEqual(["A"]);
    expect([caveats(snapshot.value), stateWords(snapshot).text]).toEqual([[], "Live"]);
  });

  it.each([[4599, "failed", "bad_message", 1], [4199, "old", "unreachable", 2]])("a close code of a newer version, %i, is final from 4500 on", async (code, status, error, most) => {
    const stage = await following();
    stage.server.send(portfolioMessage("alice"));
    stage.server.mode = "hang";
    stage.server.newest.end(code);
    await pass(2_000);
    expect(stage.client.getSnapshot("alice")).toMatchObject({ status, error: { code: error, closeCode: code }, value: { account_id: "alice" } });
    expect(stage.server.sockets).toHaveLength(most);
  });

  it.each(["<html>", "[]", "null", "7", '{"no":"type"}', '{"type":"portfolio","account_id":"alice"}'])("what cannot be read ends in a state, not in an exception: %s", async (text) => {
    const stage = await following();
    stage.server.newest.deliver(text);
    await pass(60_000);
    expect(stage.client.getSnapshot("alice")).toMatchObject({ status: "failed", error: { code: "protocol" } });
    expect(stage.server.sockets).toHaveLength(1);
  });

  it("a listener or an event callback that throws stops nobody else", async () => {
    const thrown: unknown[] = [];
    const { queueMicrotask } = globalThis;
    globalThis.queueMicrotask = (task) => queueMicrotask(() => { try { task(); } catch (why) { thrown.push(why); } });
    const stage = new Stage({ onEvent: () => { throw new Error("log is full"); } }).serve();
    let calls = 0;
    stage.client.subscribe("alice", () => { throw new Error("no"); });
    stage.client.subscribe("alice", () => calls++);
    await pass(150);
    globalThis.queueMicrotask = queueMicrotask;
    expect(calls).toBeGreaterThan(0);
    expect(thrown.length).toBeGreaterThan(0);
    expect(stage.status("alice")).toBe("live");
  });
});

describe("addresses", () => {
  it.each([
    [URL_OF_SERVER, "ws://localhost:8001/ws/portfolio/alice?detail=value"],
    ["wss://realtime.example.com/", "wss://realtime.example.com/ws/portfolio/alice?detail=value"],
    ["https://example.com/live", "wss://example.com/live/ws/portfolio/alice?detail=value"],
    ["wss://example.com/ws/portfolio/{accountId}", "wss://example.com/ws/portfolio/alice?detail=value"],
    ["wss://example.com/other/{accountId}?x=1", "wss://example.com/other/alice?x=1&detail=value"],
  ])("%s", async (url, dialled) => {
    const stage = new Stage({ url });
    stage.client.subscribe("alice", ignore);
    await pass(150);
    expect(stage.server.sockets.map((socket) => socket.url.replace(/&delta=\d+/, ""))).toEqual([dialled]);
  });

  it("without an address a page on loopback tries its own host, then the guide's ports", async () => {
    const { happyDOM } = window as unknown as { happyDOM: { setURL(url: string): void } };
    happyDOM.setURL("http://localhost:3000/");
    const stage = new Stage({ url: undefined });
    stage.server.mode = "refuse";
    stage.client.subscribe("alice", ignore);
    await pass(20_000);
    happyDOM.setURL("https://app.example.com/");
    const elsewhere = new Stage({ url: "" });
    elsewhere.server.mode = "refuse";
    elsewhere.client.subscribe("alice", ignore);
    await pass(20_000);
    happyDOM.setURL("about:blank");
    const hosts = (one: Stage) => [...new Set(one.server.sockets.map((socket) => new URL(socket.url).origin))];
    expect(hosts(stage)).toEqual(["ws://localhost:3000", "ws://localhost:8001", "ws://localhost:8000"]);
    expect(hosts(elsewhere)).toEqual(["wss://app.example.com"]);
  });
});

it("behaviour 19: no secret in an event, an error, a URL or on the console; nothing global", async () => {
  const before = new Set(Object.getOwnPropertyNames(globalThis));
  const said: unknown[] = [];
  const methods = ["log", "warn", "error", "info", "debug"] as const;
  const kept = methods.map((name) => console[name]);
  for (const name of methods) console[name] = (...what: unknown[]) => void said.push(what);
  const stage = new Stage({ getToken: () => "s3cr3t" }).serve();
  stage.client.subscribe("alice", ignore);
  await pass(150);
  for (const code of [4001, 1006, 4500, 4500, 4500]) {
    stage.server.newest.end(code);
    await pass(3_000);
  }
  methods.forEach((name, index) => { console[name] = kept[index] as never; });
  const told = stage.events.map((event) => ("error" in event ? [event.error.message, event.error.stack, { ...event.error }] : event));
  expect(JSON.stringify(told)).not.toMatch(/s3cr3t|localhost:8001/);
  expect(stage.server.sockets.map((socket) => socket.url).join()).not.toContain("s3cr3t");
  expect(said).toEqual([]);
  expect(Object.getOwnPropertyNames(globalThis).filter((name) => !before.has(name))).toEqual([]);
});

it("at most one call of a listener a frame, however many messages come", async () => {
  const stage = new Stage();
  let calls = 0;
  stage.client.subscribe("alice", () => calls++);
  await pass(150);
  const before = calls;
  for (let count = 0; count < 500; count++) stage.server.send(portfolioMessage("alice"));
  await pass(16);
  expect(calls - before).toBeLessThanOrEqual(1);
  await pass(16);
  expect(calls - before).toBe(1);
});

describe("words for each hop that is silent", () => {
  const staleness = { calculator: "Values are old", valkey: "Values are old", collector: "Holdings are old" } as const;
  it.each(Object.entries(staleness))("%s: %s", async (hop, words) => {
    const stage = await following();
    stage.server.send({ type: "freshness", account_id: "alice", stale_hops: [hop], since: "2026-11-20T15:04:05Z" });
    stage.server.send(portfolioMessage("alice"));
    await pass(150);
    expect(stateWords(stage.client.getSnapshot("alice")).text).toBe(words);
  });

  it("a record that is old, and prices that are", async () => {
    const stage = await following();
    stage.server.send(portfolioMessage("alice", { stale: ["account_record"] }));
    await pass(150);
    expect(stateWords(stage.client.getSnapshot("alice")).text).toBe("Holdings are old");
    stage.server.send(portfolioMessage("alice", { stale: ["AAPL"] }));
    await pass(150);
    expect(stateWords(stage.client.getSnapshot("alice"))).toEqual({ text: "Prices are old", tone: "warn" });
  });
});
