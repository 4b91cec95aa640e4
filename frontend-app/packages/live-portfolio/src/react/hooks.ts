"use client";
import { useCallback, useRef, useSyncExternalStore } from "react";
import type { Detail, Snapshot } from "../types.js";
import { useLivePortfolio } from "./context.js";

export interface UsePortfolioOptions<T> {
  readonly isEqual?: (one: T, other: T) => boolean;
  /** "positions" brings the rows. Default "value". */
  readonly detail?: Detail;
}

/**
 * A part of an account, live. The component renders when the part changes and at most once a frame; a selector
 * may make a new object each time, for parts with equal fields are the same (`isEqual`).
 */
export function usePortfolio<T = Snapshot>(
  accountId: string,
  selector: (snapshot: Snapshot) => T = (snapshot) => snapshot as T,
  { isEqual = isShallowEqual, detail = "value" }: UsePortfolioOptions<T> = {},
): T {
  const client = useLivePortfolio();
  const last = useRef<{ readonly snapshot: Snapshot; readonly selector: unknown; readonly part: T } | null>(null);
  const subscribe = useCallback((listener: () => void) => client.subscribe(accountId, listener, { detail }), [client, accountId, detail]);
  const select = (snapshot: Snapshot): T => {
    const before = last.current;
    if (before?.snapshot === snapshot && before.selector === selector) return before.part;
    const made = selector(snapshot);
    const isSame = before !== null && before.snapshot.accountId === snapshot.accountId && isEqual(before.part, made);
    const part = isSame ? before.part : made;
    last.current = { snapshot, selector, part };
    return part;
  };
  return useSyncExternalStore(subscribe, () => select(client.getSnapshot(accountId)), () => select(client.getServerSnapshot()));
}

export type Connection = Pick<Snapshot, "status" | "link" | "transport" | "retryAt" | "error" | "confirmedAt" | "oldSince">;

/** How an account is connected: everything but its figures. */
export function useConnection(accountId: string): Connection {
  return usePortfolio(accountId, connectionOf);
}

function connectionOf({ status, link, transport, retryAt, error, confirmedAt, oldSince }: Snapshot): Connection {
  // a value that is live is confirmed all the time: only when it is not does the moment matter
  return { status, link, transport, retryAt, error, confirmedAt: status === "live" ? null : confirmedAt, oldSince };
}

/** Have two objects the same fields? */
function isShallowEqual(one: unknown, other: unknown): boolean {
  if (one === other) return true;
  if (typeof one !== "object" || typeof other !== "object" || !one || !other) return false;
  const [left, right] = [one as Record<string, unknown>, other as Record<string, unknown>];
  const names = Object.keys(left);
  return names.length === Object.keys(right).length && names.every((name) => name in right && left[name] === right[name]);
}
