/** The server's own page: one account at a time, on the same store and components that other pages use. */
import { createLivePortfolio } from "../../live-portfolio/src/client.js";
import { createDayChart } from "../../live-portfolio/src/dom/chart.js";
import { put, set } from "../../live-portfolio/src/dom/elements.js";
import { type View, createPositionsTable } from "../../live-portfolio/src/dom/table.js";
import type { LivePortfolio } from "../../live-portfolio/src/types.js";
import { trouble } from "../../live-portfolio/src/words.js";
import { type Session, demoSession, typedSession, watchAccounts } from "./session.js";
import { $, drawSummary } from "./summary.js";

const OFFERED_MAX = 500;
const BLIP_MS = 2_000; // the state says it at once; a sentence about it would only flicker

let client: LivePortfolio | null = null;
let views: View[] = [];
let isPaused = false;

const chosen = () => decodeURIComponent(location.hash.slice(1));

/** Show an account; nothing of the one before remains. */
function watch(accountId: string): void {
  if (!client) return;
  const from = client;
  for (const view of views) view.destroy();
  history.replaceState(null, "", `#${encodeURIComponent(accountId)}`);
  const draw = () => {
    const snapshot = from.getSnapshot(accountId);
    const { status } = snapshot;
    const isRefused = status === "denied" || (status === "failed" && !snapshot.value);
    $("#dashboard").hidden = $("#pause").hidden = isRefused;
    $("#sign-in").hidden = !isRefused || isDemo;
    $("#sign-out").hidden = isDemo || isRefused;
    const isBlip = snapshot.oldSince !== null && Date.now() - snapshot.oldSince < BLIP_MS && !snapshot.error?.isFinal;
    say(isBlip ? "" : trouble(snapshot));
    $("#again").hidden = isRefused && !isDemo;
    drawSummary(snapshot);
  };
  const end = from.subscribe(accountId, draw, { detail: "positions" });
  const of = { client: from, accountId };
  views = [{ destroy: end }, createDayChart($("#chart"), of), createPositionsTable($("#positions"), of)];
  draw();
}

let isDemo = false;

function say(text: string): void {
  $("#notice").hidden = !text;
  put($("#notice-text"), text);
}

function start(session: Session): void {
  client?.close();
  isDemo = session.isDemo;
  client = createLivePortfolio({ transports: ["websocket"], getToken: session.getToken });
  pause(false);
}

function pause(is: boolean): void {
  isPaused = is;
  if (is) client?.pause();
  else client?.resume();
  set($("#pause"), { "aria-pressed": String(is) });
  put($("#pause"), is ? "Resume" : "Pause");
}

function signOut(): void {
  for (const view of views) view.destroy();
  views = [];
  client?.close();
  client = null;
  history.replaceState(null, "", location.pathname);
  location.reload(); // nothing of the account stays in this page
}

function list(accounts: readonly string[], current: string): void {
  const picker = $<HTMLSelectElement>("#account");
  picker.replaceChildren(...accounts.map((id) => new Option(id, id)));
  if (accounts.includes(current)) picker.value = current;
  $("#picker").hidden = !accounts.length;
}

function beginDemo(session: Session): void {
  start(session);
  const picker = $<HTMLSelectElement>("#account");
  const take = (accounts: readonly string[]) => {
    const isFirst = picker.options.length === 0;
    list(accounts, isFirst ? chosen() : picker.value);
    if (isFirst && accounts.length) watch(picker.value);
  };
  picker.onchange = () => watch(picker.value);
  take(session.accounts);
  if (!session.accounts.length) put($("#connection-text"), "Reading accounts…");
  watchAccounts(session.accounts.length, take);
}

function beginTyped(): void {
  const form = $<HTMLFormElement>("#sign-in");
  form.hidden = false;
  $<HTMLInputElement>("#account-id").value = chosen();
  form.onsubmit = (event) => {
    event.preventDefault();
    start(typedSession($<HTMLInputElement>("#token").value.trim()));
    watch($<HTMLInputElement>("#account-id").value.trim());
    void offerOthers();
  };
}

/** Whoever may see several accounts can change between them. */
async function offerOthers(): Promise<void> {
  const answer = await client?.request(`/v1/accounts?limit=${OFFERED_MAX}`).catch(() => null);
  if (!answer?.ok) return;
  const { accounts } = (await answer.json()) as { accounts: { account_id: string }[] };
  if (accounts.length < 2) return;
  list(accounts.map(({ account_id }) => account_id), chosen());
  $("#account").onchange = () => watch($<HTMLSelectElement>("#account").value);
}

$("#pause").onclick = () => pause(!isPaused);
$("#again").onclick = () => client?.resume();
$("#sign-out").onclick = signOut;
const session = await demoSession();
if (session) beginDemo(session);
else beginTyped();
