import { DASH, clockTime, gain, gainWithPercent, money, signOf } from "../../live-portfolio/src/format.js";
import type { Snapshot, Value } from "../../live-portfolio/src/types.js";
import { caveats, stateWords } from "../../live-portfolio/src/words.js";
import { element, put as putText, set } from "../../live-portfolio/src/dom/elements.js";

const SPOKEN_MS = 30_000;

export const $ = <T extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as T;

function put(id: string, text: string): void {
  putText($(id), text);
}

let spokenAt = 0;
let told = "";
let last: Value | null = null;
let flashes = 0;

/** Draw everything but the views: the total, what is not sure about it, and the account's other figures. */
export function drawSummary(snapshot: Snapshot): void {
  const { status, value, positions, confirmedAt } = snapshot;
  const { text, tone } = stateWords(snapshot);
  set($("connection"), { "data-tone": tone, "data-state": status });
  put("connection-text", text + (status === "old" && confirmedAt ? ` · from ${clockTime(confirmedAt)}` : ""));
  set($("dashboard"), { "data-status": status });
  // while something has no price, what is known is what stands there, and says so
  const known = value?.equity ?? value?.known_equity;
  const label = value?.equity === null ? "Known part of the total" : "Total value";
  const sign = signOf(value?.day_pnl);
  const gained = value?.day_pnl === null ? "Gain not known" : gainWithPercent(value?.day_pnl, value?.day_pnl_ratio);
  put("total-label", label);
  put("total-value", money(known));
  flash(value);
  set($("today-return"), { "data-direction": sign ?? 0 });
  put("arrow", sign ? (sign > 0 ? "▲" : "▼") : "");
  put("gained", gained);
  const parts = caveats(value);
  if (parts.join() !== told) $("caveats").replaceChildren(...parts.map((part) => element("li", {}, part)));
  told = parts.join();
  $("caveats").hidden = !told;
  put("cash", money(value?.cash));
  put("last-equity", money(value?.last_equity));
  put("external-cash-flow", signOf(value?.external_cash_flow) === 0 ? "none" : gain(value?.external_cash_flow));
  put("invested", money(value && ((cents(known) - cents(value.cash)) / 100).toFixed(2)));
  put("updated", value ? clockTime(value.timestamp) : DASH);
  const held = [...positions.values()].filter((row) => signOf(row.quantity)).length;
  put("position-count", held ? `· ${held}` : "");
  document.title = value ? `${money(value.equity)} · Portfolio` : "Portfolio";
  if (!value || Date.now() - spokenAt < SPOKEN_MS) return;
  spokenAt = Date.now();
  put("spoken", `${label} ${money(known)}, today ${gained}`);
}

/** Which way the total went; another account's is no change. */
function flash(value: Value | null): void {
  const [now, before] = [value?.equity, last?.equity];
  if (now && before && now !== before && last?.account_id === value?.account_id) {
    set($("total-value"), { "data-flash": `${Number(now) < Number(before) ? "down" : "up"}-${(flashes ^= 1)}` });
  }
  last = value;
}

/** Exact up to 90 trillion dollars. */
function cents(text: string | undefined): number {
  return Math.round(Number(text) * 100);
}
