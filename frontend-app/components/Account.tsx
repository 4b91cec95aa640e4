"use client";
import { Allocation } from "live-portfolio/allocation";
import { DayChart } from "live-portfolio/chart";
import { ConnectionState, LivePortfolioValue, usePortfolio } from "live-portfolio/react";
import { PositionsTable } from "live-portfolio/table";
import { nameOf } from "@/lib/names";
import { useFirst } from "@/lib/useFirst";
import { PauseButton } from "./PauseButton";

/** Everything of one account. */
export function Account({ accountId }: { readonly accountId: string }) {
  const first = useFirst([accountId]);
  const hasFigures = usePortfolio(accountId, ({ status }) => status !== "denied");
  return (
    <>
      <div className="bar">
        <ConnectionState accountId={accountId} />
        <PauseButton />
      </div>
      <section className="card" aria-labelledby="value-of-account">
        <h2 id="value-of-account" title={accountId}>Account {nameOf(accountId, first[accountId]?.number)}</h2>
        <LivePortfolioValue accountId={accountId} />
        {hasFigures ? <DayChart accountId={accountId} className="chart" /> : null}
      </section>
      {hasFigures ? (
        <>
          <section className="card" aria-labelledby="allocation-of-account">
            <h2 id="allocation-of-account">Allocation</h2>
            <Allocation accountId={accountId} />
          </section>
          <section className="card" aria-labelledby="positions-of-account">
            <h2 id="positions-of-account">Positions</h2>
            <PositionsTable accountId={accountId} />
          </section>
        </>
      ) : null}
    </>
  );
}
