import { StrictMode, Suspense, act } from "react";
import { type Root, createRoot, hydrateRoot } from "react-dom/client";
import { renderToReadableStream, renderToString } from "react-dom/server";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ConnectionState, LivePortfolioProvider, LivePortfolioValue, usePaused, usePortfolio } from "../src/react/index.js";
import { createFixedPortfolio, portfolioMessage, states } from "../src/testing/index.js";
import { Stage, pass, withFakeClock } from "./stage.js";

withFakeClock();

const FORBIDDEN_TEXTS = /NaN|null|undefined|Infinity|\[object/;
let container: HTMLElement;
let root: Root;

beforeEach(() => {
  (globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;
  container = document.body.appendChild(document.createElement("div"));
  root = createRoot(container);
});
afterEach(async () => {
  await act(() => root.unmount());
  container.remove();
});

async function passed(ms: number): Promise<void> {
  await act(() => pass(ms));
}

const textOf = (selector: string) => container.querySelector(selector)?.textContent;

it("behaviour 1: in Strict Mode ten components of one account share one socket, and none outlives them", async () => {
  const stage = new Stage().serve();
  await act(() => root.render(
    <StrictMode>
      <LivePortfolioProvider client={stage.client}>
        {Array.from({ length: 10 }, (_, index) => <LivePortfolioValue key={index} accountId="alice" />)}
      </LivePortfolioProvider>
    </StrictMode>));
  await passed(150);
  expect(stage.server.sockets).toHaveLength(1);
  expect(container.querySelectorAll(".lp-total")).toHaveLength(10);
  expect(textOf(".lp-total")).toBe("$100.00");
  await act(() => root.render(<p />));
  await passed(1_100);
  expect(stage.server.open).toHaveLength(0);
  expect(stage.server.sockets).toHaveLength(1);
});

it("behaviour 2: another account in the same component shows a dash, then its own figure", async () => {
  const stage = new Stage().serve((accountId) => (accountId === "alice" ? "1.00" : "2.00"));
  const shown: (string | null | undefined)[] = [];
  function Watch({ accountId }: { accountId: string }) {
    const seen = usePortfolio(accountId, ({ value }) => value);
    if (seen && seen.account_id !== accountId) throw new Error("another account's figure");
    shown.push(seen?.equity);
    return null;
  }
  for (const accountId of ["alice", "bob", "alice", "bob"]) {
    await act(() => root.render(<LivePortfolioProvider client={stage.client}><Watch accountId={accountId} /></LivePortfolioProvider>));
    await passed(150);
  }
  expect(shown.at(-1)).toBe("2.00");
  expect(stage.server.sockets).toHaveLength(1);
});

describe("behaviour 3: nothing is invented", () => {
  it.each(Object.entries(states))("behaviour 3: in the state %s", async (name, snapshot) => {
    const client = createFixedPortfolio({ alice: { ...snapshot, accountId: "alice" } });
    await act(() => root.render(
      <LivePortfolioProvider client={client}><LivePortfolioValue accountId="alice" /><ConnectionState accountId="alice" /></LivePortfolioProvider>));
    expect(container.textContent).not.toMatch(FORBIDDEN_TEXTS);
    const isZero = name === "zero" || name === "unchanged";
    if (!isZero) expect(container.textContent).not.toContain("$0.00");
    if (["unknown", "unreachable", "denied", "signedOut", "partial", "everything"].includes(name)) expect(textOf(".lp-total")).toBe("—");
  });

  it("behaviour 3: before the first message", async () => {
    const stage = new Stage();
    await act(() => root.render(<LivePortfolioProvider client={stage.client}><LivePortfolioValue accountId="alice" /></LivePortfolioProvider>));
    expect([textOf(".lp-total"), textOf(".lp-gain")]).toEqual(["—", "—"]);
    await passed(1_000);
    expect([textOf(".lp-total"), textOf(".lp-gain")]).toEqual(["—", "—"]);
  });
});

it("behaviour 15: a server renders the same dash whatever the account and the zone, and the first client render equals it", () => {
  const client = createFixedPortfolio({ alice: { ...states.live, accountId: "alice" } });
  const page = <LivePortfolioProvider client={client}><LivePortfolioValue accountId="alice" /><ConnectionState accountId="alice" /></LivePortfolioProvider>;
  const html = renderToString(page);
  expect(html).toContain("—");
  expect(html).not.toContain("104,211");
  expect(renderToString(page)).toBe(html);
});

it("behaviour 15: what a server streamed is taken over without a warning, and goes on live", async () => {
  const client = createFixedPortfolio({ alice: { ...states.live, accountId: "alice" } });
  const page = <LivePortfolioProvider client={client}><Suspense fallback="…"><LivePortfolioValue accountId="alice" /><ConnectionState accountId="alice" /></Suspense></LivePortfolioProvider>;
  const streamed = container.appendChild(document.createElement("div"));
  streamed.innerHTML = await new Response(await renderToReadableStream(page)).text();
  expect(textOf(".lp-total")).toBe("—");
  const said: unknown[] = [];
  vi.spyOn(console, "error").mockImplementation((...words) => void said.push(`${words}`));
  const hydrated = await act(() => hydrateRoot(streamed, page, { onRecoverableError: (why) => said.push(why) }));
  await passed(50);
  expect(textOf(".lp-total")).toBe("$104,211.37");
  await act(() => hydrated.unmount());
  expect(said.filter((text) => !`${text}`.includes("multiple renderers"))).toEqual([]); // which are only here in one process
});

it("behaviour 16: fifty messages between two frames are one render, and what did not change renders nothing", async () => {
  const stage = new Stage();
  const renders = { cash: 0, equity: 0 };
  function Part({ of }: { of: "cash" | "equity" }) {
    const text = usePortfolio("alice", ({ value }) => ({ text: value?.[of] })); // a new object each time
    renders[of]++;
    return <i>{text.text}</i>;
  }
  await act(() => root.render(<LivePortfolioProvider client={stage.client}><Part of="cash" /><Part of="equity" /></LivePortfolioProvider>));
  await passed(150);
  await act(async () => { stage.server.send(portfolioMessage("alice", { equity: "0.01" })); await pass(150); });
  const before = { ...renders };
  for (let count = 1; count <= 50; count++) stage.server.send(portfolioMessage("alice", { equity: `${count}.00` }));
  await passed(150);
  expect(renders.equity - before.equity).toBe(1);
  expect(renders.cash - before.cash).toBe(0);
});

it("behaviour 18: pausing in one place stops every component", async () => {
  const stage = new Stage().serve();
  let pause: (is: boolean) => void = () => {};
  function Button() {
    [, pause] = usePaused();
    return null;
  }
  await act(() => root.render(<LivePortfolioProvider client={stage.client}><Button /><LivePortfolioValue accountId="alice" /></LivePortfolioProvider>));
  await passed(150);
  await act(() => pause(true));
  await passed(150);
  expect(container.querySelector(".lp-value")?.getAttribute("data-status")).toBe("old");
  expect(container.textContent).toContain("Paused");
  expect(stage.server.open).toHaveLength(0);
});

describe("behaviour 20: the replacement in the existing card", () => {
  it("behaviour 20: two rows with the server's own texts, in the colours of the gain", async () => {
    const client = createFixedPortfolio({ alice: states.loss });
    await act(() => root.render(<LivePortfolioProvider client={client}><LivePortfolioValue accountId="alice" /></LivePortfolioProvider>));
    expect([...container.querySelectorAll(".lp-row")].map((row) => row.textContent)).toEqual(["Current Value$104,211.37", "Today’s Return-$1,209.27 (-1.17%)"]);
    expect(container.querySelector(".lp-gain")?.getAttribute("data-direction")).toBe("-1");
  });

  it.each(["hybrid", "aggregation"] as const)("behaviour 20: in the mode %s, which this server has none of, the brokerage value is never shown", async (portfolioMode) => {
    const client = createFixedPortfolio({ alice: states.live });
    await act(() => root.render(<LivePortfolioProvider client={client}><LivePortfolioValue accountId="alice" portfolioMode={portfolioMode} /></LivePortfolioProvider>));
    expect(textOf(".lp-total")).toBe("—");
    await act(() => root.render(
      <LivePortfolioProvider client={client}>
        <LivePortfolioValue accountId="alice" portfolioMode={portfolioMode} otherValue={{ total_value: "$7.00", today_return: "+$1.00 (+16.67%)" }} />
      </LivePortfolioProvider>));
    expect([textOf(".lp-total"), textOf(".lp-gain")]).toEqual(["$7.00", "+$1.00 (+16.67%)"]);
  });
});
