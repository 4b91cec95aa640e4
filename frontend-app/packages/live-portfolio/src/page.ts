/**
 * Tell what happens to the page: it may have slept, been away or without a network (`wake`), lost its network,
 * been hidden, or go into the back/forward cache, from which browsers throw pages that keep a socket (`stored`).
 * The answer ends it. On a runtime without pages nothing is told.
 */
export function watchPage(wake: () => void, offline: () => void, hidden: () => void, stored: () => void): () => void {
  const stop = new AbortController(); // which has the option "signal"
  const on = (target: EventTarget | undefined, names: string, listener: (event: Event) => void) => {
    for (const name of names.split(" ")) target?.addEventListener?.(name, listener, stop);
  };
  const { document } = globalThis;
  on(globalThis, "online pageshow", wake);
  on(globalThis, "offline", offline);
  on(globalThis, "pagehide", (event) => (event as PageTransitionEvent).persisted && stored());
  on(document, "resume", wake);
  on(document, "visibilitychange", () => (document.visibilityState === "visible" ? wake() : hidden()));
  return () => stop.abort();
}
