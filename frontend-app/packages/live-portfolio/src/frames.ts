const HIDDEN_MS = 200; // a page that is not seen gets no frames

/** A function that runs `flush` once with the next frame, however often it is called until then. */
export function frames(flush: () => void): () => void {
  let frame = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const run = () => {
    if (frame) cancelAnimationFrame(frame);
    clearTimeout(timer);
    frame = 0;
    timer = undefined;
    flush();
  };
  return () => {
    if (timer !== undefined) return;
    timer = setTimeout(run, HIDDEN_MS);
    if (typeof requestAnimationFrame === "function") frame = requestAnimationFrame(run);
  };
}
