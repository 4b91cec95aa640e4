/** The server's own page: one account at a time, on the same store and components that other pages use. */
import { createLivePortfolio } from "../../live-portfolio/src/client.js";
import { createDayChart } from "../../live-portfolio/src/dom/chart.js";
import { put, set } from "../../live-portfolio/src/dom/elements.js";
import { type View, createPositionsTable } from "../../live-portfolio/src/dom/table.js";
import type { LivePortfolio, Options } from "../../live-portfolio/src/types.js";
import { trouble } from "../../live-portfolio/src/words.js";
import { $, drawSummary } from "./summary.js";

const OFFERED_MAX = 500;
const BLIP_MS = 2_000; // the state says it at once; a sentence about it would only flicker
const MORE_ACCOUNTS_MS = 2_000;

/** What the demo gives to whoever looks; other servers have no such thing. */
interface DemoSession {
  readonly token: string | null;
}

/** Of `GET /v1/accounts`. */
interface Entry {
  readonly account_id: string;
  readonly account_number?: string;
}

let client: LivePortfolio | undefined;
let views: View[] = [];
let isPaused = false;

const picker = $<HTMLSelectElement>("account");
const form = $<HTMLFormElement>("sign-in");
const chosen = () => decodeURIComponent(location.hash.slice(1));

async function askDemo(): Promise<DemoSession | null> {
  try {
    const answer = await fetch("/demo/session", { cache: "no-store" });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

const session = await askDemo();

/** Show an account; nothing of the one before remains. */
function watch(accountId: string): void {
  if (!client) return;
  const from = client;
  for (const view of views) view.destroy();
  location.replace(`#${encodeURIComponent(accountId)}`);
  const draw = () => {
    const snapshot = from.getSnapshot(accountId);
    const { status, oldSince, error } = snapshot;
    const isRefused = status === "denied" || (status === "failed" && !snapshot.value);
    const isBlip = oldSince && Date.now() - oldSince < BLIP_MS && !error?.isFinal;
    const said = isBlip ? "" : trouble(snapshot);
    $("dashboard").hidden = $("pause").hidden = isRefused;
    form.hidden = !isRefused || Boolean(session);
    $("sign-out").hidden = isRefused || Boolean(session);
    $("again").hidden = isRefused && !session;
    $("notice").hidden = !said;
    put($("notice-text"), said);
    drawSummary(snapshot);
  };
  const of = { client: from, accountId };
  views = [{ destroy: from.subscribe(accountId, draw, { detail: "positions" }) }, createDayChart($("chart"), of), createPositionsTable($("positions"), of)];
  draw();
}

function start(getToken: Options["getToken"]): void {
  client?.close();
  client = createLivePortfolio({ getToken });
  pause(false);
}

function pause(is: boolean): void {
  isPaused = is;
  if (is) client?.pause();
  else client?.resume();
  set($("pause"), { "aria-pressed": `${is}` });
  put($("pause"), is ? "Resume" : "Pause");
}

/** Whoever may see several accounts can change between them. Just after the start more are still being read: look again. */
async function offer(): Promise<void> {
  const answer = await client?.request(`/v1/accounts?limit=${OFFERED_MAX}`).catch(() => null);
  const accounts: Entry[] = answer?.ok ? (await answer.json()).accounts : [];
  const known = picker.options.length;
  const isMore = accounts.length > known;
  if (isMore) {
    picker.replaceChildren(...accounts.map(({ account_id: id, account_number }) => new Option(account_number ?? shortId(id), id)));
    picker.value = chosen();
    $("picker").hidden = false;
    if (session && !known) {
      if (!picker.value) picker.selectedIndex = 0;
      watch(picker.value);
    }
  }
  if (session && (isMore || !known)) setTimeout(offer, MORE_ACCOUNTS_MS);
}

/** The beginning of a long id is enough to tell it from others. */
function shortId(id: string): string {
  return id.replace(/^(.{8}).{6,}/, "$1…");
}

$("pause").onclick = () => pause(!isPaused);
$("again").onclick = () => client?.resume();
$("sign-out").onclick = () => {
  client?.close();
  location.replace(location.pathname); // loads again: nothing of the account stays in this page
};
picker.onchange = () => watch(picker.value);
if (session) {
  let { token } = session;
  // while the server is away the last one will do: it is the WebSocket that tells what is wrong
  start(async () => (token = (await askDemo())?.token ?? token));
  put($("connection-text"), "Reading accounts…");
  void offer();
} else {
  const account = $<HTMLInputElement>("account-id");
  form.hidden = false;
  account.value = chosen();
  form.onsubmit = (event) => {
    event.preventDefault();
    const token = $<HTMLInputElement>("token").value.trim();
    start(({ reason }) => (reason === "expiring" ? null : token)); // what was typed in cannot be renewed
    watch(account.value.trim());
    void offer();
  };
}
