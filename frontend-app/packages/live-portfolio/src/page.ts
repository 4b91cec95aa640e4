export interface PageEvents {
  /** It may have slept, been away or without a network. */
  onWake(): void;
  onOffline(): void;
  onHidden(): void;
  /** Into the back/forward cache, from which browsers throw pages that keep a socket. */
  onStored(): void;
}

/** Tell what happens to the page. The answer ends it. On a runtime without pages nothing is told. */
export function watchPage(events: PageEvents): () => void {
  if (typeof addEventListener !== "function" || !globalThis.document) return () => {};
  const stop = new AbortController(); // which has the option "signal"
  const on = (target: EventTarget, name: string, listener: (event: Event) => void) => target.addEventListener(name, listener, stop);
  on(globalThis, "online", events.onWake);
  on(globalThis, "pageshow", events.onWake);
  on(globalThis, "offline", events.onOffline);
  on(globalThis, "pagehide", (event) => (event as PageTransitionEvent).persisted && events.onStored());
  on(document, "resume", events.onWake);
  on(document, "visibilitychange", () => (document.visibilityState === "visible" ? events.onWake() : events.onHidden()));
  return () => stop.abort();
}
