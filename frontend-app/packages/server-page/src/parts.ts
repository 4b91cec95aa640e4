/** In place of the package's: this page comes by the same way as the WebSocket, and has its own token and no log. */
import { request } from "../../live-portfolio/src/request.js";

export const loadTransports = async () => ({ request }) as typeof import("../../live-portfolio/src/transports.js");
export const loadDeltas = async () => undefined;
export const hasDeltas = false;
export const hasAddresses = false;
export const hasFallbacks = false;
export const hasEvents = false;
export const hasTickets = false;
