import { describe, expect, it, vi } from "vitest";
import { NotSignedIn } from "../src/index.js";
import { portfolioMessage } from "../src/testing/index.js";
import { Stage, ignore, pass, seeded, withFakeClock } from "./stage.js";

withFakeClock();

describe("behaviour 1: one socket for all who look", () => {
  it("behaviour 1: ten subscribers of one account share a socket, and the last one's leaving closes it within the grace", async () => {
    const stage = new Stage().serve();
    const ends = Array.from({ length: 10 }, () => stage.client.subscribe("alice", ignore));
    await pass(150);
    expect(stage.server.sockets).toHaveLength(1);
    expect(stage.status("alice")).toBe("live");
    for (const end of ends) end();
    await pass(900);
    expect(stage.server.open).toHaveLength(1);
    await pass(200);
    expect(stage.server.open).toHaveLength(0);
    expect(stage.server.newest.closedByClient).toBe(1000);
    await pass(120_000);
    expect(stage.server.sockets).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("behaviour 1: effects that run, stop and run again, as in Strict Mode, dial once", async () => {
    const stage = new Stage().serve();
    stage.client.subscribe("alice", ignore)();
    const end = stage.client.subscribe("alice", ignore);
    await pass(5_000);
    expect(stage.server.sockets).toHaveLength(1);
    expect(stage.server.open).toHaveLength(1);
    end();
    await pass(2_000);
    expect(stage.server.open).toHaveLength(0);
  });

  it("behaviour 1: several accounts share a socket of their own kind, whose first account can be refused alone", async () => {
    const stage = new Stage().serve();
    for (const accountId of ["alice", "bob", "carol"]) stage.client.subscribe(accountId, ignore);
    await pass(150);
    expect(stage.server.sockets.map((socket) => socket.url)).toEqual(["ws://localhost:8001/ws"]);
    stage.server.newest.deliver({ type: "error", code: "forbidden", message: "no", account_id: "alice" });
    await pass(150);
    expect([stage.status("alice"), stage.status("bob"), stage.status("carol")]).toEqual(["denied", "live", "live"]);
    expect(stage.client.getSnapshot("alice").value).toBeNull();
  });
});

it("an account that is not in dollars is refused alone, in a message and with a close code, and another one is shown", async () => {
  const stage = new Stage().serve();
  for (const accountId of ["alice", "euros"]) stage.client.subscribe(accountId, ignore);
  await pass(150);
  stage.server.newest.deliver({ type: "error", code: "account_not_in_dollars", message: "no", account_id: "euros" });
  await pass(150);
  expect(stage.client.getSnapshot("euros")).toMatchObject({ status: "failed", value: null, error: { code: "account_not_in_dollars" } });
  expect(stage.status("alice")).toBe("live");
  const alone = new Stage();
  alone.server.onOpen = (socket) => setTimeout(() => socket.end(4504), 1);
  alone.client.subscribe("euros", ignore);
  await pass(5_000);
  expect(alone.client.getSnapshot("euros")).toMatchObject({ status: "failed", error: { code: "account_not_in_dollars" } });
  alone.serve().client.subscribe("alice", ignore);
  await pass(150);
  expect([alone.status("alice"), alone.server.sockets.length]).toEqual(["live", 2]);
});

it("an account beyond what one connection carries says so, and the others live on", async () => {
  const stage = new Stage().serve();
  for (const accountId of ["alice", "bob"]) stage.client.subscribe(accountId, ignore);
  await pass(150);
  stage.client.subscribe("carol", ignore);
  stage.server.onMessage = ignore;
  stage.server.newest.deliver({ type: "error", code: "too_many_subscriptions", message: "at most 64 in one connection", account_id: "carol" });
  await pass(150);
  expect(stage.client.getSnapshot("carol")).toMatchObject({ status: "failed", value: null, error: { code: "connection_limit" } });
  expect([stage.status("alice"), stage.status("bob"), stage.server.sockets.length]).toEqual(["live", "live", 1]);
});

describe("behaviour 2: never another account's figure", () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])("behaviour 2: at any moment of any change of accounts, seed %i", async (seed) => {
    const random = seeded(seed);
    const figures: Record<string, string> = { alice: "111.11", bob: "222.22" };
    const stage = new Stage({ getToken: () => new Promise((done) => setTimeout(() => done("t"), 200 * random())) });
    stage.serve((accountId) => figures[accountId] ?? "0.00");
    let shown = "alice";
    const look = () => {
      const snapshot = stage.client.getSnapshot(shown);
      if (snapshot.value) expect([snapshot.value.account_id, snapshot.value.equity]).toEqual([shown, figures[shown]]);
      if (snapshot.accountId) expect(snapshot.accountId).toBe(shown);
    };
    let end = stage.client.subscribe(shown, look);
    for (let step = 0; step < 60; step++) {
      await pass(Math.floor((random() < 0.2 ? 3_000 : 400) * random())); // sometimes until the other one is followed no more
      look();
      const next = random() < 0.5 ? "alice" : "bob";
      const ended = end;
      shown = next;
      end = stage.client.subscribe(shown, look);
      ended();
      look();
      if (random() < 0.2) stage.server.open[0]?.end(1006);
      const other = random() < 0.5 ? "alice" : "bob"; // whoever is shown: a server that does not look who asked
      stage.server.send(portfolioMessage(other, { equity: figures[other] ?? null }));
    }
    await pass(20_000);
    expect(stage.equity(shown)).toBe(figures[shown]);
    expect(stage.server.open).toHaveLength(1);
  });

  it("behaviour 2: a new account begins at unknown, even when another's value is at hand", async () => {
    const stage = new Stage().serve();
    stage.client.subscribe("alice", ignore);
    await pass(150);
    stage.client.subscribe("bob", ignore);
    expect(stage.status("bob")).toBe("unknown");
    expect(stage.client.getSnapshot("bob").value).toBeNull();
    await pass(150);
    expect(stage.status("bob")).toBe("live");
    expect(stage.server.sockets).toHaveLength(1);
  });
});

describe("behaviour 5: close codes", () => {
  // code, token source, status, sockets dialled within 60 s at least and at most
  it.each([
    [4001, "denied", "unknown", 6, 14],
    [4002, "denied", "unknown", 6, 14],
    [4003, "denied", "unknown", 6, 14],
    [4005, "denied", "unknown", 6, 14],
    [4006, "denied", "unknown", 6, 14],
    [4007, "denied", "unknown", 6, 14],
    [1001, "denied", "unknown", 6, 14],
    [1006, "denied", "unknown", 6, 14],
    [1012, "denied", "unknown", 6, 14],
    [1013, "denied", "unknown", 6, 14],
    [4500, "", "denied", 2, 2],
    [4501, "", "failed", 1, 1],
    [4503, "", "denied", 1, 1],
    [4504, "", "failed", 1, 1],
    [4505, "", "failed", 1, 1],
    [4999, "", "failed", 1, 1],
  ] as const)("behaviour 5: closed with %i at each open", async (code, _, status, least, most) => {
    let count = 0;
    const stage = new Stage({ getToken: () => `token ${++count}` });
    stage.server.onOpen = (socket) => setTimeout(() => socket.end(code), 10);
    stage.client.subscribe("alice", ignore);
    await pass(60_000);
    expect(stage.server.sockets.length).toBeGreaterThanOrEqual(least);
    expect(stage.server.sockets.length).toBeLessThanOrEqual(most);
    expect(stage.status("alice")).toBe(status);
  });

  it("behaviour 5: resume() begins again after what was final", async () => {
    const stage = new Stage();
    stage.server.onOpen = (socket) => setTimeout(() => socket.end(4501), 10);
    stage.client.subscribe("alice", ignore);
    await pass(10_000);
    expect(stage.status("alice")).toBe("failed");
    stage.serve();
    stage.client.resume();
    await pass(1_000);
    expect(stage.status("alice")).toBe("live");
  });
});

it("behaviour 6: a server that accepts and closes makes the waits grow; open alone resets nothing", async () => {
  const stage = new Stage();
  stage.server.onOpen = (socket) => setTimeout(() => socket.end(1006), 1);
  stage.client.subscribe("alice", ignore);
  await pass(120_000);
  const waits = stage.events.flatMap((event) => (event.type === "retry" ? [event.inMs] : []));
  expect(waits.length).toBeLessThan(20);
  expect(waits[0]).toBeLessThanOrEqual(500);
  expect(waits.at(-1)).toBeGreaterThanOrEqual(7_500);
  stage.serve(); // a value resets them
  await pass(20_000);
  expect(stage.status("alice")).toBe("live");
  stage.server.newest.end(1006);
  expect(stage.events.findLast((event) => event.type === "retry")).toMatchObject({ attempt: 1 });
});

describe("behaviour 8: half open", () => {
  it("behaviour 8: silence makes the value old within silenceMs, and the socket is replaced", async () => {
    const stage = new Stage().serve();
    stage.client.subscribe("alice", ignore);
    await pass(150);
    const first = stage.server.newest;
    stage.server.isAnswering = false;
    stage.server.onOpen = ignore;
    await pass(10_000);
    expect(stage.status("alice")).toBe("old");
    await pass(600);
    expect(stage.equity("alice")).toBe("100.00");
    expect(stage.server.sockets.length).toBeGreaterThan(1);
    first.readyState = 1; // what the old socket still has to say is not heard
    first.deliver(portfolioMessage("alice", { equity: "666.00" }));
    first.end(4503);
    await pass(150);
    expect(stage.equity("alice")).toBe("100.00");
    stage.server.isAnswering = true;
    stage.server.send(portfolioMessage("alice", { equity: "101.00" }));
    await pass(30_000);
    expect([stage.status("alice"), stage.equity("alice")]).toEqual(["live", "101.00"]);
    expect(stage.server.open).toHaveLength(1);
  });

  it("behaviour 8: heartbeats keep a quiet connection live for an hour on one socket", async () => {
    const stage = new Stage().serve();
    stage.client.subscribe("alice", ignore);
    await pass(3_600_000);
    expect(stage.status("alice")).toBe("live");
    expect(stage.server.sockets).toHaveLength(1);
  });
});

describe("behaviour 9: sleep", () => {
  it("behaviour 9: what arrives after a sleep counts only once the server has answered", async () => {
    const stage = new Stage().serve();
    stage.client.subscribe("alice", ignore);
    await pass(150);
    stage.server.isAnswering = false;
    vi.setSystemTime(Date.now() + 600_000); // no timer ran
    for (let count = 0; count < 100; count++) stage.server.send(portfolioMessage("alice", { equity: `${count}.00` }));
    await pass(100);
    expect(stage.status("alice")).toBe("old");
    await pass(4_000); // no answer within 2 s: another socket
    expect(stage.server.sockets).toHaveLength(2);
  });

  it("behaviour 9: with an answer the value is live within 2 s, on the same socket", async () => {
    const stage = new Stage().serve();
    let calls = 0;
    stage.client.subscribe("alice", () => calls++);
    await pass(150);
    vi.setSystemTime(Date.now() + 600_000);
    const before = calls;
    for (let count = 0; count < 100; count++) stage.server.send(portfolioMessage("alice", { equity: `${count}.00` }));
    await pass(2_000);
    expect([stage.status("alice"), stage.equity("alice")]).toEqual(["live", "99.00"]);
    expect(calls - before).toBeLessThanOrEqual(3); // no storm
    expect(stage.server.sockets).toHaveLength(1);
  });
});

describe("behaviour 10: offline and online", () => {
  it("behaviour 10: ten flaps keep one socket", async () => {
    const stage = new Stage().serve();
    stage.client.subscribe("alice", ignore);
    await pass(150);
    for (let flap = 0; flap < 10; flap++) {
      dispatchEvent(new Event("offline"));
      await pass(500);
      dispatchEvent(new Event("online"));
      await pass(500);
    }
    expect(stage.server.sockets).toHaveLength(1);
    expect(stage.status("alice")).toBe("live");
  });

  it("behaviour 10: without a network the value is old within 2 s, and live again after it", async () => {
    const stage = new Stage().serve();
    stage.client.subscribe("alice", ignore);
    await pass(150);
    stage.server.isAnswering = false;
    stage.server.mode = "hang";
    vi.spyOn(navigator, "onLine", "get").mockReturnValue(false);
    dispatchEvent(new Event("offline"));
    await pass(3_100);
    expect(stage.client.getSnapshot("alice")).toMatchObject({ status: "old", value: { equity: "100.00" } });
    vi.spyOn(navigator, "onLine", "get").mockReturnValue(true);
    stage.server.isAnswering = true;
    stage.server.mode = "accept";
    await pass(30_000);
    expect(stage.status("alice")).toBe("live");
    expect(stage.server.open).toHaveLength(1);
  });

  it("behaviour 10: into the back/forward cache without a socket, and out of it with one", async () => {
    const stage = new Stage().serve();
    stage.client.subscribe("alice", ignore);
    await pass(150);
    dispatchEvent(Object.assign(new Event("pagehide"), { persisted: true }));
    await pass(150);
    expect([stage.server.open.length, stage.server.newest.closedByClient, stage.status("alice")]).toEqual([0, 1000, "old"]);
    dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }));
    await pass(150);
    expect([stage.server.sockets.length, stage.status("alice")]).toEqual([2, "live"]);
  });
});

describe("behaviour 11: tokens", () => {
  it("behaviour 11: a warning renews on the same socket", async () => {
    const reasons: string[] = [];
    const stage = new Stage({ getToken: async ({ reason }) => `${reasons.push(reason)}` }).serve();
    stage.client.subscribe("alice", ignore);
    await pass(150);
    stage.server.newest.deliver({ type: "token_expiring", in_s: 30 });
    await pass(150);
    expect(reasons).toEqual(["connect", "expiring"]);
    expect(stage.server.newest.sent.filter((message) => message.type === "auth")).toEqual([
      { type: "auth", token: "1" },
      { type: "auth", token: "2" },
    ]);
    expect(stage.server.sockets).toHaveLength(1);
    expect(stage.server.newest.url).not.toContain("token");
  });

  it("behaviour 11: a callback that throws is asked again; one that says signed out is not", async () => {
    let isSignedOut = false;
    let asked = 0;
    const stage = new Stage({
      getToken: () => {
        asked++;
        throw isSignedOut ? new NotSignedIn() : new Error("secret-in-an-error");
      },
    });
    stage.client.subscribe("alice", ignore);
    await pass(5_000);
    expect(asked).toBeGreaterThan(2);
    expect(stage.client.getSnapshot("alice")).toMatchObject({ status: "unknown", error: { code: "token_unavailable" } });
    isSignedOut = true;
    await pass(20_000);
    const before = asked;
    await pass(120_000);
    expect(asked).toBe(before);
    expect(stage.client.getSnapshot("alice")).toMatchObject({ status: "denied", error: { code: "unauthorized" } });
    expect(stage.server.sockets).toHaveLength(0);
    expect(JSON.stringify(stage.events.map((event) => ("error" in event ? { ...event.error, text: String(event.error) } : event)))).not.toContain("secret");
  });

  it("behaviour 11: a callback that never answers is given up after 10 s", async () => {
    const stage = new Stage({ getToken: () => new Promise(ignore) });
    stage.client.subscribe("alice", ignore);
    await pass(9_000);
    expect(stage.client.getSnapshot("alice").error).toBeNull();
    await pass(2_000);
    expect(stage.client.getSnapshot("alice").error?.code).toBe("token_unavailable");
  });

  it("behaviour 11: a token that expired in a sleep is renewed once; the same one again is final", async () => {
    const reasons: string[] = [];
    let token = "expired";
    const stage = new Stage({ getToken: ({ reason }) => (reasons.push(reason), reason === "rejected" ? token : "expired") }).serve();
    const open = stage.server.onOpen;
    stage.server.onMessage = (socket, message) => {
      if (message.type !== "auth") return;
      if (message.token === "expired") setTimeout(() => socket.end(4500), 1);
      else open(socket);
    };
    stage.server.onOpen = ignore;
    stage.client.subscribe("alice", ignore);
    await pass(60_000);
    expect(reasons).toEqual(["connect", "rejected"]);
    expect(stage.status("alice")).toBe("denied");
    token = "fresh";
    stage.client.resume();
    await pass(5_000);
    expect(stage.status("alice")).toBe("live");
  });
});

it("behaviour 12: refused in the middle: the figure is gone at once, said once, and nobody dials", async () => {
  const stage = new Stage({ getToken: () => "t" }).serve();
  stage.client.subscribe("alice", ignore);
  await pass(150);
  stage.server.newest.end(4503);
  await pass(150);
  expect(stage.client.getSnapshot("alice")).toMatchObject({ status: "denied", value: null, error: { code: "forbidden" } });
  expect(stage.client.getSnapshot("alice").positions.size).toBe(0);
  await pass(120_000);
  expect(stage.server.sockets).toHaveLength(1);
  expect(stage.events.filter((event) => event.type === "error")).toHaveLength(1);
});

it("behaviour 14: a server that restarts, or another of the list: old, then live, never unknown", async () => {
  const seen: string[] = [];
  const stage = new Stage({ url: ["ws://localhost:8001", "ws://localhost:8000"] }).serve();
  stage.client.subscribe("alice", () => seen.push(stage.status("alice")));
  await pass(150);
  stage.server.onOpen = (socket) => {
    if (socket.url.includes(":8001")) setTimeout(() => socket.end(1006), 1);
    else setTimeout(() => socket.deliver(portfolioMessage("alice", { epoch: 2, sequence: 1, equity: "101.00" })), 5);
  };
  stage.server.newest.end(4001);
  await pass(10_000);
  expect([stage.status("alice"), stage.equity("alice")]).toEqual(["live", "101.00"]);
  expect(stage.server.newest.url).toContain(":8000");
  expect(seen.slice(seen.indexOf("live"))).not.toContain("unknown");
});

it("behaviour 14: each new connection says the newest value that was seen, in the address and in a message", async () => {
  const stage = new Stage().serve();
  stage.client.subscribe("alice", ignore);
  await pass(150);
  expect(stage.server.newest.url).not.toMatch(/epoch|sequence/);
  stage.server.newest.deliver(portfolioMessage("alice", { epoch: 7, sequence: 41 }));
  stage.server.newest.end(4001);
  await pass(2_000);
  expect(stage.server.newest.url).toMatch(/epoch=7&sequence=41$/);
  stage.client.subscribe("bob", ignore);
  stage.server.newest.end(4001);
  await pass(2_000);
  const asked = stage.server.newest.sent.filter(({ type }) => type === "subscribe");
  expect(asked).toMatchObject([{ account_id: "alice", epoch: 7, sequence: 41 }, { account_id: "bob" }]);
});

it("behaviour 18: pause stops it all, and what is shown is old until resume", async () => {
  const stage = new Stage().serve();
  stage.client.subscribe("alice", ignore);
  await pass(150);
  stage.client.pause();
  await pass(150);
  expect([stage.status("alice"), stage.server.open.length]).toEqual(["old", 0]);
  expect(stage.client.getSnapshot("alice").link).toBe("paused");
  await pass(60_000);
  expect(stage.server.sockets).toHaveLength(1);
  stage.client.resume();
  await pass(150);
  expect(stage.status("alice")).toBe("live");
});
