import { describe, expect, it } from "vitest";
import type { Delta, PositionRow } from "../src/messages.js";
import { portfolioMessage } from "../src/testing/index.js";
import { Stage, ignore, pass, withFakeClock } from "./stage.js";

withFakeClock();

const row = (symbol: string, mark: string): PositionRow => ({ symbol, quantity: "1", mark, market_value: mark, day_pnl: "0.00" });

/** Alice with three rows, at (7, 10). */
async function watching(): Promise<Stage> {
  const stage = new Stage();
  stage.client.subscribe("alice", ignore, { detail: "positions" });
  await pass(150);
  const positions = ["A", "B", "C"].map((symbol) => row(symbol, "10.00"));
  stage.server.newest.deliver(portfolioMessage("alice", { epoch: 7, sequence: 10, positions }));
  await pass(150);
  return stage;
}

const told = (stage: Stage, delta: Partial<Delta>) => {
  const number = Number(new URL(stage.server.newest.url).searchParams.get("delta"));
  stage.server.newest.deliver({ type: "delta", delta: number, at: [7, 11], base: 10, value: [], ...delta });
};
const shown = (stage: Stage) => stage.client.getSnapshot("alice");
const asked = (stage: Stage) => stage.server.newest.sent.filter(({ type }) => type === "subscribe");

describe("what changed, in place of whole messages", () => {
  it("fields by their place, texts by what follows the characters that stay; other rows keep their identity", async () => {
    const stage = await watching();
    const before = shown(stage);
    told(stage, { value: [4, 3, ".25", 9, 0, null, 11, 0, ["A"]], positions: [["B", 2, 3, "50"], row("D", "4.00"), { symbol: "C", quantity: "0" }] });
    await pass(150);
    const after = shown(stage);
    expect(after.status).toBe("stale");
    expect(after.value).toEqual({ ...before.value, sequence: 11, equity: "100.25", day_pnl_ratio: null, stale: ["A"] });
    expect([...after.positions.values()]).toEqual([row("A", "10.00"), { ...row("B", "10.50"), market_value: "10.00" }, row("D", "4.00")]);
    expect(after.positions.get("A")).toBe(before.positions.get("A"));
    told(stage, { at: [7, 15], base: 11, value: [4, 0, null] });
    await pass(150);
    expect(shown(stage)).toMatchObject({ status: "partial", value: { equity: null, sequence: 15 } });
    expect(shown(stage).positions.size).toBe(3);
  });

  it("a whole value where fields come, and with a new epoch, which names its base in full", async () => {
    const stage = await watching();
    const { positions: _, ...value } = portfolioMessage("alice", { epoch: 8, sequence: 1, equity: "7.00", stale_ages_s: { A: 9 } });
    told(stage, { at: [8, 1], base: [7, 10], value, positions: [] });
    await pass(150);
    expect(shown(stage).value).toMatchObject({ epoch: 8, sequence: 1, equity: "7.00", stale_ages_s: { A: 9 } });
    expect(shown(stage).positions.size).toBe(3);
  });

  it.each<[string, Partial<Delta>]>([
    ["another sequence", { base: 9, value: [4, 0, "1.00"] }],
    ["another epoch", { at: [8, 11], value: [4, 0, "1.00"] }],
    ["a pair that is not there", { base: [6, 10], value: [4, 0, "1.00"] }],
    ["a row that is not there", { positions: [["Z", 2, 0, "1"]] }],
    ["a place that is not there", { value: [99, 0, "1.00"] }],
    ["a field that cannot be shown", { value: [11, 0, null] }],
    ["nothing readable", { at: null as never }],
  ])("%s: nothing is shown of it, a whole message is asked for once, and mends it", async (_, delta) => {
    const stage = await watching();
    const before = shown(stage);
    for (let again = 0; again < 3; again++) told(stage, delta);
    await pass(150);
    expect(shown(stage).value).toBe(before.value);
    expect(asked(stage)).toMatchObject([{ account_id: "alice", detail: "positions", epoch: 7, sequence: 10 }]);
    stage.server.newest.deliver(portfolioMessage("alice", { epoch: 7, sequence: 14, equity: "5.00", positions: [row("A", "1.00")] }));
    told(stage, { at: [7, 15], base: 14, value: [4, 1, ".50"] });
    await pass(150);
    expect(shown(stage)).toMatchObject({ status: "live", value: { equity: "5.50", sequence: 15 } });
    told(stage, { at: [7, 17], base: 16 });
    expect(asked(stage)).toHaveLength(2); // lost again, asked again
  });

  it("each account has a number of its own, also on one socket; what nobody knows is passed over", async () => {
    const stage = new Stage();
    stage.client.subscribe("alice", ignore);
    stage.client.subscribe("bob", ignore);
    await pass(150);
    const numbers = asked(stage).map((message) => (message as { delta?: number }).delta as number);
    expect(new Set(numbers).size).toBe(2);
    for (const id of ["alice", "bob"]) stage.server.newest.deliver(portfolioMessage(id, { epoch: 7, sequence: 10 }));
    stage.server.newest.deliver({ type: "delta", delta: numbers[1], at: [7, 11], base: 10, value: [4, 0, "2.00"] });
    stage.server.newest.deliver({ type: "delta", delta: 99_999, at: [7, 11], base: 10, value: [4, 0, "3.00"] });
    await pass(150);
    expect([stage.equity("alice"), stage.equity("bob")]).toEqual(["100.00", "2.00"]);
  });
});
