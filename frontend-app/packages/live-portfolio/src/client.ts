import { Account, UNKNOWN } from "./account.js";
import { type Address, addressesOf, isAccountId } from "./address.js";
import { connect } from "./connect.js";
import { Credentials } from "./credentials.js";
import { LivePortfolioError, errorOfClose, finalError, refused } from "./errors.js";
import { frames } from "./frames.js";
import type { PortfolioMessage } from "./messages.js";
import { watchPage } from "./page.js";
import type { Detail, LiveEvent, Link, LivePortfolio, Options, RequestOptions, Snapshot, Transport } from "./types.js";
import type { Climber } from "./transports.js";
import type { Wire, WireEvents } from "./wire.js";

const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 15_000;
const STRIKES_MAX = 2; // of one transport, before the next is tried

/** A client: one connection, many accounts, as many subscribers as there are. Make one and keep it. */
export function createLivePortfolio(options: Options = {}): LivePortfolio {
  return new Client(options);
}

class Client implements LivePortfolio {
  readonly #options: Options;
  readonly #transports: readonly Transport[];
  readonly #accounts = new Map<string, Account>();
  readonly #credentials: Credentials;
  readonly #changed = frames(() => this.#flush());
  #addresses: Address[] = [];
  #addressIndex = 0;
  #transportIndex = 0;
  #wire: Wire | null = null;
  #climber: Climber | null = null; // tries the WebSocket while a fallback serves
  #generation = 0; // of connections; whoever comes back from an older one is not heard
  #link: Link = "idle";
  #transport: Transport | null = null;
  #error: LivePortfolioError | null = null;
  #isConfirmed = false;
  #isClosed = false;
  #attempt = 0;
  #strikes = 0;
  #retryAt: number | null = null;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #refusedToken: string | null | undefined; // undefined: none was refused since the last value
  #wasForbidden = false; // since the last value
  #unwatchPage: (() => void) | null = null;

  constructor(options: Options) {
    this.#options = options;
    this.#transports = options.transports?.length ? options.transports : ["websocket", "sse", "polling"];
    this.#credentials = new Credentials(options);
  }

  // What an app calls

  subscribe(accountId: string, listener: () => void, { detail = "value" }: { readonly detail?: Detail } = {}): () => void {
    const isNew = !this.#accounts.has(accountId);
    const account = this.#accounts.get(accountId) ?? this.#begin(accountId);
    const isMore = detail === "positions" && account.detail === "value";
    const own = () => listener(); // one function may subscribe twice
    clearTimeout(account.lingerTimer);
    account.listeners.add(own);
    if (isMore) account.detail = detail;
    if ((isNew || isMore) && !account.error) this.#follow(account);
    return () => {
      if (!account.listeners.delete(own) || account.listeners.size) return;
      account.lingerTimer = setTimeout(() => this.#leave(account), this.#options.lingerMs ?? 1_000);
    };
  }

  getSnapshot(accountId: string): Snapshot {
    return this.#accounts.get(accountId)?.snapshot ?? UNKNOWN;
  }

  getServerSnapshot(): Snapshot {
    return UNKNOWN;
  }

  async request(path: string, init?: RequestOptions): Promise<Response> {
    const { request } = await import("./transports.js");
    return request(this.#address.http + path, this.#credentials, this.#options, init);
  }

  probe(): void {
    if (!this.#accounts.size || this.#isResting) return;
    if (this.#wire) this.#wire.probe();
    else this.#dial();
  }

  pause(): void {
    if (!this.#isClosed) this.#rest("paused");
  }

  resume(): void {
    if (this.#isClosed) return;
    for (const account of this.#all) if (account.error?.code === "forbidden") account.error = null;
    this.#startOver();
    if (/paused|closed/.test(this.#link)) this.#link = "idle";
    for (const account of this.#followed) if (!account.isFresh) this.#follow(account);
    this.#changed();
  }

  close(): void {
    this.#isClosed = true;
    for (const account of this.#all) clearTimeout(account.lingerTimer);
    this.#rest("closed");
    this.#watchPage(false);
  }

  // Accounts

  get #all(): Account[] {
    return [...this.#accounts.values()];
  }

  get #followed(): Account[] {
    return this.#all.filter((account) => !account.error);
  }

  #begin(accountId: string): Account {
    const account = new Account(accountId);
    this.#accounts.set(accountId, account);
    if (!isAccountId(accountId)) this.#failAccount(account, finalError("invalid_account_id", "An account id has 1 to 64 letters, digits, - and _"));
    this.#changed();
    return account;
  }

  #follow(account: Account): void {
    account.isComplete = false;
    if (this.#wire) {
      this.#wire.follow(account.id, account.detail);
      this.#climber?.again();
    } else queueMicrotask(() => /idle|closed/.test(this.#link) && this.#dial()); // those that come together are asked for together
  }

  #leave(account: Account): void {
    this.#accounts.delete(account.id);
    if (!account.error) this.#wire?.leave(account.id);
    if (!this.#accounts.size) this.#watchPage(false);
    if (this.#followed.length || this.#isResting) return;
    this.#attempt = this.#strikes = 0;
    this.#rest("idle");
  }

  #refuse(accountId: string): void {
    const account = this.#accounts.get(accountId);
    if (!account || account.error) return;
    account.forget();
    this.#failAccount(account, errorOfClose(4503));
  }

  #failAccount(account: Account, error: LivePortfolioError): void {
    account.error = error;
    this.#tell({ type: "error", error });
    this.#changed();
  }

  // The connection

  get #isResting(): boolean {
    return this.#isClosed || this.#link === "paused" || Boolean(this.#error?.isFinal);
  }

  get #address(): Address {
    if (!this.#addresses.length) this.#addresses = addressesOf(this.#options.url);
    return this.#addresses[this.#addressIndex % this.#addresses.length] as Address;
  }

  #dial(): void {
    if (this.#isResting || this.#wire || this.#link === "connecting" || !this.#followed.length) return;
    this.#drop();
    this.#watchPage(true);
    const kind = this.#transports[this.#transportIndex] as Transport;
    this.#show("connecting", kind);
    const mine = this.#generation;
    this.#connect(kind, mine, this.#eventsOf(mine)).then(
      (wire) => (mine === this.#generation ? (this.#wire = wire) : wire?.close()),
      (why) => mine === this.#generation && this.#lost(why),
    );
  }

  /** Credentials first, then a wire; null where they came too late. */
  async #connect(kind: Transport, mine: number, events: WireEvents): Promise<Wire | null> {
    const address = this.#address;
    const reason = this.#refusedToken === undefined ? "connect" : "rejected";
    const isByTicket = this.#isByTicket(kind);
    const [token, ticket] = isByTicket
      ? [null, await this.#credentials.forTicket(reason)]
      : [await this.#credentials.forToken(reason), ""];
    if (mine !== this.#generation) return null;
    if (this.#refusedToken !== undefined && !isByTicket && token === this.#refusedToken) throw refused();
    return connect({ kind, address, token, ticket, accounts: () => this.#followed }, this.#options, events);
  }

  #isByTicket(kind: Transport | null): boolean {
    return this.#credentials.isTicket && kind === "websocket";
  }

  /** Nothing of the connection that was is awaited or heard any more. */
  #drop(): void {
    this.#generation++;
    clearTimeout(this.#retryTimer);
    this.#credentials.abort();
    this.#wire?.close();
    this.#climber?.close();
    this.#wire = this.#climber = this.#retryAt = null;
    this.#isConfirmed = false;
    for (const account of this.#all) {
      account.restart();
      account.staleHops = undefined;
    }
  }

  #rest(link: Link): void {
    this.#drop();
    this.#show(link);
  }

  #eventsOf(mine: number): WireEvents {
    const ifMine = <T extends unknown[]>(then: (...what: T) => void) => (...what: T) => {
      if (mine === this.#generation) then(...what);
    };
    return {
      onOpen: ifMine(() => {
        this.#isConfirmed = true;
        this.#show("open", this.#transport);
        this.#climb(mine);
      }),
      onMessage: ifMine((message) => this.#take(message)),
      onFreshness: ifMine((message) => {
        this.#accounts.get(message.account_id)?.takeFreshness(message);
        this.#changed();
      }),
      onTokenExpiring: ifMine(() => {
        this.#credentials.forToken("expiring").then(
          ifMine((token) => token && this.#wire?.renew(token)),
          ifMine((why: LivePortfolioError) => (why.isFinal ? this.#lost(why) : this.#fail(why))),
        );
      }),
      onForbidden: ifMine((accountId) => this.#refuse(accountId)),
      onIgnored: ifMine((code) => this.#tell({ type: "ignored", code })),
      onConfirmed: ifMine((isConfirmed) => {
        this.#isConfirmed = isConfirmed;
        this.#changed();
      }),
      onDown: ifMine((why) => this.#lost(why)),
    };
  }

  #take(message: PortfolioMessage): void {
    const account = this.#accounts.get(message.account_id);
    if (!account || account.error) return this.#tell({ type: "ignored", code: "unknown_account" });
    if (account.take(message, Date.now()) === "older") return this.#tell({ type: "ignored", code: "older" });
    this.#startOver(); // only now: a connection that opens may be one that is closed at once
    return this.#changed();
  }

  /** What went wrong before counts no more. */
  #startOver(): void {
    this.#error = null;
    this.#refusedToken = undefined;
    this.#wasForbidden = false;
    this.#attempt = this.#strikes = 0;
  }

  // A connection that ends

  #lost(thrown: unknown): void {
    const why = thrown instanceof LivePortfolioError ? thrown : errorOfClose();
    const kind = this.#transport;
    const hadNone = !this.#all.some((account) => account.isFresh);
    this.#drop();
    if (why.closeCode === 4503) return this.#forbidden();
    if (why.closeCode === 4500 && !why.isFinal) return this.#unauthorized(kind);
    this.#fail(why);
    if (why.isFinal) {
      if (why.code === "unauthorized") for (const account of this.#all) account.forget();
      return this.#show("closed");
    }
    if (hadNone && why.code !== "token_unavailable") this.#strike();
    return this.#again(why.retryInMs);
  }

  /** Another address next time, and another transport when this one has failed often enough. */
  #strike(): void {
    this.#strikes++;
    this.#addressIndex++;
    if (this.#strikes % Math.max(STRIKES_MAX, this.#addresses.length) === 0) {
      this.#transportIndex = (this.#transportIndex + 1) % this.#transports.length;
    }
  }

  #again(atLeastMs = 0): void {
    const backOffMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** this.#attempt++) * (0.5 + Math.random() / 2);
    const inMs = Math.max(backOffMs, atLeastMs);
    this.#retryAt = Date.now() + inMs;
    this.#retryTimer = setTimeout(() => this.#dial(), inMs);
    this.#tell({ type: "retry", inMs, attempt: this.#attempt });
    this.#show(globalThis.navigator?.onLine === false ? "offline" : "waiting");
  }

  /** A connection for one account says it of that account; one for several does not say of which: ask anew. */
  #forbidden(): void {
    const wanted = this.#followed;
    for (const account of wanted) account.forget();
    if (wanted.length === 1 || this.#wasForbidden) for (const account of wanted) this.#refuse(account.id);
    this.#wasForbidden = true;
    if (this.#followed.length) this.#again();
    else this.#show("closed");
  }

  /** The token may only have expired while this device slept: one fresh one, then it is for good. */
  #unauthorized(kind: Transport | null): void {
    if (!this.#credentials.isAny || this.#refusedToken !== undefined) return this.#lost(refused());
    this.#refusedToken = this.#isByTicket(kind) ? "" : this.#credentials.token;
    return this.#again();
  }

  /** On a fallback: try the WebSocket beside it, which takes over with its first value. */
  #climb(mine: number): void {
    if (this.#transport === "websocket" || !this.#transports.includes("websocket")) return;
    import("./transports.js").then(({ climb }) => {
      if (mine !== this.#generation || this.#climber) return;
      this.#climber = climb(this.#eventsOf(mine), (events) => this.#connect("websocket", mine, events), (wire) => {
        this.#wire?.close();
        this.#wire = wire;
        this.#transportIndex = this.#transports.indexOf("websocket");
        for (const account of this.#all) account.restart();
        this.#show("open", "websocket");
      });
    });
  }

  // The page around us

  #watchPage(is: boolean): void {
    if (!is) this.#unwatchPage?.();
    if (is === Boolean(this.#unwatchPage)) return;
    this.#unwatchPage = is
      ? watchPage({
          onWake: () => this.probe(),
          onOffline: () => this.#wire?.probe(),
          // a browser allows few HTTP connections to one host, over all tabs: only a visible one has them
          onHidden: () => this.#wire && this.#transport !== "websocket" && this.#rest("waiting"),
          onStored: () => !this.#isResting && this.#rest("waiting"),
        })
      : null;
  }

  // Telling

  #show(link: Link, transport: Transport | null = null): void {
    if (link !== this.#link || transport !== this.#transport) {
      this.#link = link;
      this.#transport = transport;
      this.#tell({ type: "link", link, transport });
    }
    this.#changed();
  }

  #fail(error: LivePortfolioError): void {
    this.#error = error;
    this.#tell({ type: "error", error });
    this.#changed();
  }

  #tell(event: LiveEvent): void {
    guarded(() => this.#options.onEvent?.(event));
  }

  #flush(): void {
    const around = { link: this.#link, transport: this.#transport, retryAt: this.#retryAt, error: this.#error };
    const now = Date.now();
    for (const account of this.#all) {
      if (account.refresh(around, this.#isConfirmed, now)) for (const listener of [...account.listeners]) guarded(listener);
    }
  }
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
