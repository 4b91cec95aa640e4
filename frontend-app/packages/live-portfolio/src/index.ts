export { createLivePortfolio } from "./client.js";
export { LivePortfolioError, NotSignedIn, type ErrorCode } from "./errors.js";
export type { Detail, Link, LiveEvent, LivePortfolio, Options, Snapshot, Status, Transport, Value, Why } from "./types.js";
export type { PortfolioMessage, PositionRow } from "./messages.js";
