import type { Account } from "./account.js";
import { type Address, withQuery } from "./address.js";
import type { Options, Transport } from "./types.js";
import { type Wire, type WireEvents, openSocket } from "./wire.js";

export interface Dial {
  readonly kind: Transport;
  readonly address: Address;
  readonly token: string | null;
  readonly ticket: string;
  /** Asked for at the last moment: accounts may have come while something was awaited. */
  readonly accounts: () => readonly Account[];
}

/** A connection of one kind that follows these accounts. Throws LivePortfolioError: invalid_url. */
export async function connect(dial: Dial, options: Options, events: WireEvents): Promise<Wire> {
  if (dial.kind === "websocket") return bySocket(dial, options, events);
  const { openHttp } = await import("./transports.js"); // needed by few
  return openHttp(dial, options, events);
}

/** One account goes into the address; several are subscribed to, as a refused first one would close for all. */
function bySocket({ address, token, ticket, accounts }: Dial, options: Options, events: WireEvents): Wire {
  const wanted = accounts();
  const first = wanted.length === 1 || !address.several ? wanted[0] : undefined;
  const query = { ...(first && { detail: first.detail, max_frequency_hz: options.maxFrequencyHz }), ticket };
  const wire = openSocket(withQuery(first ? address.one(first.id) : (address.several as string), query), token, options, events);
  for (const account of wanted) if (account !== first) wire.follow(account.id, account.detail);
  return wire;
}
