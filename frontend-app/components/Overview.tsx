"use client";
import type { PortfolioMessage } from "live-portfolio";
import { gainWithPercent, money, signOf } from "live-portfolio/format";
import { ConnectionState, LivePortfolioProvider, usePortfolio } from "live-portfolio/react";
import { type ReactNode, useCallback, useEffect, useState } from "react";
import { ACCOUNTS_PER_CONNECTION, clientOf } from "@/lib/client";
import { nameOf } from "@/lib/names";
import { sumOf } from "@/lib/sum";
import { useFirst } from "@/lib/useFirst";

/** What is known of an account, and whether that is all of it. */
interface Part {
  readonly amount: string | null;
  readonly isWhole: boolean;
}

type Link = (accountId: string, name: string) => ReactNode;

/** Each account in a row, and a total only of what is known: who is missing is named. */
export function Overview({ accountIds, link }: { readonly accountIds: readonly string[]; readonly link: Link }) {
  const [parts, setParts] = useState<Readonly<Record<string, Part>>>({});
  const [isPaused, setPaused] = useState(false);
  const first = useFirst(accountIds);
  const called = (accountId: string) => nameOf(accountId, first[accountId]?.number);
  const tell = useCallback((accountId: string, part: Part) => setParts((before) => ({ ...before, [accountId]: part })), []);
  const groups = Array.from({ length: Math.ceil(accountIds.length / ACCOUNTS_PER_CONNECTION) }, (_, index) =>
    accountIds.slice(index * ACCOUNTS_PER_CONNECTION, (index + 1) * ACCOUNTS_PER_CONNECTION));
  useEffect(() => {
    if (!isPaused) return undefined;
    const clients = Array.from({ length: groups.length }, (_, index) => clientOf(index));
    for (const client of clients) client.pause();
    return () => clients.forEach((client) => client.resume()); // also when this page is left
  }, [isPaused, groups.length]);
  const missing = accountIds.filter((accountId) => parts[accountId]?.amount == null);
  const inPart = accountIds.filter((accountId) => parts[accountId]?.isWhole === false && !missing.includes(accountId));
  const total = sumOf(accountIds.flatMap((accountId) => parts[accountId]?.amount ?? []));
  return (
    <section className="card" aria-labelledby="overview">
      <div className="bar">
        <h2 id="overview">{accountIds.length} accounts</h2>
        <button type="button" className="quiet" aria-pressed={isPaused} onClick={() => setPaused(!isPaused)}>{isPaused ? "Resume" : "Pause"}</button>
      </div>
      <p className="total">{missing.length || inPart.length ? "Known part" : "Total"} <strong>{missing.length === accountIds.length ? "—" : money(total)}</strong></p>
      {missing.length ? <p className="hint">Without {missing.map(called).join(", ")}</p> : null}
      {inPart.length ? <p className="hint">Not all is priced in {inPart.map(called).join(", ")}</p> : null}
      <div className="lp-scroll" tabIndex={0} role="region" aria-label="Table of accounts">
        <table className="lp-table">
          <thead><tr><th scope="col">Account</th><th scope="col">Value</th><th scope="col">Today</th><th scope="col">State</th></tr></thead>
          {groups.map((ids, index) => (
            <LivePortfolioProvider key={index} client={clientOf(index)}>
              <tbody>{ids.map((accountId) => <Row key={accountId} accountId={accountId} name={called(accountId)} first={first[accountId]?.value} link={link} tell={tell} />)}</tbody>
            </LivePortfolioProvider>
          ))}
        </table>
      </div>
    </section>
  );
}

interface RowProps {
  readonly accountId: string;
  readonly name: string;
  /** Shown, as old, until the account is live. */
  readonly first: PortfolioMessage | undefined;
  readonly link: Link;
  readonly tell: (accountId: string, part: Part) => void;
}

function Row({ accountId, name, first, link, tell }: RowProps) {
  const { status, equity, known, gained, ratio } = usePortfolio(accountId, (snapshot) => {
    const value = snapshot.value ?? (snapshot.status === "unknown" ? first : null);
    const { equity = null, known_equity: known = null, day_pnl: gained = null, day_pnl_ratio: ratio = null } = value ?? {};
    return { status: snapshot.status === "unknown" && value ? "old" : snapshot.status, equity, known, gained, ratio };
  });
  const amount = equity ?? known;
  const isWhole = equity !== null;
  useEffect(() => tell(accountId, { amount, isWhole }), [accountId, amount, isWhole, tell]);
  return (
    <tr data-status={status}>
      <th scope="row">{link(accountId, name)}</th>
      <td>{money(equity)}</td>
      <td data-column="day" data-direction={signOf(gained) ?? 0}>{gainWithPercent(gained, ratio)}</td>
      <td><ConnectionState accountId={accountId} /></td>
    </tr>
  );
}
