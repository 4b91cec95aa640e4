"use client";
import { clockTime } from "../format.js";
import { stateWords } from "../words.js";
import { useConnection } from "./hooks.js";

export interface ConnectionStateProps {
  readonly accountId: string;
  readonly className?: string;
}

/** Live, old since when, or why not. A change is spoken once, figures never are. */
export function ConnectionState({ accountId, className = "" }: ConnectionStateProps) {
  const connection = useConnection(accountId);
  const { text, tone } = stateWords(connection);
  const since = connection.status === "old" && connection.confirmedAt ? ` · from ${clockTime(connection.confirmedAt)}` : "";
  return (
    <span className={`lp-state ${className}`} data-status={connection.status} data-tone={tone} role="status">
      <span className="lp-dot" aria-hidden="true" />
      <span>{text + since}</span>
    </span>
  );
}
