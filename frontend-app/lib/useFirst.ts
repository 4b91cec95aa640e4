"use client";
import { useEffect, useState } from "react";
import { clientOf } from "./client";
import { type First, firstValues } from "./first";

/** What is known at once of these accounts; the same list of ids may be a new array. */
export function useFirst(accountIds: readonly string[]): Readonly<Record<string, First>> {
  const [first, setFirst] = useState<Readonly<Record<string, First>>>({});
  const ids = accountIds.join();
  useEffect(() => {
    const stop = new AbortController();
    void firstValues(clientOf(0), ids.split(","), setFirst, stop.signal);
    return () => stop.abort();
  }, [ids]);
  return first;
}
