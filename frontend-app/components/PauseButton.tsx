"use client";
import { usePaused } from "live-portfolio/react";

export function PauseButton() {
  const [isPaused, setPaused] = usePaused();
  return <button type="button" className="quiet" aria-pressed={isPaused} onClick={() => setPaused(!isPaused)}>{isPaused ? "Resume" : "Pause"}</button>;
}
