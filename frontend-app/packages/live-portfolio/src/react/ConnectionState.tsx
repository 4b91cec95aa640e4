"use client";
import { clockTime } from "../format.js";
import type { Snapshot } from "../types.js";
import { stateWords } from "../words.js";
import { usePortfolio } from "./hooks.js";

export interface ConnectionStateProps {
  readonly accountId: string;
  readonly className?: string;
}

/** Live, old since when, or why not. A change is spoken once, figures never are. */
export function ConnectionState({ accountId, className = "" }: ConnectionStateProps) {
  const { status, text, tone, since } = usePortfolio(accountId, shown);
  return (
    <span className={`lp-state ${className}`} data-status={status} data-tone={tone} role="status">
      <span className="lp-dot" aria-hidden="true" />
      <span>{text + since}</span>
    </span>
  );
}

function shown(snapshot: Snapshot) {
  const { status, confirmedAt } = snapshot;
  return { ...stateWords(snapshot), status, since: status === "old" && confirmedAt ? ` · from ${clockTime(confirmedAt)}` : "" };
}
