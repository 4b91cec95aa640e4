import type { LivePortfolio, PortfolioMessage } from "live-portfolio";

const IDS_MAX = 400; // of one request: its address stays below what servers and proxies take

/** What several accounts are worth at this moment, by one request: shown until each is live. Absent where there is no value. */
export async function firstValues(client: LivePortfolio, accountIds: readonly string[], signal: AbortSignal): Promise<Record<string, PortfolioMessage>> {
  const found: Record<string, PortfolioMessage> = {};
  for (let from = 0; from < accountIds.length; from += IDS_MAX) {
    const ids = accountIds.slice(from, from + IDS_MAX).map(encodeURIComponent).join();
    const answer = await client.request(`/v1/portfolios?ids=${ids}`, { signal });
    if (!answer.ok) break; // what is live comes by itself
    const { portfolios } = (await answer.json()) as { portfolios: { account_id: string; portfolio?: PortfolioMessage }[] };
    for (const { account_id, portfolio } of portfolios) if (portfolio) found[account_id] = portfolio;
  }
  return found;
}
