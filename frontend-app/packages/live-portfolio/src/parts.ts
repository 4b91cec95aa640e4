/** What a page can do without. The server's own page, which is kept small, has another file in place of this one. */

/** Needed by few pages, so loaded when it is needed. */
export const loadTransports = () => import("./transports.js");

/** Wanted at once, but a value does not wait for it where it cannot be had. */
export const loadDeltas = (): Promise<typeof import("./deltas.js") | undefined> => import("./deltas.js").catch(() => undefined);

/** Can only what changed be asked for? */
export const hasDeltas: boolean = true;

/** Are there other ways than a WebSocket? */
export const hasFallbacks: boolean = true;

/** Is the server's address given? */
export const hasAddresses: boolean = true;

/** Does anybody listen to what the client tells? */
export const hasEvents: boolean = true;

/** Can a connection begin with a ticket? */
export const hasTickets: boolean = true;
