import { DASH, clockTime, gain, gainWithPercent, money, signOf } from "../../live-portfolio/src/format.js";
import type { Snapshot, Value } from "../../live-portfolio/src/types.js";
import { caveats, stateWords } from "../../live-portfolio/src/words.js";
import { element, put as putText, set } from "../../live-portfolio/src/dom/elements.js";

const SPOKEN_MS = 30_000;

export const $ = <T extends HTMLElement = HTMLElement>(selector: string) => document.querySelector(selector) as T;

function put(selector: string, text: string): void {
  putText($(selector), text);
}

let spokenAt = 0;
let told = "";
let last: Value | null = null;
let flashes = 0;

/** Draw everything but the views: the total, what is not sure about it, and the account's other figures. */
export function drawSummary(snapshot: Snapshot): void {
  const { status, value, positions } = snapshot;
  const { text, tone } = stateWords(snapshot);
  const from = status === "old" && snapshot.confirmedAt ? ` · from ${clockTime(snapshot.confirmedAt)}` : "";
  set($("#connection"), { "data-tone": tone, "data-state": status });
  put("#connection-text", text + from);
  set($("#dashboard"), { "data-status": status });
  drawTotal(value);
  drawCaveats(value);
  put("#cash", money(value?.cash));
  put("#last-equity", money(value?.last_equity));
  put("#external-cash-flow", value && signOf(value.external_cash_flow) === 0 ? "none" : gain(value?.external_cash_flow));
  put("#invested", value ? money(difference(value.equity ?? value.known_equity, value.cash)) : DASH);
  put("#updated", value ? clockTime(value.timestamp) : DASH);
  set($("#updated"), { datetime: value?.timestamp ?? "", title: value ? `Newest price: ${clockTime(value.as_of)}` : "" });
  const held = [...positions.values()].filter((row) => signOf(row.quantity) !== 0).length;
  put("#position-count", held ? `· ${held}` : "");
  document.title = value ? `${money(value.equity)} · Portfolio` : "Portfolio, live";
  speak(value);
}

/** While something has no price, what is known is what stands there, and says so. */
function drawTotal(value: Value | null): void {
  const isPart = value?.equity === null;
  put("#total-label", isPart ? "Known part of the total" : "Total value");
  put("#total-value", money(isPart ? value.known_equity : value?.equity));
  flash(value);
  const sign = signOf(value?.day_pnl);
  set($("#today-return"), { "data-direction": sign ?? 0 });
  put("#today-return .arrow", sign === 1 ? "▲" : sign === -1 ? "▼" : "");
  put("#today-return .text", value && value.day_pnl === null ? "Gain not known" : value ? gainWithPercent(value.day_pnl, value.day_pnl_ratio) : DASH);
}

/** Which way the total went; another account's is no change. */
function flash(value: Value | null): void {
  const [now, before] = [value?.equity, last?.equity];
  if (now && before && now !== before && last?.account_id === value?.account_id) {
    set($("#total-value"), { "data-flash": `${Number(now) < Number(before) ? "down" : "up"}-${(flashes ^= 1)}` });
  }
  last = value;
}

function drawCaveats(value: Value | null): void {
  const parts = caveats(value);
  if (parts.join() === told) return;
  told = parts.join();
  $("#caveats").hidden = !parts.length;
  $("#caveats").replaceChildren(...parts.map((part) => element("li", {}, part)));
}

function speak(value: Value | null): void {
  if (!value || Date.now() - spokenAt < SPOKEN_MS) return;
  spokenAt = Date.now();
  const total = value.equity === null ? `Known part of the total ${money(value.known_equity)}` : `Total value ${money(value.equity)}`;
  put("#spoken", `${total}, today ${value.day_pnl === null ? "not known" : gainWithPercent(value.day_pnl, value.day_pnl_ratio)}`);
}

/** Of two amounts with cents, exactly. */
function difference(one: string | null | undefined, other: string): string | null {
  if (one == null) return null;
  const cents = BigInt(one.replace(".", "")) - BigInt(other.replace(".", ""));
  const digits = (cents < 0n ? -cents : cents).toString().padStart(3, "0");
  return `${cents < 0n ? "-" : ""}${digits.slice(0, -2)}.${digits.slice(-2)}`;
}
