"use client";
import { useCallback } from "react";
import { type AllocationOptions, createAllocation } from "../dom/allocation.js";
import { useLivePortfolio } from "./context.js";
import { Drawn } from "./view.js";

export interface AllocationProps extends Omit<AllocationOptions, "client"> {
  readonly className?: string;
}

/** Where the money is, by asset class or by symbol. */
export function Allocation({ accountId, by = "class", label, className = "" }: AllocationProps) {
  const client = useLivePortfolio();
  const make = useCallback((container: HTMLElement) => createAllocation(container, { client, accountId, by, ...(label && { label }) }), [client, accountId, by, label]);
  return <Drawn make={make} className={className} />;
}
