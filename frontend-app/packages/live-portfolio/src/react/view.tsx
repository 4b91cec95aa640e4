"use client";
import { useEffect, useRef } from "react";
import type { View } from "../dom/table.js";

/** An element whose content a view draws; `make` must be the same function until something changes. */
export function Drawn({ make, className }: { readonly make: (container: HTMLElement) => View; readonly className: string }) {
  const container = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!container.current) return undefined;
    const view = make(container.current);
    return () => view.destroy();
  }, [make]);
  return <div ref={container} className={className} />;
}
