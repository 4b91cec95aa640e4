/** Messages that say no more than what changed. A page that could not load this gets whole ones. */
import type { Account } from "./account.js";
import type { Delta, PortfolioMessage, ServerMessage } from "./messages.js";
import { checked } from "./wire.js";

let numbers = 0;
const asked = new WeakMap<Account, Account["value"]>(); // of which a whole message has been asked for, and what was there then

/** What deltas are to call an account. */
export function numberOf(account: Account): number {
  return (account.number ??= ++numbers);
}

/** Hand on the whole message that a delta stands for; where something was lost, `ask` for one, once. */
export function takeDelta(
  delta: Delta, accounts: Iterable<Account>, receive: (message: ServerMessage) => void, ask: (account: Account) => void,
): void {
  const account = Array.from(accounts).find(({ number }) => number === delta.delta);
  if (!account || account.error) return;
  let whole: ServerMessage | undefined;
  try {
    whole = checked(wholeOf(account, delta));
  } catch {} // it begins with something else than what is there
  if (whole) receive(whole);
  else if (asked.get(account) !== account.value) {
    asked.set(account, account.value);
    ask(account);
  }
}

function wholeOf({ value: old, rows, isComplete }: Account, { at: [epoch, sequence], base, value, positions }: Delta): PortfolioMessage {
  const seen = old?.epoch === epoch ? old?.sequence : [old?.epoch, old?.sequence];
  if (!old || `${base}` !== `${seen}` || (positions && !isComplete)) throw new RangeError("another base");
  return {
    ...(Array.isArray(value) ? changed(old, value) : value),
    type: "portfolio",
    sequence,
    ...(positions && { positions: positions.map((row) => (Array.isArray(row) ? changed(rows.get(row[0] as string), row.slice(1)) : row)) }),
  } as PortfolioMessage;
}

/** By threes: the place of a field, how many characters of its text stay, and what follows them. */
function changed(before: object | undefined, changes: readonly unknown[]): object {
  if (!before) throw new RangeError("no such row");
  const after = { ...before } as Record<string, unknown>;
  const names = Object.keys(after);
  for (let at = 0; at < changes.length; at += 3) {
    const [place, kept, rest] = changes.slice(at) as [number, number, unknown];
    const name = names[place];
    if (name === undefined) throw new RangeError("no such field");
    after[name] = kept ? `${after[name]}`.slice(0, kept) + rest : rest;
  }
  return after;
}
