"use client";
import { type AllocationOptions, createAllocation } from "../dom/allocation.js";
import { Drawn } from "./view.js";

export interface AllocationProps extends Omit<AllocationOptions, "client"> {
  readonly className?: string;
}

/** Where the money is, by asset class or by symbol. */
export function Allocation({ accountId, by, label, className }: AllocationProps) {
  return <Drawn create={createAllocation} options={{ accountId, by, label }} className={className} />;
}
