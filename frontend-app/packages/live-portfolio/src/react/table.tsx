"use client";
import { type PositionsTableOptions, createPositionsTable } from "../dom/table.js";
import { Drawn } from "./view.js";

export interface PositionsTableProps extends Omit<PositionsTableOptions, "client"> {
  readonly className?: string;
}

/** Sorting, search and a thousand rows: rows are written outside React, each only when it changes. */
export function PositionsTable({ accountId, label, className }: PositionsTableProps) {
  return <Drawn create={createPositionsTable} options={{ accountId, label }} className={className} />;
}
