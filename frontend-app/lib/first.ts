import type { LivePortfolio, PortfolioMessage } from "live-portfolio";

const IDS_MAX = 400; // of one request: its address stays below what servers and proxies take
const PAUSES_MS = [500, 1_000, 2_000, 4_000, 8_000]; // before each further try

/** What one request tells of an account: what the broker calls it, and its value at this moment. Absent where not known. */
export interface First {
  readonly number?: string;
  readonly value?: PortfolioMessage;
}

interface Item {
  readonly account_id: string;
  readonly account_number?: string;
  readonly status: string;
  readonly portfolio?: PortfolioMessage;
}

/**
 * Tells what is known of several accounts, to be shown until each is live. What an answer lacks is asked for again,
 * a few times; what has no value for good is not. Never throws.
 */
export async function firstValues(
  client: Pick<LivePortfolio, "request">,
  accountIds: readonly string[],
  tell: (found: Readonly<Record<string, First>>) => void,
  signal: AbortSignal,
): Promise<void> {
  let missing = accountIds;
  let found: Readonly<Record<string, First>> = {};
  for (const pauseMs of [0, ...PAUSES_MS]) {
    await passed(pauseMs, signal);
    const left: string[] = [];
    for (let from = 0; from < missing.length && !signal.aborted; from += IDS_MAX) {
      const ids = missing.slice(from, from + IDS_MAX);
      const items = await ask(client, ids, signal);
      if (signal.aborted) return;
      if (items) found = { ...found, ...Object.fromEntries(items.map((item) => [item.account_id, firstOf(item)])) };
      left.push(...(items ? items.filter(isAwaited).map((item) => item.account_id) : ids));
    }
    if (signal.aborted) return;
    tell(found);
    missing = left;
    if (!missing.length) return;
  }
}

/** The answer about these accounts; none where they are refused; null where to ask again may help. */
async function ask(client: Pick<LivePortfolio, "request">, ids: readonly string[], signal: AbortSignal): Promise<readonly Item[] | null> {
  try {
    const answer = await client.request(`/v1/portfolios?ids=${ids.map(encodeURIComponent).join()}`, { signal });
    if (answer.ok) return ((await answer.json()) as { portfolios: Item[] }).portfolios;
    return answer.status === 429 || answer.status >= 500 ? null : [];
  } catch {
    return null;
  }
}

function isAwaited({ status }: Item): boolean {
  return status === "value_unavailable" || status === "account_not_ready";
}

function firstOf({ account_number: number, portfolio: value }: Item): First {
  return { ...(number && { number }), ...(value && { value }) };
}

function passed(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted || !ms) return resolve();
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
