"use client";
import { Allocation } from "live-portfolio/allocation";
import { DayChart } from "live-portfolio/chart";
import { ConnectionState, LivePortfolioProvider, LivePortfolioValue } from "live-portfolio/react";
import { PositionsTable } from "live-portfolio/table";
import { createFixedPortfolio, history, states } from "live-portfolio/testing";

const answers = Object.fromEntries(Object.keys(states).map((name) => [`/v1/portfolio/${name}/history?range=1d`, history]));
const client = createFixedPortfolio(states, answers);

/** The fixtures of the package's own tests, drawn: what is right here is what the tests have seen. */
export function States() {
  return (
    <LivePortfolioProvider client={client}>
      {Object.keys(states).map((name) => (
        <section key={name} className="card state" id={name} aria-labelledby={`state-${name}`}>
          <h2 id={`state-${name}`}>{name}</h2>
          <ConnectionState accountId={name} />
          <LivePortfolioValue accountId={name} />
          <DayChart accountId={name} ranges={["1d"]} className="chart" label={`Value over time, ${name}`} />
          <Allocation accountId={name} label={`Allocation, ${name}`} />
          <PositionsTable accountId={name} label={`Positions, ${name}`} />
        </section>
      ))}
    </LivePortfolioProvider>
  );
}
