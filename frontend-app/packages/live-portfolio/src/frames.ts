const BREATH_MS = 125; // between two drawings: nobody reads faster, and what comes alone is drawn with the next frame
const HIDDEN_MS = 200; // a page that is not seen gets no frames

/** A function that has `flush` run once with a coming frame, however often it is called until then. */
export function frames(flush: () => void): () => void {
  let frame = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let flushedAt = 0;
  const run = () => {
    clearTimeout(timer);
    globalThis.cancelAnimationFrame?.(frame);
    timer = undefined;
    flushedAt = Date.now();
    flush();
  };
  const begin = () => {
    timer = setTimeout(run, HIDDEN_MS);
    frame = globalThis.requestAnimationFrame?.(run);
  };
  return () => {
    timer ??= setTimeout(begin, Math.max(0, Math.min(BREATH_MS, flushedAt + BREATH_MS - Date.now())));
  };
}
