export { LivePortfolioProvider, useLivePortfolio, usePaused } from "./context.js";
export { useConnection, usePortfolio } from "./hooks.js";
export { LivePortfolioValue, type LivePortfolioValueProps } from "./LivePortfolioValue.js";
export { ConnectionState, type ConnectionStateProps } from "./ConnectionState.js";
