import { createRoot } from "react-dom/client";
import { createLivePortfolio } from "../src/index.js";
import { LivePortfolioProvider, LivePortfolioValue } from "../src/react/index.js";
import { PositionsTable } from "../src/react/table.js";

const client = createLivePortfolio({ url: location.origin, transports: ["websocket"] });
Object.assign(window, { renders: 0 });
client.subscribe("bench", () => (window as unknown as { renders: number }).renders++);
createRoot(document.querySelector("#root") as HTMLElement).render(
  <LivePortfolioProvider client={client}>
    <LivePortfolioValue accountId="bench" />
    <PositionsTable accountId="bench" />
  </LivePortfolioProvider>,
);
