"use client";
import { useCallback } from "react";
import { type PositionsTableOptions, createPositionsTable } from "../dom/table.js";
import { useLivePortfolio } from "./context.js";
import { Drawn } from "./view.js";

export interface PositionsTableProps extends Omit<PositionsTableOptions, "client"> {
  readonly className?: string;
}

/** Sorting, search and a thousand rows: rows are written outside React, each only when it changes. */
export function PositionsTable({ accountId, names, label, className = "" }: PositionsTableProps) {
  const client = useLivePortfolio();
  const make = useCallback(
    (container: HTMLElement) => createPositionsTable(container, { client, accountId, ...(names && { names }), ...(label && { label }) }),
    [client, accountId, names, label],
  );
  return <Drawn make={make} className={className} />;
}
