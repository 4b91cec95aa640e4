export { FakeServer, FakeSocket, portfolioMessage } from "./server.js";
export { createFixedPortfolio, history, states, type StateName } from "./fixtures.js";
