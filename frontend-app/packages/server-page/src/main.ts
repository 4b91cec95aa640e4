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
  readonly accounts: readonly string[];
  readonly token: string | null;
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
  client = createLivePortfolio({ transports: ["websocket"], getToken });
  pause(false);
}

function pause(is: boolean): void {
  isPaused = is;
  if (is) client?.pause();
  else client?.resume();
  set($("pause"), { "aria-pressed": `${is}` });
  put($("pause"), is ? "Resume" : "Pause");
}

function list(accounts: readonly string[], current: string): void {
  picker.replaceChildren(...accounts.map((id) => new Option(id, id)));
  if (accounts.includes(current)) picker.value = current;
  $("picker").hidden = !accounts.length;
}

/** Just after the start of the demo accounts are still being read: look again until there are no more. */
function offer(accounts: readonly string[]): void {
  const known = picker.options.length;
  const isMore = accounts.length > known;
  if (isMore) list(accounts, known ? picker.value : chosen());
  if (isMore && !known) watch(picker.value);
  if (isMore || !known) setTimeout(async () => offer((await askDemo())?.accounts ?? []), MORE_ACCOUNTS_MS);
}

$("pause").onclick = () => pause(!isPaused);
$("again").onclick = () => client?.resume();
$("sign-out").onclick = () => {
  client?.close();
  location.replace(location.pathname); // loads anew: nothing of the account stays in this page
};
picker.onchange = () => watch(picker.value);
if (session) {
  let { token } = session;
  // while the server is away the last one will do: it is the WebSocket that tells what is wrong
  start(async () => (token = (await askDemo())?.token ?? token));
  put($("connection-text"), "Reading accounts…");
  offer(session.accounts);
} else {
  const account = $<HTMLInputElement>("account-id");
  form.hidden = false;
  account.value = chosen();
  form.onsubmit = async (event) => {
    event.preventDefault();
    const token = $<HTMLInputElement>("token").value.trim();
    start(({ reason }) => (reason === "expiring" ? null : token)); // what was typed in cannot be renewed
    watch(account.value.trim());
    const answer = await client?.request(`/v1/accounts?limit=${OFFERED_MAX}`).catch(() => null);
    const found: { account_id: string }[] = answer?.ok ? (await answer.json()).accounts : [];
    if (found.length > 1) list(found.map(({ account_id }) => account_id), chosen()); // whoever may see several can change between them
  };
}
