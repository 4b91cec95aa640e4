import { NotSignedIn } from "../../live-portfolio/src/errors.js";
import type { Why } from "../../live-portfolio/src/types.js";

const MORE_ACCOUNTS_MS = 3_000;

/** Who is looking, and at which accounts they may look. */
export interface Session {
  readonly getToken: (why: Why) => Promise<string | null> | string | null;
  /** Of the demo; empty where the visitor names the account. */
  readonly accounts: readonly string[];
  readonly isDemo: boolean;
}

interface DemoSession {
  readonly accounts: string[];
  readonly token: string | null;
}

async function askDemo(): Promise<DemoSession | null> {
  const answer = await fetch("/demo/session", { cache: "no-store" });
  return answer.ok ? answer.json() : null;
}

/** The demo's session, or null where this server is none. */
export async function demoSession(): Promise<Session | null> {
  const session = await askDemo().catch(() => null);
  let token = session?.token ?? null;
  return session && {
    accounts: session.accounts,
    isDemo: true,
    // while the server is away the last one will do: it is the WebSocket that tells what is wrong
    getToken: async () => (token = (await askDemo().catch(() => null))?.token ?? token),
  };
}

/** Just after the start accounts are still being read: look again until there are no more. */
export function watchAccounts(known: number, onMore: (accounts: readonly string[]) => void): void {
  setTimeout(async () => {
    const session = await askDemo().catch(() => null);
    const accounts = session?.accounts ?? [];
    if (accounts.length > known) onMore(accounts);
    if (accounts.length > known || !accounts.length) watchAccounts(accounts.length, onMore);
  }, known ? MORE_ACCOUNTS_MS : 1_000);
}

/** A token that was typed in lives in this page alone, and cannot be renewed. */
export function typedSession(token: string): Session {
  return {
    accounts: [],
    isDemo: false,
    getToken: ({ reason }) => {
      if (reason !== "connect") throw new NotSignedIn();
      return token || null;
    },
  };
}
