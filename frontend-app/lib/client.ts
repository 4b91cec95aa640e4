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

function made(): LivePortfolio {
  return createLivePortfolio({ url: process.env.NEXT_PUBLIC_WEBSOCKET_URL, getToken });
}

const kept = globalThis as { livePortfolio?: LivePortfolio };

/** One client for the whole app. In development it outlives the module, which hot reload makes anew. */
export const client: LivePortfolio = process.env.NODE_ENV === "production" ? made() : (kept.livePortfolio ??= made());
