export { FakeServer, FakeSocket, portfolioMessage } from "./server.js";
export { createFixedPortfolio, states, type StateName } from "./fixtures.js";
