"use client";
import { type ReactNode, createContext, useCallback, useContext, useMemo, useState } from "react";
import type { LivePortfolio } from "../types.js";

interface Provided {
  readonly client: LivePortfolio;
  readonly isPaused: boolean;
  readonly setPaused: (is: boolean) => void;
}

const Context = createContext<Provided | null>(null);

/** Gives a client to everything below. The client is made once, outside: a render must not open connections. */
export function LivePortfolioProvider({ client, children }: { readonly client: LivePortfolio; readonly children?: ReactNode }) {
  const [isPaused, setIsPaused] = useState(false);
  const setPaused = useCallback((is: boolean) => {
    if (is) client.pause();
    else client.resume();
    setIsPaused(is);
  }, [client]);
  const provided = useMemo(() => ({ client, isPaused, setPaused }), [client, isPaused, setPaused]);
  return <Context.Provider value={provided}>{children}</Context.Provider>;
}

function useProvided(): Provided {
  const provided = useContext(Context);
  if (!provided) throw new Error("Put <LivePortfolioProvider client={createLivePortfolio(…)}> around this component");
  return provided;
}

export function useLivePortfolio(): LivePortfolio {
  return useProvided().client;
}

/** `[isPaused, setPaused]`: what moves can be stopped (WCAG 2.2.2). */
export function usePaused(): readonly [boolean, (is: boolean) => void] {
  const { isPaused, setPaused } = useProvided();
  return [isPaused, setPaused];
}
