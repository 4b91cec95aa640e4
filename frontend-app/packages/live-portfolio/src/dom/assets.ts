import type { LivePortfolio } from "../types.js";

const AGAIN_MS = 60_000; // for symbols that are new

/** What `GET /v1/portfolio/{id}/assets` tells of an asset, as far as it concerns us. */
export interface Asset {
  readonly symbol: string;
  readonly asset_class: string;
  readonly name?: string;
}

/** What the broker says of an account's assets, by symbol: asked for once, and again for what is bought later. */
export function createAssets(client: LivePortfolio, accountId: string, changed: () => void) {
  const known = new Map<string, Asset>();
  const stop = new AbortController();
  let askedAt = 0;

  async function ask(): Promise<void> {
    askedAt = Date.now();
    try {
      const answer = await client.request(`/v1/portfolio/${encodeURIComponent(accountId)}/assets`, { signal: stop.signal });
      if (!answer.ok) return;
      for (const asset of ((await answer.json()) as { readonly assets: readonly Asset[] }).assets) known.set(asset.symbol, asset);
      changed();
    } catch {} // what has no name has its symbol
  }

  return {
    known,
    look(symbols: Iterable<string>): void {
      if (Date.now() - askedAt > AGAIN_MS && [...symbols].some((symbol) => !known.has(symbol))) void ask();
    },
    stop: () => stop.abort(),
  };
}
