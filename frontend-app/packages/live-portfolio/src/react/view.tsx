"use client";
import { useEffect, useRef } from "react";
import type { View } from "../dom/table.js";
import type { LivePortfolio } from "../types.js";
import { useLivePortfolio } from "./context.js";

export interface DrawnProps<T extends object> {
  readonly create: (container: HTMLElement, options: T & { readonly client: LivePortfolio }) => View;
  /** Made again when they say something else. */
  readonly options: T;
  readonly className: string | undefined;
}

/** An element whose content a view draws, outside React. */
export function Drawn<T extends object>({ create, options, className }: DrawnProps<T>) {
  const container = useRef<HTMLDivElement>(null);
  const client = useLivePortfolio();
  useEffect(() => {
    const view = create(container.current as HTMLDivElement, { ...options, client });
    return () => view.destroy();
  }, [create, client, JSON.stringify(options)]);
  return <div ref={container} className={className} />;
}
