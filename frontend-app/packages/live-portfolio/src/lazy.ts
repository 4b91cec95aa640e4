/** What few pages need is loaded when it is needed. The server's own page has another file in place of this one. */
export const loadTransports = () => import("./transports.js");
