import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { type First, firstValues } from "../lib/first";
import { nameOf } from "../lib/names";

type Answer = { readonly status: number; readonly portfolios?: readonly object[] } | Error;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** A client whose server gives these answers, one after the other; the last one stays. */
function asking(accountIds: readonly string[], ...answers: Answer[]) {
  const asked: { readonly atMs: number; readonly ids: readonly string[] }[] = [];
  const told: Readonly<Record<string, First>>[] = [];
  const stop = new AbortController();
  const began = Date.now();
  const request = async (path: string) => {
    asked.push({ atMs: Date.now() - began, ids: new URL(path, "http://server").searchParams.get("ids")?.split(",") ?? [] });
    const answer = (answers.length > 1 ? answers.shift() : answers[0]) as Answer;
    if (answer instanceof Error) throw answer;
    return new Response(JSON.stringify({ portfolios: answer.portfolios ?? [] }), { status: answer.status });
  };
  let isDone = false;
  void firstValues({ request }, accountIds, (found) => told.push(found), stop.signal).then(() => (isDone = true));
  return { asked, told, stop, isDone: () => isDone };
}

const ok = (account_id: string, equity: string) => ({ account_id, account_number: `9${account_id}`, status: "ok", portfolio: { account_id, equity } });
const without = (account_id: string, status: string) => ({ account_id, account_number: `9${account_id}`, status });

it("one whole answer is all that is asked for", async () => {
  const { asked, told, isDone } = asking(["1", "2"], { status: 200, portfolios: [ok("1", "5.00"), ok("2", "6.00")] });
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked).toEqual([{ atMs: 0, ids: ["1", "2"] }]);
  expect(told.at(-1)).toMatchObject({ 1: { number: "91", value: { equity: "5.00" } }, 2: { value: { equity: "6.00" } } });
  expect(isDone()).toBe(true);
});

it("what failed is asked for again, after half a second, then after twice as long", async () => {
  const { asked, told } = asking(["1"], new Error("no network"), { status: 503 }, { status: 200, portfolios: [ok("1", "5.00")] });
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked.map(({ atMs }) => atMs)).toEqual([0, 500, 1_500]);
  expect(told.at(-1)).toMatchObject({ 1: { value: { equity: "5.00" } } });
});

it("of a partial answer only what is missing is asked for again; what is known stays", async () => {
  const { asked, told } = asking(["1", "2", "3"],
    { status: 200, portfolios: [ok("1", "5.00"), without("2", "value_unavailable"), without("3", "account_not_found")] },
    { status: 200, portfolios: [ok("2", "6.00")] });
  await vi.advanceTimersByTimeAsync(0);
  expect(told.at(-1)).toEqual({ 1: { number: "91", value: { account_id: "1", equity: "5.00" } }, 2: { number: "92" }, 3: { number: "93" } });
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked.map(({ ids }) => ids)).toEqual([["1", "2", "3"], ["2"]]);
  expect(told.at(-1)).toMatchObject({ 1: { value: { equity: "5.00" } }, 2: { value: { equity: "6.00" } } });
});

it("a server that never answers is asked six times, one that refuses once", async () => {
  const silent = asking(["1"], new Error("no network"));
  const refusing = asking(["1"], { status: 403 });
  await vi.advanceTimersByTimeAsync(3_600_000);
  expect([silent.asked.length, silent.isDone()]).toEqual([6, true]);
  expect([refusing.asked.length, refusing.isDone()]).toEqual([1, true]);
});

it("who leaves the page is told nothing more", async () => {
  const { asked, told, stop, isDone } = asking(["1"], { status: 503 });
  await vi.advanceTimersByTimeAsync(600);
  stop.abort();
  const before = [asked.length, told.length];
  await vi.advanceTimersByTimeAsync(60_000);
  expect([asked.length, told.length]).toEqual(before);
  expect(isDone()).toBe(true);
});

it("more accounts than one address carries are several requests", async () => {
  const ids = Array.from({ length: 900 }, (_, index) => `a${index}`);
  const { asked } = asking(ids, { status: 200 });
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked.map(({ ids }) => ids.length)).toEqual([400, 400, 100]);
});

it.each([["0d18ae51-6a5c-4a5e-9b1c-0a8f6d3c2b1a", undefined, "0d18ae51…"], ["0d18ae51-6a5c", "900000012", "900000012"], ["alice-1", undefined, "alice-1"]])(
  "%s with the number %s is called %s", (id, number, name) => expect(nameOf(id, number)).toBe(name));
