import { type Account, UNKNOWN, createAccount, forget, refresh, restart, take, takeFreshness } from "./account.js";
import { type Address, addressesOf, isAccountId, withQuery } from "./address.js";
import { createCredentials } from "./credentials.js";
import { LivePortfolioError, errorOfClose, finalError } from "./errors.js";
import { frames } from "./frames.js";
import type { ServerMessage, Subscribe } from "./messages.js";
import { watchPage } from "./page.js";
import { hasDeltas, hasEvents, hasFallbacks, hasTickets, loadDeltas, loadTransports } from "./parts.js";
import type { LiveEvent, Link, LivePortfolio, Options, Transport } from "./types.js";
import type { Climber } from "./transports.js";
import { type Wire, type WireEvents, openSocket } from "./wire.js";

const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 15_000;
const STRIKES_MAX = 2; // of one transport, before the next is tried
const REFUSALS: Readonly<Record<string, number>> = { forbidden: 4503, account_not_in_dollars: 4504, too_many_subscriptions: 4501 }; // of one account
const WEBSOCKET = "websocket";

/** A client: one connection, many accounts, as many subscribers as there are. Make one and keep it. */
export function createLivePortfolio(options: Options = {}): LivePortfolio {
  const transports: readonly Transport[] = !hasFallbacks ? [WEBSOCKET] : options.transports?.length ? options.transports : [WEBSOCKET, "sse", "polling"];
  const accounts = new Map<string, Account>();
  const credentials = createCredentials(options);
  const changed = frames(flush);
  const loading = hasDeltas ? loadDeltas() : undefined;
  let deltas: Awaited<typeof loading>;
  let addresses: Address[] | undefined;
  let addressIndex = 0;
  let transportIndex = 0;
  let wire: Wire | null = null;
  let climber: Climber | null = null; // tries the WebSocket while a fallback serves
  let generation = 0; // of connections; whoever comes back from an older one is not heard
  let link: Link = "idle";
  let transport: Transport | null = null;
  let error: LivePortfolioError | null = null;
  let isConfirmed = false;
  let isClosed = false;
  let attempt = 0;
  let strikes = 0;
  let retryAt: number | null = null;
  let retryTimer: ReturnType<typeof setTimeout> | undefined;
  let secret: string | null; // the token or ticket of the newest connection
  let refused: string | null | undefined; // the one that the server refused; undefined: none since the last value
  let wasForbidden = false; // since the last value
  let unwatchPage: (() => void) | null = null;

  // Accounts

  const followed = () => [...accounts.values()].filter((account) => !account.error);
  const isResting = () => isClosed || link === "paused" || error?.isFinal;

  function follow(account: Account): void {
    account.isComplete = false;
    if (wire) {
      subscribeOn(wire, account);
      if (hasFallbacks) climber?.again();
    } else queueMicrotask(() => /idle|closed/.test(link) && dial()); // those that come together are asked for together
  }

  /** What is asked of an account: no server sends anything older than what was seen, on whichever server. */
  function wishOf(account: Account) {
    const { detail, value } = account;
    return { detail, delta: hasDeltas ? deltas?.numberOf(account) : undefined, max_frequency_hz: options.maxFrequencyHz, epoch: value?.epoch, sequence: value?.sequence };
  }

  function subscribeOn(one: Wire, account: Account): void {
    one.send({ type: "subscribe", account_id: account.id, ...wishOf(account) } as Subscribe);
  }

  function leave({ id, error }: Account): void {
    accounts.delete(id);
    if (!error) wire?.send({ type: "unsubscribe", account_id: id });
    if (!accounts.size) stopWatching();
    if (followed().length || isResting()) return;
    attempt = strikes = 0;
    rest("idle");
  }

  function refuse(account: Account, why: LivePortfolioError): void {
    forget(account);
    account.error = why;
    tell({ type: "error", error: why });
    changed();
  }

  // The connection

  function address(): Address {
    addresses ??= addressesOf(options.url);
    return addresses[addressIndex % addresses.length] as Address;
  }

  function dial(): void {
    if (isResting() || wire || link === "connecting" || !followed().length) return;
    drop();
    unwatchPage ??= watchPage(
      probe,
      () => wire?.probe(),
      // a browser allows few HTTP connections to one host, over all tabs: only a visible one has them
      () => hasFallbacks && wire && transport !== WEBSOCKET && rest("waiting"),
      () => isResting() || rest("waiting"),
    );
    const kind = transports[transportIndex] as Transport;
    show("connecting", kind);
    const mine = generation;
    connect(kind, eventsOf(mine)).then(
      (made) => (mine === generation ? (wire = made) : made?.close()),
      (why) => mine === generation && lost(why),
    );
  }

  /** Credentials first, then a wire; null where they came too late. Throws LivePortfolioError. */
  async function connect(kind: Transport, events: WireEvents): Promise<Wire | null> {
    const mine = generation;
    const at = address();
    const reason = refused === undefined ? "connect" : "rejected";
    const ticket = hasTickets && kind === WEBSOCKET && options.getTicket ? await credentials.forTicket(reason) : "";
    const token = ticket ? null : await credentials.forToken(reason);
    if (hasDeltas) deltas = await loading;
    if (mine !== generation) return null;
    secret = ticket || token || null;
    if (secret === refused) throw finalError("unauthorized", 4500);
    if (hasFallbacks && kind !== WEBSOCKET) return (await loadTransports()).openHttp(kind, at.http, token, followed(), options, events);
    const wanted = followed();
    // one account goes into the address; several are subscribed to, as a refused first one would close for all
    const first = wanted.length === 1 || !at.several ? wanted[0] : undefined;
    const url = first ? at.one(first.id) : (at.several as string);
    const made = openSocket(withQuery(url, { ...(first && wishOf(first)), ticket }), token, options, events);
    for (const account of wanted) if (account !== first) subscribeOn(made, account);
    return made;
  }

  /** Nothing of the connection that was is awaited or heard any more. */
  function drop(): void {
    generation++;
    clearTimeout(retryTimer);
    credentials.abort();
    wire?.close();
    if (hasFallbacks) climber?.close();
    wire = climber = retryAt = null;
    isConfirmed = false;
    for (const account of accounts.values()) {
      restart(account);
      account.hops = undefined;
    }
  }

  function rest(then: Link): void {
    drop();
    show(then);
  }

  function eventsOf(mine: number): WireEvents {
    const ifMine = <T extends unknown[]>(then: (...what: T) => void) => (...what: T) => {
      if (mine === generation) then(...what);
    };
    return {
      onOpen: ifMine(() => {
        isConfirmed = true;
        show("open", transport);
        climb(mine);
      }),
      onMessage: ifMine((message) => receive(message, ifMine)),
      onConfirmed: ifMine((is) => {
        isConfirmed = is;
        changed();
      }),
      onDown: ifMine(lost),
    };
  }

  function receive(message: ServerMessage, ifMine: <T>(then: (what: T) => void) => (what: T) => void): void {
    const account = accounts.get((message as { account_id?: string }).account_id as string);
    const { type } = message;
    if (type === "token_expiring") {
      credentials.forToken("expiring").then(
        ifMine((token) => token && wire?.send({ type: "auth", token })),
        ifMine((why) => (why.isFinal ? lost(why) : fail(why))),
      );
    } else if (type === "error" && account && !account.error && message.code in REFUSALS) {
      refuse(account, errorOfClose(REFUSALS[message.code]));
    } else if (hasDeltas && type === "delta") {
      deltas?.takeDelta(message, accounts.values(), (whole) => receive(whole, ifMine), (one) => wire && subscribeOn(wire, one));
    } else if (type === "freshness") {
      if (account) takeFreshness(account, message);
      changed();
    } else if (type !== "portfolio") ignore(type === "error" ? "server_error" : "unknown_type");
    else if (!account || account.error) ignore("unknown_account");
    else if (take(account, message)) startOver(); // only now: a connection that opens may be one that is closed at once
    else ignore("older");
  }

  function ignore(code: (LiveEvent & { type: "ignored" })["code"]): void {
    tell({ type: "ignored", code });
  }

  /** What went wrong before counts no more. */
  function startOver(): void {
    error = null;
    refused = undefined;
    wasForbidden = false;
    attempt = strikes = 0;
    changed();
  }

  // A connection that ends

  function lost(thrown: unknown): void {
    const why = thrown instanceof LivePortfolioError ? thrown : errorOfClose();
    const { code, isFinal } = why;
    const wanted = followed();
    const hadNone = !wanted.some((account) => account.isFresh);
    drop();
    if (code === "forbidden" || code === "account_not_in_dollars") {
      // a connection for one account says it of that account; one for several does not say of which: ask again
      for (const account of wanted) wanted.length === 1 || wasForbidden ? refuse(account, why) : forget(account);
      wasForbidden = true;
      if (followed().length) again();
      else show("closed");
    } else if (code === "unauthorized" && !isFinal) {
      // the token may only have expired while this device slept: one fresh one, then it is for good
      if (refused !== undefined) return lost(finalError(code, 4500));
      refused = secret;
      again();
    } else {
      fail(why);
      if (isFinal) {
        if (code === "unauthorized") wanted.map(forget);
        return show("closed");
      }
      if (hadNone && code !== "token_unavailable") {
        // another address next time, and another transport when this one has failed often enough
        strikes++;
        addressIndex++;
        if (hasFallbacks && strikes % Math.max(STRIKES_MAX, addresses?.length ?? 0) === 0) transportIndex = (transportIndex + 1) % transports.length;
      }
      again(why.retryInMs);
    }
  }

  function again(atLeastMs = 0): void {
    const inMs = Math.max(Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** attempt++) * (0.5 + Math.random() / 2), atLeastMs);
    retryAt = Date.now() + inMs;
    retryTimer = setTimeout(dial, inMs);
    tell({ type: "retry", inMs, attempt });
    show(globalThis.navigator?.onLine === false ? "offline" : "waiting");
  }

  /** On a fallback: try the WebSocket beside it, which takes over with its first value. */
  function climb(mine: number): void {
    const isBelow = hasFallbacks && transport !== WEBSOCKET && transports.includes(WEBSOCKET);
    if (isBelow) loadTransports().then(({ climb }) => {
      if (mine !== generation || climber) return;
      climber = climb(eventsOf(mine), (events) => connect(WEBSOCKET, events), (made) => {
        wire?.close();
        wire = made;
        transportIndex = transports.indexOf(WEBSOCKET);
        followed().map(restart);
        show("open", WEBSOCKET);
      });
    });
  }

  function stopWatching(): void {
    unwatchPage?.();
    unwatchPage = null;
  }

  // Telling

  function show(nextLink: Link, nextTransport: Transport | null = null): void {
    if (nextLink !== link || nextTransport !== transport) {
      link = nextLink;
      transport = nextTransport;
      tell({ type: "link", link, transport });
    }
    changed();
  }

  function fail(why: LivePortfolioError): void {
    error = why;
    tell({ type: "error", error: why });
    changed();
  }

  function tell(event: LiveEvent): void {
    if (hasEvents) guarded(() => options.onEvent?.(event));
  }

  function flush(): void {
    for (const account of [...accounts.values()]) {
      if (refresh(account, { link, transport, retryAt, error }, isConfirmed)) [...account.listeners].map(guarded);
    }
  }

  function probe(): void {
    if (isResting()) return;
    if (wire) wire.probe();
    else dial();
  }

  return {
    subscribe(accountId, listener, { detail = "value" } = {}) {
      let account = accounts.get(accountId);
      const isMore = detail !== "value" && account?.detail === "value";
      const isNew = !account;
      if (!account) {
        accounts.set(accountId, (account = createAccount(accountId)));
        if (!isAccountId(accountId)) refuse(account, finalError("invalid_account_id"));
        changed();
      }
      const one = account;
      const own = () => listener(); // one function may subscribe twice
      clearTimeout(one.lingering);
      one.listeners.add(own);
      if (detail !== "value") one.detail = detail;
      if ((isNew || isMore) && !one.error) follow(one);
      return () => {
        if (one.listeners.delete(own) && !one.listeners.size) one.lingering = setTimeout(leave, options.lingerMs ?? 1_000, one);
      };
    },
    getSnapshot: (accountId) => accounts.get(accountId)?.snapshot ?? UNKNOWN,
    getServerSnapshot: () => UNKNOWN,
    request: async (path, init) => (await loadTransports()).request(address().http + path, credentials, options, init),
    probe,
    pause() {
      if (!isClosed) rest("paused");
    },
    resume() {
      if (isClosed) return;
      for (const account of accounts.values()) if (account.error?.code !== "invalid_account_id") account.error = null;
      startOver();
      if (/paused|closed/.test(link)) link = "idle";
      for (const account of followed()) if (!account.isFresh) follow(account);
    },
    close() {
      isClosed = true;
      for (const account of accounts.values()) clearTimeout(account.lingering);
      rest("closed");
      stopWatching();
    },
  };
}

/** What an app's callback throws goes to the page's own error reporting, and stops nobody else. */
function guarded(callback: () => void): void {
  try {
    callback();
  } catch (thrown) {
    queueMicrotask(() => {
      throw thrown;
    });
  }
}
