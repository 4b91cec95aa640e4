"use client";
import { gainWithPercent, money, signOf } from "live-portfolio/format";
import { ConnectionState, usePortfolio } from "live-portfolio/react";
import { type ReactNode, useCallback, useEffect, useState } from "react";
import { PauseButton } from "./PauseButton";
import { sumOf } from "@/lib/sum";

/** What is known of an account, and whether that is all of it. */
interface Part {
  readonly amount: string | null;
  readonly isWhole: boolean;
}

/** Each account in a row, and a total only of what is known: who is missing is named. */
export function Overview({ accountIds, link }: { readonly accountIds: readonly string[]; readonly link: (accountId: string) => ReactNode }) {
  const [parts, setParts] = useState<Readonly<Record<string, Part>>>({});
  const tell = useCallback((accountId: string, part: Part) => setParts((before) => ({ ...before, [accountId]: part })), []);
  const missing = accountIds.filter((accountId) => parts[accountId]?.amount == null);
  const inPart = accountIds.filter((accountId) => parts[accountId]?.isWhole === false && !missing.includes(accountId));
  const total = sumOf(accountIds.flatMap((accountId) => parts[accountId]?.amount ?? []));
  return (
    <section className="card" aria-labelledby="overview">
      <div className="bar"><h2 id="overview">{accountIds.length} accounts</h2><PauseButton /></div>
      <p className="total">{missing.length || inPart.length ? "Known part" : "Total"} <strong>{missing.length === accountIds.length ? "—" : money(total)}</strong></p>
      {missing.length ? <p className="hint">Without {missing.join(", ")}</p> : null}
      {inPart.length ? <p className="hint">Not all is priced in {inPart.join(", ")}</p> : null}
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
  readonly tell: (accountId: string, part: Part) => void;
}

function Row({ accountId, link, tell }: RowProps) {
  const { status, equity, known, gained, ratio } = usePortfolio(accountId, ({ status, value }) => {
    const { equity = null, known_equity: known = null, day_pnl: gained = null, day_pnl_ratio: ratio = null } = value ?? {};
    return { status, equity, known, gained, ratio };
  });
  const amount = equity ?? known;
  const isWhole = equity !== null;
  useEffect(() => tell(accountId, { amount, isWhole }), [accountId, amount, isWhole, tell]);
  return (
    <tr data-status={status}>
      <th scope="row">{link(accountId)}</th>
      <td>{money(equity)}</td>
      <td data-column="day" data-direction={signOf(gained) ?? 0}>{gainWithPercent(gained, ratio)}</td>
      <td><ConnectionState accountId={accountId} /></td>
    </tr>
  );
}
