"use client";
import { gainWithPercent, money, signOf } from "live-portfolio/format";
import { ConnectionState, usePortfolio } from "live-portfolio/react";
import { type ReactNode, useCallback, useEffect, useState } from "react";
import { PauseButton } from "./PauseButton";
import { sumOf } from "@/lib/sum";

type Known = Readonly<Record<string, string | null>>;

/** Each account in a row, and a total only of what is known: who is missing is named. */
export function Overview({ accountIds, link }: { readonly accountIds: readonly string[]; readonly link: (accountId: string) => ReactNode }) {
  const [known, setKnown] = useState<Known>({});
  const tell = useCallback((accountId: string, equity: string | null) => {
    setKnown((before) => (before[accountId] === equity ? before : { ...before, [accountId]: equity }));
  }, []);
  const missing = accountIds.filter((accountId) => known[accountId] == null);
  const total = sumOf(accountIds.flatMap((accountId) => known[accountId] ?? []));
  return (
    <section className="card" aria-labelledby="overview">
      <div className="bar"><h2 id="overview">{accountIds.length} accounts</h2><PauseButton /></div>
      <p className="total">{missing.length ? "Known part" : "Total"} <strong>{missing.length === accountIds.length ? "—" : money(total)}</strong></p>
      {missing.length ? <p className="hint">Without {missing.join(", ")}</p> : null}
      <div className="lp-scroll" tabIndex={0} role="region" aria-label="Table of accounts">
        <table className="lp-table">
          <thead><tr><th scope="col">Account</th><th scope="col">Value</th><th scope="col">Today</th><th scope="col">State</th></tr></thead>
          <tbody>{accountIds.map((accountId) => <Row key={accountId} accountId={accountId} link={link} tell={tell} />)}</tbody>
        </table>
      </div>
    </section>
  );
}

interface RowProps {
  readonly accountId: string;
  readonly link: (accountId: string) => ReactNode;
  readonly tell: (accountId: string, equity: string | null) => void;
}

function Row({ accountId, link, tell }: RowProps) {
  const { status, equity, gained, ratio } = usePortfolio(accountId, ({ status, value }) => {
    return { status, equity: value?.equity ?? null, gained: value?.day_pnl ?? null, ratio: value?.day_pnl_ratio ?? null };
  });
  useTold(accountId, equity, tell);
  return (
    <tr data-status={status}>
      <th scope="row">{link(accountId)}</th>
      <td>{money(equity)}</td>
      <td data-column="day" data-direction={signOf(gained) ?? 0}>{gainWithPercent(gained, ratio)}</td>
      <td><ConnectionState accountId={accountId} /></td>
    </tr>
  );
}

function useTold(accountId: string, equity: string | null, tell: RowProps["tell"]): void {
  useEffect(() => tell(accountId, equity), [accountId, equity, tell]);
}
