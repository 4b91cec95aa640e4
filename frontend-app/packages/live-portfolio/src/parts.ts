/** What a page can do without. The server's own page, which is kept small, has another file in place of this one. */

/** Needed by few pages, so loaded when it is needed. */
export const loadTransports = () => import("./transports.js");

/** Are there other ways than a WebSocket? */
export const hasFallbacks: boolean = true;

/** Does anybody listen to what the client tells? */
export const hasEvents: boolean = true;

/** Can a connection begin with a ticket? */
export const hasTickets: boolean = true;
