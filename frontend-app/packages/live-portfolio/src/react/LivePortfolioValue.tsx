"use client";
import type { ReactNode } from "react";
import { DASH, signOf } from "../format.js";
import type { Snapshot } from "../types.js";
import { caveats, trouble } from "../words.js";
import { ConnectionState } from "./ConnectionState.js";
import { usePortfolio } from "./hooks.js";

export interface LivePortfolioValueProps {
  readonly accountId: string;
  /** Only "brokerage" comes from this server; for the others give what your own back end says. */
  readonly portfolioMode?: "brokerage" | "hybrid" | "aggregation";
  readonly filterAccount?: string | null;
  /** The two texts of the other modes; without them a dash is shown, never another account's value. */
  readonly otherValue?: { readonly total_value: string; readonly today_return: string } | null;
}

/** Two rows for inside of a card: what the account is worth now, and what it has gained today. */
export function LivePortfolioValue({ accountId, portfolioMode = "brokerage", filterAccount, otherValue }: LivePortfolioValueProps) {
  if (portfolioMode !== "brokerage" || (filterAccount && filterAccount !== accountId)) {
    const [total, gained] = [otherValue?.total_value ?? DASH, otherValue?.today_return ?? DASH];
    return <Rows total={total} gained={gained} direction={signOf(gained)} status={otherValue ? "live" : "unknown"} />;
  }
  return <OfBrokerage accountId={accountId} />;
}

function OfBrokerage({ accountId }: { readonly accountId: string }) {
  const { status, total, gained, direction, notes } = usePortfolio(accountId, shown);
  return (
    <Rows total={total} gained={gained} direction={direction} status={status}>
      {status === "live" ? null : <p className="lp-note"><ConnectionState accountId={accountId} /></p>}
      {notes ? <p className="lp-note">{notes}</p> : null}
    </Rows>
  );
}

function shown(snapshot: Snapshot) {
  const { status, value } = snapshot;
  return {
    status,
    total: value?.total_value ?? DASH,
    gained: value?.today_return ?? DASH,
    direction: signOf(value?.day_pnl),
    notes: [...caveats(value), trouble(snapshot)].filter(Boolean).join(" · "),
  };
}

interface RowsProps {
  readonly total: string;
  readonly gained: string;
  readonly direction: number | null;
  readonly status: string;
  readonly children?: ReactNode;
}

function Rows({ total, gained, direction, status, children }: RowsProps) {
  return (
    <div className="lp-value" data-status={status}>
      <div className="lp-row">
        <span className="lp-label">Current Value</span>
        <span className="lp-total">{total}</span>
      </div>
      <div className="lp-row">
        <span className="lp-label">Today&rsquo;s Return</span>
        <span className="lp-gain" data-direction={direction ?? 0}>{gained}</span>
      </div>
      {children}
    </div>
  );
}
