import { type LivePortfolio, NotSignedIn, createLivePortfolio } from "live-portfolio";

const tokenUrl = process.env.NEXT_PUBLIC_TOKEN_URL;

/** A token of the signed-in user, from our own back end. */
async function getToken({ signal }: { signal: AbortSignal }): Promise<string | null> {
  if (!tokenUrl) return null;
  const answer = await fetch(tokenUrl, { method: "POST", signal });
  if (answer.status === 401) throw new NotSignedIn();
  if (!answer.ok) throw new Error(`no token: ${answer.status}`);
  return ((await answer.json()) as { token: string }).token;
}

const kept = globalThis as { livePortfolios?: LivePortfolio[] };
const made = process.env.NODE_ENV === "production" ? [] : (kept.livePortfolios ??= []); // in development they outlive this module, which hot reload loads again

/** A server follows at most so many accounts on one connection. */
export const ACCOUNTS_PER_CONNECTION = 64;

/** One client for the whole app; the second and further are for accounts beyond what one connection carries. */
export function clientOf(index: number): LivePortfolio {
  return (made[index] ??= createLivePortfolio({ url: process.env.NEXT_PUBLIC_WEBSOCKET_URL, getToken }));
}

export const client: LivePortfolio = clientOf(0);
